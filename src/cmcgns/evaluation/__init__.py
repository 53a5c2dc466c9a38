"""Judging an encoder."""
