"""Processes of their own answer malformed calls as calls within a process do, and random ones without a traceback."""

import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from malformed.answer import ask, settle
from malformed.call import Call
from malformed.world import World

WRONG = [
    "recipes dmo",
    "protocols show knnn",
    "pretrain tiny.yaml --data pairs --out pairs/0.png/run",
    "evaluate nowhere --protocol knn/v1 --data data --out out",
    "phantom tree openii --out out",
    "check data --out /proc/none",
]
RIGHT = [
    "recipes demo --set training.seed=1",
    "protocols show knn/v1 --set seeds=2",
    "phantom studies --out out --train 2 --val 1 --test 1 --size 32 --seed 0 --workers 1",
    "phantom tree openi --out out --studies 8 --size 32 --seed 0",
    "prepare table --root pairs --out out --size 32 --workers 1 --dataset mine --column sex=patient_id",
    "prepare nih --root tree-nih --out out --size 32 --workers 1 --split legacy",
    "check data --skip image-unreadable --out out --no-images",
    "compare judged twin --out out",
    "report run --data pairs --out out",
    "pretrain tiny.yaml --data pairs --out out --set training.seed=1 --accelerator cpu --dry-run",
    "evaluate run --protocol retrieval/v1 --data data --out out --device cpu",
    "bench step tiny.yaml --batch 2 --steps 1 --device cpu --json out/figures.json",
]
GARBAGE = [
    "", " ", "-", "--", "-1", "0", "1.5", "nan", "1e999", "9" * 30, "x" * 300, "ü", "{", "[1", "a=b", "=", "a.b=", "null",
    "*", "%s", "\\", "'", "/dev/null", "/proc/none", "pairs/0.png", "pairs/pairs.csv", "data", "tiny.yaml", "file:///x",
    "!!python/name:os", "@", ":", ",", "$HOME", "\u202e", "\n",
]  # fmt: skip


def mutated(words: str, rng: random.Random) -> str:
    """A call with one to three of its words dropped, swapped, repeated, or replaced by garbage."""
    parts = shlex.split(words)
    for _ in range(rng.randint(1, 3)):
        place, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(5):
            case 0 if len(parts) > 1:
                del parts[place]
            case 1:
                parts[place], parts[other] = parts[other], parts[place]
            case 2:
                parts.insert(place, parts[other])
            case _:
                parts[place] = rng.choice(GARBAGE)
    return shlex.join(parts)


def _numbers() -> list[object]:
    return [pytest.param(number, marks=[pytest.mark.slow] if number >= 30 else []) for number in range(300)]


@pytest.mark.parametrize("number", _numbers())
def test_no_mutation_of_a_call_ends_in_a_traceback(
    number: int, world: World, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(number)
    words = mutated(RIGHT[number % len(RIGHT)], rng)
    settle(Call(words, []), here, world)
    answer = ask(words, capfd.readouterr)
    assert answer.status in (0, 1, 2), f"{words}\n{answer.error}"
    assert "Traceback" not in answer.error, words


@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=[pytest.mark.slow] if place else []) for place, words in enumerate(WRONG)]
)
def test_a_process_answers_as_a_call_within_one(
    words: str, world: World, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settle(Call(words, []), here, world)
    answer = ask(words, capfd.readouterr)
    command = [sys.executable, "-m", "cmcgns", *shlex.split(words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ), check=False)
    assert done.returncode == answer.status == 2
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        line for line in answer.error.splitlines() if line.startswith("error: ")
    ]
