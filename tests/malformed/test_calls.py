"""Every malformed call is answered by one short message that names what is wrong and says a way out.

The tables beside this file hold the calls, a file a verb. By default a part of each is made, all with `make test-all`.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cmcgns
from malformed.answer import ask, evaluate, faults, settle
from malformed.call import Call
from malformed.world import World

SHARE = 4  # one call of so many is made by default
VERBS = ("pretrain", "pairs", "runs", "evaluate", "study", "prepare", "others", "python")


def _all() -> Iterator[object]:
    for verb in VERBS:
        for number, call in enumerate(import_module(f"malformed.{verb}").CALLS):
            marks = [pytest.mark.xfail(strict=True, reason=call.known)] if call.known else []
            marks += [pytest.mark.slow] if number % SHARE else []
            words = " ".join([*call.words.split(), *call.files])
            yield pytest.param(verb, call, id=f"{verb}-{number}-{words[:90]}", marks=marks)


@pytest.mark.parametrize(("verb", "call"), _all())
def test_it_is_answered(verb: str, call: Call, world: World, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settle(call, here, world)
    if verb == "python":
        answer = evaluate(
            call.words, {"np": np, "Image": Image, "Path": Path, "load": cmcgns.load, "model": world.model}
        )
    else:
        answer = ask(call.words, capfd.readouterr)
    if found := faults(call, answer):
        pytest.fail(f"{'; '.join(found)}\n{answer.message[:1500] or answer.error}", pytrace=False)
