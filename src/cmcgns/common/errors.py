"""The errors a user can cause, and can therefore mend, and what other errors say."""


class UserError(ValueError):
    """Bad input of any kind: the message names the file, row or key and the way out.

    The command line prints the message alone; Python callers get an ordinary ``ValueError``.
    """


def one_line(error: Exception) -> str:
    """What an error says, in one line of at most 300 characters; its type where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__
