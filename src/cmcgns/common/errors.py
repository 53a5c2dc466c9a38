"""The errors a user can cause, and can therefore mend."""


class UserError(ValueError):
    """Bad input of any kind: the message names the file, row or key and the way out.

    The command line prints the message alone; Python callers get an ordinary ``ValueError``.
    """
