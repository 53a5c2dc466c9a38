"""Fixtures of pretended studies."""

from support.study import pretended

__all__ = ["pretended"]
