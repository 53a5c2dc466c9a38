"""The scripts behind docs/rivals.md: which trial is best, and what a step keeps."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_mean_of_a_trial_is_over_its_measures_and_waits_for_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import trials

    done = {"recipe": [SimpleNamespace(value=0.5), SimpleNamespace(value=0.9)], "own": [SimpleNamespace(value=0.8)]}
    assert trials.means(done) == pytest.approx({"recipe": 0.7, "own": 0.8})
    assert trials.means(done | {"fast": [SimpleNamespace(value=None)]}) == {}


def test_memory_counts_each_kept_tensor_once_and_no_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rivals

    layer = torch.nn.Linear(1024, 1024, bias=False)
    given = torch.ones(256, 1024, requires_grad=True)

    def step() -> None:
        hidden = layer(given)  # keeps `given` and the weight
        (hidden.exp() + hidden.exp()).sum().backward()  # keeps what each exp gave

    assert rivals.kept_for_backward(layer, step) == pytest.approx(3.0)  # MiB


def test_every_rival_is_among_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rivals
    from objectives.rivals.test_every_rival import RIVALS

    found = rivals.recipes("demo")
    assert {"default", *RIVALS} == set(found)
    assert {recipe.objective.dim for recipe in found.values()} == {128}
    read = {name for name, recipe in found.items() if recipe.objective.decoder_width == 64}
    assert read == {"default", *rivals.DECODERS}
