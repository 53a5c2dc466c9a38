"""A call made in this process, and what is wrong with its answer."""

import logging
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cmcgns.cli import app
from cmcgns.common.errors import UserError
from malformed.call import Call
from malformed.world import World

LONGEST = 640  # letters of a message: the list of all rules of `check` is the longest
SECONDS = 10
# What only somebody who reads the program can understand.
_INTERNAL = re.compile(
    r"Traceback|object at 0x|0x[0-9a-f]{8}|\bdtype\(|\btorch\.|\btensor\(|pandas\.errors|\b\w+Error\b|"
    r"site-packages|errors\.pydantic|<class '|\[Errno|codec can't|C error|PosixPath|np\.\w+\("
)
_ERROR = re.compile("^error: ", re.MULTILINE)
_BOX = re.compile(r"[│╭╮╰╯─]")


@dataclass(frozen=True)
class Answer:
    """How a call ended.

    Attributes:
        status: of the process; None if an exception got through.
        error: what it wrote to the standard error stream, or the exception.
        output: what it wrote to the standard output.
    """

    status: int | None
    error: str
    output: str = ""

    @property
    def text(self) -> str:
        """All that a user reads, in one line, without the place of the small world."""
        return " ".join(_BOX.sub(" ", f"{self.error}\n{self.output}").split()).replace(f"{Path.cwd()}/", "")

    @property
    def message(self) -> str:
        """The message at its end, if it is one."""
        return self.text[self.text.index("error: ") :] if self.is_message else self.text

    @property
    def is_message(self) -> bool:
        """Whether it ends in one message of the program's own (and not of the parser of its words)."""
        return len(_ERROR.findall(self.error)) == 1


def settle(call: Call, here: Path, world: World) -> None:
    """Lay out what a call is about, and damage it; `pairs`, which holds a table of paths, is never a link."""
    damaged = {name.partition("/")[0] for name in call.files}
    for name in dict.fromkeys([*damaged, *re.findall(r"[\w.-]+", call.words), "pairs", "tiny.yaml"]):
        world.settle(name, here, name in damaged or name == "pairs")
    for name, content in call.files.items():
        path = here / name
        if callable(content):
            content(path)
        elif content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def _bounded() -> Iterator[None]:
    """Neither for ever nor with processes of its own."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer within {SECONDS} s")

    def refuse(*words: Any, **_: Any) -> None:
        raise AssertionError(f"starts a process: {words}")

    kept = dict(os.environ)  # Lightning leaves its own in it
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning is no traceback
            patch.setattr(subprocess, "Popen", refuse)
            patch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
            patch.setattr(logging.getLogger(), "handlers", [])
            yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ask(words: str, capture: Callable[[], tuple[str, str]]) -> Answer:
    """The command line's answer.

    Args:
        words: behind `cmcgns`.
        capture: gives what was written to both streams since it was last called.
    """
    capture()
    with _bounded(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cmcgns", *shlex.split(words)])
        try:
            app.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # whatever the interpreter would print
            return Answer(None, traceback.format_exc())
        else:
            status = 0
    output, error = capture()
    return Answer(status, error, output)


def evaluate(expression: str, names: dict[str, Any]) -> Answer:
    """A Python call's answer: the message of its `UserError`."""
    with _bounded():
        try:
            eval(expression, names)
        except UserError as error:
            return Answer(2, f"error: {error}")
        except BaseException:
            return Answer(None, traceback.format_exc())
    return Answer(0, "")


def faults(call: Call, answer: Answer) -> list[str]:
    """What is wrong with an answer."""
    if answer.status is None:
        return [f"traceback: {answer.error.strip().splitlines()[-1][:300]}"]
    found = [] if answer.status == call.status else [f"status {answer.status} instead of {call.status}"]
    message = answer.message
    if answer.is_message and len(message) > LONGEST:
        found.append(f"{len(message)} letters")
    if internal := _INTERNAL.findall(message):
        found.append(f"internals: {internal}")
    for wanted in call.must:
        if not any(choice.lower() in answer.text.lower() for choice in wanted.split(" | ")):
            found.append(f"does not say {wanted!r}")
    return found
