"""Encoders, pooling, decoder."""
