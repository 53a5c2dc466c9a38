"""Texts of data on the terminal: nothing in them moves, colours or hides anything."""

from unicodedata import category

from rich.markup import escape


def without_controls(text: str, keep: str = "") -> str:
    """A text whose control characters are shown as escapes (`\\x1b`), but for those in `keep`."""
    return "".join(char if char in keep or category(char) not in ("Cc", "Cs") else ascii(char)[1:-1] for char in text)


def terminal_text(text: str) -> str:
    """A text for a console of Rich: no markup, no control characters."""
    return escape(without_controls(text))
