"""`--init RUN`: a new run from the weights of another."""

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.training import loop
from support.training import assert_same_end, in_child, kill_at_step, run, run_with_fault, tiny_recipe

SCALES = ("objective.logit_scale.logarithm", "objective.report_scale.logarithm")


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
            r"(?s)other shape: image_encoder\.body.*differs from that run's in image_encoder\.options",
        ),
        (
            {"image_encoder__name": "resnet14t"},
            r'(?s)missing: image_encoder\.body.*in image_encoder\.name \("resnet10t", now "resnet14t"\): set what',
        ),
        ({"objective__dim": 40}, r"(?s)other shape: .*patch_projection.*in objective\.dim \(32, now 40\)"),
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


VIT = {
    "image_encoder__name": "vit_tiny_patch16_224",
    "image_encoder__options": {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8},
    "image_encoder__output_stride": None,
}


@pytest.mark.parametrize("changes", [{}, VIT], ids=["ResNet", "ViT"])
def test_position_embeddings_are_interpolated_to_another_image_size(
    changes: dict[str, Any], studies: Path, tmp_path: Path, first_state: dict[str, Tensor],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    short = {"alignment__epochs": 1, "reconstruction__epochs": 1} | changes
    before = run(studies, tmp_path / "before", tiny_recipe(**short))
    given = load_file(before / "model.safetensors")
    first_state.clear()
    with caplog.at_level(logging.INFO):
        larger = tiny_recipe(data__image_size=64, data__resize=72, **short)
        run(studies, tmp_path / "run", larger, init=before)
    prefixes = {"model.image_pool.positional_embedding": 1, "objective.reconstruction.position": 0}
    prefixes["objective.attention.positions.position"] = 0
    prefixes |= {"model.image_encoder.body.pos_embed": 1} if changes else {}
    differing = {name for name in given if given[name].shape != first_state[name].shape}
    assert differing == set(prefixes)
    for name, prefix in prefixes.items():
        old, new = (
            given[name].reshape(-1, given[name].shape[-1]),
            first_state[name].reshape(-1, given[name].shape[-1]),
        )
        assert torch.equal(new[:prefix], old[:prefix])
        grid = old[prefix:].T.reshape(1, -1, 4, 4)
        expected = F.interpolate(grid, size=(8, 8), mode="bicubic", antialias=True, align_corners=False)
        assert torch.allclose(new[prefix:], expected.flatten(2)[0].T, atol=1e-6)
        assert f"interpolated: {name}, 4 × 4 to 8 × 8" in caplog.text
    for name in given.keys() - differing:
        if not name.startswith("objective.bank."):
            assert torch.equal(first_state[name], given[name]), name


def test_learned_temperatures_are_taken_over(
    finished: Path, studies: Path, tmp_path: Path, first_state: dict[str, Tensor]
) -> None:
    run(studies, tmp_path / "run", tiny_recipe(alignment__epochs=1, reconstruction__epochs=0), init=finished)
    given = load_file(finished / "model.safetensors")
    for scale in SCALES:
        assert given[scale].item() != pytest.approx(-math.log(0.1), abs=1e-4), "it was learned"
        assert torch.equal(first_state[scale], given[scale])


@pytest.mark.parametrize(
    ("changes", "start", "message"),
    [
        ({"temperature": 0.2}, {0: 0.2}, "logit_scale: objective.temperature is 0.2, there 0.1"),
        ({"tau": 0.05}, {1: 0.05}, "report_scale: objective.tau is 0.05, there 0.1"),
        ({"learn_tau": False}, {1: 0.1}, "report_scale: objective.tau is 0.1 and not learned"),
        ({"tau": 0.01, "temperature": 100}, {0: 100, 1: 0.01}, "report_scale: objective.tau is 0.01, there 0.1"),
    ],
)
def test_a_temperature_that_the_recipe_sets_is_not_overwritten(
    changes: dict[str, Any], start: dict[int, float], message: str, finished: Path, studies: Path, tmp_path: Path,
    first_state: dict[str, Tensor], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    settings = {f"objective__{name}": value for name, value in changes.items()}
    recipe = tiny_recipe(alignment__epochs=1, reconstruction__epochs=0, **settings)
    with caplog.at_level(logging.INFO):
        run(studies, tmp_path / "run", recipe, init=finished)
    given = load_file(finished / "model.safetensors")
    for number, scale in enumerate(SCALES):
        expected = -math.log(start[number]) if number in start else given[scale].item()
        assert first_state[scale].item() == pytest.approx(expected, abs=2e-5)
    assert f"not taken over: {message}" in caplog.text


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
