"""The errors a user can cause, and can therefore mend, and what other errors say."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

MOST_QUOTED = 200  # characters of the input that a message repeats
_CODE = "it asks for code of its own, which is not run; save it as one of the library's own classes"
_ADVICE = {
    "trust_remote_code": _CODE,
    "custom code": _CODE,
    "weights_only": "it holds more than tensors, and their code is not run; save tensors alone, best as .safetensors",
}


class UserError(ValueError):
    """Bad input of any kind: the message names the file, row or key and the way out.

    The command line prints the message alone; Python callers get an ordinary ``ValueError``.
    """


def one_line(error: Exception) -> str:
    """What an error says, in one line of at most 300 characters; its type where it says nothing.

    Libraries that refuse to run a stranger's code say how to run it all the same: that advice is not passed on.
    """
    text = " ".join(str(error).split())
    for sign, said in _ADVICE.items():
        if sign in text:
            return said
    return text[:300] or type(error).__name__


def shortened(text: object, most: int = MOST_QUOTED) -> str:
    """What a message quotes of an input: at most so many characters of it, whatever its length."""
    quoted = str(text)
    return quoted if len(quoted) <= most else quoted[: most - 1] + "…"


def first_of(items: Sequence[T], most: int, say: Callable[[T], str] = str) -> list[str]:
    """The first of many, and how many there are besides: ["a", "b", "and 12 more"]."""
    rest = len(items) - most
    return [say(item) for item in items[:most]] + ([f"and {rest:,} more"] if rest > 0 else [])


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like a wrong one, or holds it; empty where none does."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1) or [each for each in names if len(name) > 2 and name in each]
    return near[0] if near else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to a wrong one, as the end of a message; empty where none is near."""
    near = nearest(name, known)
    return f" Did you mean {near}?" if near else ""
