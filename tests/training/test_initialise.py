"""`--init RUN`: a new run from the weights of another."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.training import loop
from support.training import assert_same_end, in_child, kill_at_step, run, run_with_fault, tiny_recipe


@pytest.fixture
def first_state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The state before the first step."""
    state: dict[str, Tensor] = {}
    step = loop.training_step

    def watched(fabric: Any, module: Any, task: Any, *rest: Any, **options: Any) -> Any:
        if not state:
            state.update({name: value.clone() for name, value in task.state_dict().items()})
        return step(fabric, module, task, *rest, **options)

    monkeypatch.setattr(loop, "training_step", watched)
    return state


def test_weights_are_taken_over_and_the_bank_starts_anew(
    finished: Path, studies: Path, tmp_path: Path, first_state: dict[str, Tensor]
) -> None:
    recipe = tiny_recipe(
        alignment__epochs=1, reconstruction__epochs=0, training__seed=77, report_encoder__dropout=0.3,
        objective__bank={"clusters": 5, "start_from_step": 0, "start_by_step": 4},
    )  # fmt: skip
    out = run(studies, tmp_path / "run", recipe, init=finished)
    given = load_file(finished / "model.safetensors")
    for name, value in given.items():
        if not name.startswith("objective.bank."):
            assert torch.equal(first_state[name], value), name
    assert len(first_state["objective.bank.centroids"]) == 5
    assert not bool(first_state["objective.bank.started"])
    assert int(first_state["objective.bank.steps"]) == 0
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() == (
        finished / "tokenizer" / "tokenizer.json"
    ).read_bytes()
    assert '"hidden_dropout_prob": 0.3' in (out / "report_encoder.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_encoder__options": {"channels": [8, 16, 24, 40], "stem_width": 8}},
            r"other shape: image_encoder\.body",
        ),
        ({"image_encoder__name": "resnet14t"}, r"missing: image_encoder\.body"),
        ({"objective__dim": 40}, r"other shape: .*patch_projection"),
        ({"report_encoder__layers": 2}, r"report_encoder\.layers=1, but the recipe"),
        ({"report_encoder__heads": 4}, r"report_encoder\.heads=2, but the recipe"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, finished: Path, studies: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run(studies, tmp_path / "run", tiny_recipe(**changes), init=finished)
    assert not any((tmp_path / "run").iterdir())


def test_unfinished_run_is_refused(finished: Path, studies: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing \(the run did not finish\)"):
        run(studies, tmp_path / "run", init=tmp_path / "half")


def test_folder_that_is_no_run_is_refused(studies: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run folder"):
        run(studies, tmp_path / "run", init=studies)


def test_killed_before_the_first_checkpoint_it_still_starts_from_those_weights(
    finished: Path, studies: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(alignment__epochs=1, reconstruction__epochs=0, training__seed=8)
    whole = run(studies, tmp_path / "whole", recipe, init=finished)
    out = tmp_path / "killed"
    assert in_child(run_with_fault, kill_at_step, (2,), studies, out, recipe, init=finished) == -9
    run(studies, out, recipe, resume=True)
    assert_same_end(whole, out)
