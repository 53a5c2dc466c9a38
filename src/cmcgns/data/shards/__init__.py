"""Tar shards: written once, streamed in training."""
