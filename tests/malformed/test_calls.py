"""Every malformed call is answered by one short message that names what is wrong and says a way out."""

import platform
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

VERBS = ("pretrain", "pairs", "runs", "evaluate", "prepare", "others", "python")


def _all() -> Iterator[object]:
    for verb in VERBS:
        for number, call in enumerate(import_module(f"malformed.{verb}").CALLS):
            marks = [pytest.mark.xfail(strict=True, reason=call.known)] if call.known else []
            words = " ".join([*call.words.split(), *call.files])
            yield pytest.param(verb, call, id=f"{verb}-{number}-{words[:90]}", marks=marks)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    for name in ("cmcgns.demo", "lightning.fabric", "timm", "transformers"):  # so that no call is slow by its imports
        import_module(name)
    platform.processor()  # starts a process, once

    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # else a message is folded into a narrow box
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


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
