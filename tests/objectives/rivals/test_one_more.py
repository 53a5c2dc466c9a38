"""The example of docs/rivals.md: it is what it says, and passes what every rival has to."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cmcgns.objectives import objective
from objectives.rivals import test_every_rival as every
from support.objectives import random_batch

PAGE = Path(__file__).parents[3] / "docs" / "rivals.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that the page shows, registered for one test."""
    monkeypatch.setattr(objective._OBJECTIVES, "_kinds", objective._OBJECTIVES.load())
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 46
    (tmp_path / "vse_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import vse_of_the_page

    yield vse_of_the_page
    del sys.modules["vse_of_the_page"]


def test_the_loss_is_its_formula(example: ModuleType) -> None:
    cosines = [[0.9, 0.8, 0.1], [0.3, 0.2, 0.6], [0.0, 0.1, 0.5]]
    image = torch.eye(3)
    report = torch.tensor(cosines).T  # not of length 1, so that cosines are as written
    # rows: 0.2 + 0.8 - 0.9; 0.2 + 0.6 - 0.2; 0. columns: 0; 0.2 + 0.8 - 0.2; 0.2 + 0.6 - 0.5
    assert float(example.hardest(image, report, 0.2)) == pytest.approx(0.1 + 0.6)
    assert float(example.hardest(report, image, 0.2)) == pytest.approx(0.8 + 0.3)


def test_it_passes_what_every_rival_has_to(example: ModuleType) -> None:
    assert example.VSE.__doc__
    every.test_every_trainable_parameter_has_a_finite_gradient("vse")
    every.test_padding_changes_nothing("vse", training=True)
    every.test_evaluation_is_repeatable_and_moves_nothing("vse")
    every.test_the_weights_of_a_finished_run_are_those_that_it_is_opened_with("vse")
    task = every.rival_task("vse", margin=0.5)
    assert float(task(random_batch((3, 4, 2), 5, size=32), 0)[0]["loss"].detach()) > 0
