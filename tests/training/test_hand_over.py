"""Stage II starts from the best Stage I weights, by value."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.training import loop
from cmcgns.training.journal import read_metrics
from support.training import STEPS, run, tiny_recipe


@pytest.fixture
def validation_losses(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Epochs get the given L_global; what they held is remembered."""
    content: dict[str, Any] = {"global": [2.0, 1.0, 3.0, 2.5], "weights": []}
    validate = loop.validate

    def replaced(task: torch.nn.Module, *rest: Any) -> dict[str, float]:
        figures = validate(task, *rest)
        content["weights"].append({name: value.clone() for name, value in task.state_dict().items()})
        figures["global"] = content["global"][len(content["weights"]) - 1]
        return figures | {"loss": -10.0 * len(content["weights"])}  # the total would choose another epoch

    monkeypatch.setattr(loop, "validate", replaced)
    return content


def test_stage_two_starts_from_the_best_stage_one_weights(
    studies: Path, tmp_path: Path, validation_losses: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Tensor]] = []
    step = loop.training_step

    def watched(fabric: Any, module: Any, task: Any, *rest: Any, **options: Any) -> Any:
        if task.objective.stage == "reconstruction":
            started.append({name: value.clone() for name, value in task.state_dict().items()})
        return step(fabric, module, task, *rest, **options)

    monkeypatch.setattr(loop, "training_step", watched)
    out = run(studies, tmp_path / "run", tiny_recipe(alignment__epochs=3))
    best, last = validation_losses["weights"][1], validation_losses["weights"][2]
    assert all(torch.equal(started[0][name], value) for name, value in best.items())
    assert not torch.equal(best["objective.bank.centroids"], last["objective.bank.centroids"])
    assert not torch.equal(best["model.image_projection.weight"], last["model.image_projection.weight"])
    assert bool(started[0]["objective.bank.started"])
    kept = load_file(out / "state" / "best-alignment.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in best.items())
    events = [r for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "event"]
    assert {"weights of alignment epoch 2 taken over"} <= {event["message"] for event in events}


def test_bank_goes_on_from_the_best_epoch_on_the_host_too(
    studies: Path, tmp_path: Path, validation_losses: dict[str, Any]
) -> None:
    """The best epoch may be one before the bank started: then Stage II starts it again."""
    validation_losses["global"] = [1.0, 2.0, 3.0]
    bank = {"clusters": 6, "start_cosine": -1.0, "start_from_step": 0, "start_by_step": STEPS + 2, "check_every": 1}
    recipe = tiny_recipe(alignment__epochs=2, objective__bank=bank)
    out = run(studies, tmp_path / "run", recipe)
    events = [record for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "event"]
    started = [(event["stage"], event["step"]) for event in events if event["message"] == "the cluster bank started"]
    assert started == [("alignment", STEPS + 2), ("reconstruction", 2 * STEPS + 2)]
    assert any("older than the cluster bank's start, so it starts anew" in event["message"] for event in events)


def test_a_bank_that_stage_two_cannot_start_any_more_is_said(
    studies: Path, tmp_path: Path, validation_losses: dict[str, Any]
) -> None:
    """The steps between the best epoch and the end of Stage I do not count for it."""
    validation_losses["global"] = [1.0, 2.0, 3.0]
    bank = {"clusters": 6, "start_cosine": -1.0, "start_from_step": 0, "start_by_step": 3 * STEPS, "check_every": 1}
    recipe = tiny_recipe(alignment__epochs=2, reconstruction__epochs=1, objective__bank=bank)
    out = run(studies, tmp_path / "run", recipe)
    events = [record for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "event"]
    (said,) = (event for event in events if event["message"].startswith("objective.bank.start_by_step is"))
    assert said["stage"] == "reconstruction"
    assert f"the run ends with micro-step {2 * STEPS}" in said["message"]


def test_of_equally_good_epochs_the_last_is_taken(
    studies: Path, tmp_path: Path, validation_losses: dict[str, Any]
) -> None:
    """One validation study has an L_global of 0 in every epoch, which must not mean the first."""
    validation_losses["global"] = [0.0, 0.0, 0.0]
    out = run(studies, tmp_path / "run", tiny_recipe(alignment__epochs=2))
    messages = [record.get("message", "") for record in read_metrics(out / "metrics.jsonl")]
    assert "weights of alignment epoch 2 taken over" in messages


def test_no_stage_one_means_stage_two_from_the_start(studies: Path, tmp_path: Path) -> None:
    out = run(studies, tmp_path / "run", tiny_recipe(alignment__epochs=0))
    records = read_metrics(out / "metrics.jsonl")
    assert {record["stage"] for record in records} == {"reconstruction"}
    assert (out / "model.safetensors").is_file()


def test_missing_best_weights_are_an_error_not_a_silence(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "keep_best", lambda *_: None)
    with pytest.raises(UserError, match="the best Stage I weights are missing"):
        run(studies, tmp_path / "run", tiny_recipe(alignment__epochs=1))


def test_metrics_hold_every_term_and_no_clock(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "train"] == [3, 6, 9, 12, 15, 18]
    assert [(r["stage"], r["epoch"]) for r in records if r["kind"] == "validation"] == [
        ("alignment", 1), ("alignment", 2), ("reconstruction", 1),
    ]  # fmt: skip
    train = [r for r in records if r["kind"] == "train"]
    assert {"loss", "global", "image", "report", "temperature", "tau", "learning_rate"} <= train[0].keys()
    assert "reconstruction" not in train[0]
    assert "reconstruction" in train[-1]
    names = {name for record in records for name in record}
    assert not {name for name in names if "time" in name or "second" in name}
