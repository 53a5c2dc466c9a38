"""What the loop hands to a step, and when it stops."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmcgns.data.pairs.batch import mix
from cmcgns.data.pairs.near import nearest_reports, order_of_near_pairs
from cmcgns.training import loop
from cmcgns.training.checkpoint import checkpoints
from cmcgns.training.data import prepare_data
from cmcgns.training.journal import read_metrics
from cmcgns.training.step import NonFiniteLoss, learning_rate
from support.training import BATCH, STEPS, TRAIN, run, tiny_recipe


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every step was given: its stage, rate, bound of the gradient and studies."""
    seen: list[dict[str, Any]] = []
    step = loop.training_step

    def watched(fabric: Any, module: Any, task: Any, optimizer: Any, batches: Any, **options: Any) -> Any:
        rates = {group["lr"] for group in optimizer.param_groups}
        names = [name for batch in batches for name in batch.study_ids]
        seen.append({"stage": task.objective.stage, "rates": rates, "studies": names} | options)
        return step(fabric, module, task, optimizer, batches, **options)

    monkeypatch.setattr(loop, "training_step", watched)
    return seen


def test_every_stage_warms_up_and_falls_to_0(studies: Path, tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    recipe = tiny_recipe()
    out = run(studies, tmp_path / "run", recipe)
    for stage in loop.STAGES:
        settings = getattr(recipe, stage)
        rates = [step["rates"] for step in steps if step["stage"] == stage]
        assert len(rates) == settings.epochs * STEPS
        assert rates == [{learning_rate(settings, done, STEPS)} for done in range(len(rates))]
        (first,), (last,) = rates[0], rates[-1]
        assert first < 0.5 * settings.learning_rate
        assert last < 0.3 * settings.learning_rate
    logged = [record["learning_rate"] for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "train"]
    every = recipe.training.log_every
    assert logged == pytest.approx([next(iter(step["rates"])) for step in steps[every - 1 :: every]], rel=1e-6)


def test_every_epoch_has_an_order_and_every_step_draws_of_its_own(
    studies: Path, tmp_path: Path, steps: list[dict[str, Any]]
) -> None:
    run(studies, tmp_path / "run", tiny_recipe())
    epochs = epochs_of(steps)
    assert len(epochs) > 2
    everyone = set().union(*epochs)
    assert len(everyone) == TRAIN
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert len({frozenset(everyone - set(epoch)) for epoch in epochs}) > 1  # those that sit out are others
    seeds = [step["seed"] for step in steps]
    assert len(set(seeds)) == len(seeds)
    steps.clear()
    run(studies, tmp_path / "other", tiny_recipe(training__seed=4))
    assert not set(seeds) & {step["seed"] for step in steps}
    assert not {tuple(epoch) for epoch in epochs} & {tuple(epoch) for epoch in epochs_of(steps)}


def epochs_of(steps: list[dict[str, Any]]) -> list[list[str]]:
    """The studies of each epoch, in their order."""
    names = [step["studies"] for step in steps]
    return [[name for part in names[first : first + STEPS] for name in part] for first in range(0, len(names), STEPS)]


def test_batches_of_near_reports_are_what_is_trained_on(
    studies: Path, tmp_path: Path, steps: list[dict[str, Any]]
) -> None:
    recipe = tiny_recipe(training__batches="near", alignment__epochs=2, reconstruction__epochs=0)
    run(studies, tmp_path / "run", recipe)
    train = prepare_data(recipe, studies).train
    names, nearest = np.array(train.study_ids)[train.rows], nearest_reports(train.tokens, train.rows)
    for number, epoch in enumerate(epochs_of(steps)):
        order = order_of_near_pairs(nearest, mix(recipe.training.seed, loop._EPOCH, 0, number))
        assert epoch == names[order][: len(epoch)].tolist()
        place = {name: row for row, name in enumerate(names)}
        pairs = [(place[one], place[other]) for one, other in zip(epoch[::2], epoch[1::2], strict=True)]
        assert np.mean([b in nearest[a] or a in nearest[b] for a, b in pairs]) > 0.5


def test_the_bound_of_the_gradient_is_the_recipes(studies: Path, tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    run(studies, tmp_path / "run", tiny_recipe(training__clip=0.3, alignment__epochs=1, reconstruction__epochs=0))
    assert {step["clip"] for step in steps} == {0.3}


@pytest.mark.parametrize("accumulate", [4, 100])
def test_a_shorter_last_group_of_micro_steps_is_trained_on_too(
    accumulate: int, studies: Path, tmp_path: Path, steps: list[dict[str, Any]]
) -> None:
    recipe = tiny_recipe(training__accumulate=accumulate, alignment__epochs=1, reconstruction__epochs=0)
    run(studies, tmp_path / "run", recipe)
    sizes = [len(step["studies"]) for step in steps]
    assert sizes == ([4 * BATCH, 2 * BATCH] if accumulate == 4 else [STEPS * BATCH])
    assert len({name for step in steps for name in step["studies"]}) == TRAIN // BATCH * BATCH


def test_a_figure_that_is_no_number_stops_before_the_next_checkpoint(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU a step does not look at its own loss; the loop does before anything is saved."""
    step, count = loop.training_step, iter(range(100))

    def spoiled(*args: Any, **options: Any) -> Any:
        figures = step(*args, **options)
        return figures | {"loss": torch.tensor(torch.nan)} if next(count) == STEPS else figures

    monkeypatch.setattr(loop, "training_step", spoiled)
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLoss, match="loss nan") as caught:
        run(studies, out, tiny_recipe())
    assert "The weights are finite; the learning rate is 0.00" in str(caught.value)
    assert "start another run with a lower alignment.learning_rate" in str(caught.value)
    assert max(int(path.stem.partition("-")[2]) for path in checkpoints(out / "state")) == STEPS


def test_a_validation_loss_that_is_no_number_stops_and_is_not_saved(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": float("nan"), "global": float("nan")})
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLoss, match="validation loss is not finite after alignment epoch 1"):
        run(studies, out, tiny_recipe(training__checkpoint_every=1000))
    assert not checkpoints(out / "state")
    assert not (out / "state" / "best-alignment.safetensors").exists()


def test_batches_with_a_single_sentence_are_counted(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lonely(loader: Any) -> Any:
        for number, batch in enumerate(iterate_batches(loader)):
            if number in (1, 3):
                batch.sentence_mask[:] = False
                batch.sentence_mask[0, 0] = True
            yield batch

    iterate_batches = loop.iterate_batches
    monkeypatch.setattr(loop, "iterate_batches", lonely)
    run(studies, tmp_path / "run", tiny_recipe(alignment__epochs=1, reconstruction__epochs=0))
    assert "epoch 1: 2 batches held fewer than two sentences" in caplog.text
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert all(math.isfinite(record["loss"]) for record in records if "loss" in record)


def test_a_bank_that_nothing_can_force_to_start_is_said_at_the_beginning(studies: Path, tmp_path: Path) -> None:
    bank = {"clusters": 6, "start_from_step": 0, "start_by_step": 1000}
    recipe = tiny_recipe(objective__bank=bank, reconstruction__epochs=0, alignment__epochs=1)
    first = read_metrics(run(studies, tmp_path / "run", recipe) / "metrics.jsonl")[0]
    assert first["message"].startswith(
        f"objective.bank.start_by_step is 1000, but the run ends with micro-step {STEPS}"
    )
