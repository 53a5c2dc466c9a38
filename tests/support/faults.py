"""Commands in processes of their own that are killed at some moment of their life, and go on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


def command(*arguments: object) -> list[str]:
    """The command line as a new process takes it."""
    return [sys.executable, "-m", "cmcgns", *map(str, arguments)]


def run_whole(arguments: Sequence[str], seconds: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Let a command end by itself."""
    return subprocess.run(
        arguments, env=os.environ | environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def run_until_killed(arguments: Sequence[str], seconds: float, number: int = signal.SIGKILL) -> int:
    """Kill a command, and all that it has started, after some seconds of its life.

    Returns:
        Its exit code: minus the signal's number, or what it ended with before.
    """
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, number)
        return process.wait(60)


def moments(life: float, count: int, seed: int) -> Iterator[float]:
    """Moments of a life in seconds, drawn in as many equal parts of it, so that none is forgotten."""
    chance = random.Random(seed)
    for part in range(count):
        yield life * (part + chance.random()) / count


def timed(arguments: Sequence[str]) -> float:
    """Seconds that a command takes, which must end well."""
    started = time.perf_counter()
    done = run_whole(arguments)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - started


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Undisturbed:
    """A command's inputs and what it left when nothing disturbed it.

    Attributes:
        data: prepared studies.
        recipe: file.
        out: the finished run.
        seconds: that it took.
    """

    data: Path
    recipe: Path
    out: Path
    seconds: float

    def pretrain(self, out: Path, *more: str) -> list[str]:
        """The same run elsewhere; one that has begun is resumed."""
        arguments = ["--data", self.data, "--out", out, "--accelerator=cpu", *more]
        resume = ["--resume"] if (out / "config.yaml").is_file() else []
        return command("pretrain", self.recipe, *arguments, *resume)
