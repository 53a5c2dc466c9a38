"""A loader process that dies is named, and costs nothing: the run goes on in every bit as if it had not."""

import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.loader import WorkerLost
from cmcgns.training import loop
from cmcgns.training.checkpoint import checkpoints, read_state
from support.training import STEPS, assert_same_end, run, tiny_recipe


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


def kill_workers_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the loader processes in the middle of a step."""
    step, count = loop.training_step, iter(range(1000))

    def killing(fabric: Any, *rest: Any, **options: Any) -> Any:
        backward = fabric.backward

        def dying(loss: Any) -> None:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
                child.join()
            backward(loss)

        if next(count) == number:
            with monkeypatch.context() as patch:
                patch.setattr(fabric, "backward", dying)
                return step(fabric, *rest, **options)
        return step(fabric, *rest, **options)

    monkeypatch.setattr(loop, "training_step", killing)


@pytest.mark.parametrize("number", [0, STEPS + 2], ids=["at the first step", "mid-epoch"])
def test_the_run_is_saved_and_ends_with_the_same_bits(
    number: int, studies: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, two = tmp_path / "run", tiny_recipe(data__workers=2, training__checkpoint_every=1000)
    monkeypatch.setattr("cmcgns.data.pairs.loader.PREFETCH", 1)
    with monkeypatch.context() as patch:
        kill_workers_at(number, patch)
        with pytest.raises(WorkerLost, match="was ended by SIGKILL") as caught:
            run(studies, out, two)
    said = str(caught.value)
    assert re.match(r"loader process [12] of 2 \(process \d+\)", said)
    assert "go on with --resume, best with --set data.workers=0" in said
    state = read_state(checkpoints(out / "state")[-1])
    assert f"Step {state.global_step} is saved" in said
    assert state.global_step > number, "the step that was under way is whole"
    run(studies, out, tiny_recipe(training__checkpoint_every=1000), resume=True)
    assert_same_end(finished, out)


def test_other_settings_still_have_to_agree(studies: Path, finished: Path) -> None:
    with pytest.raises(UserError, match=r"differs in .*training\.clip"):
        run(studies, finished, tiny_recipe(data__workers=1, training__clip=0.5), resume=True)
