"""MRM: both restorations by their formulas written out, what is hidden from whom, and what its options do."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.report_encoder import ReportEncoder
from cmcgns.objectives.masked_reconstruction import covered_pixels
from cmcgns.objectives.objective import MapKind
from cmcgns.objectives.rivals import mrm
from cmcgns.objectives.rivals.mrm import MRM, draw_words, mean_where
from cmcgns.settings.config import (
    DataSettings,
    ImageEncoderSettings,
    ObjectiveSettings,
    Recipe,
    ReportEncoderSettings,
)
from cmcgns.training.task import PretrainingTask, build_task, try_out
from objectives.test_collective import Found, assert_equal, gradients, two_ranks
from support.objectives import random_batch

COUNTS, BOUND = (3, 5, 0, 4), 5
VIT = ImageEncoderSettings(name="vit_tiny_patch16_224", channels=1, options={"depth": 1, "patch_size": 8})
RESNET = ImageEncoderSettings(
    name="resnet10t", channels=1, output_stride=8, options={"channels": [8, 16, 24, 32], "stem_width": 8}
)


def recipe_of(encoder: ImageEncoderSettings = VIT, target_scale: Literal[1, 2] = 1, **options: object) -> Recipe:
    """Images of 32 pixels on a 4×4 grid."""
    return Recipe(
        data=DataSettings(image_size=32, resize=32, max_tokens=32),
        image_encoder=encoder,
        report_encoder=ReportEncoderSettings(layers=1, width=16, heads=2, dropout=0.0),
        objective=ObjectiveSettings(name="mrm", dim=16, decoder_width=16, target_scale=target_scale, options=options),
    )


def task_of(encoder: ImageEncoderSettings = VIT, **options: Any) -> PretrainingTask:
    torch.manual_seed(0)
    task = build_task(recipe_of(encoder, **options), vocabulary=40)
    objective = task.objective
    assert isinstance(objective, MRM)
    assert objective.words is not None
    with torch.no_grad():
        objective.words.bias.normal_()  # a bias of 0 would hide that it is missing
        objective.words.mask.mul_(20)
    return task


def studies(seed: int = 0) -> Batch:
    return random_batch(COUNTS, BOUND, seed=seed, size=32)


class Spied:
    """One pass of a task, and what went through it."""

    def __init__(self, task: PretrainingTask, batch: Batch, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> None:
        self.task, self.batch, self.noted = task, batch, {}
        objective: Any = task.objective
        with monkeypatch.context() as patch:
            for owner, name in (
                (mrm, "draw_hidden"), (mrm, "draw_words"), (objective.words, "states"),
                (objective.rebuilding, "seen_patches"), (objective.rebuilding, "reconstruct"),
            ):  # fmt: skip
                patch.setattr(owner, name, self._noting(name, getattr(owner, name)))
            self.losses = task(batch, seed)[0]
        self.hidden, self.seen, self.states = (self.noted[name] for name in ("draw_hidden", "seen_patches", "states"))
        self.rebuilt = self.noted["reconstruct"]
        places, chosen = self.noted["draw_words"]
        self.words = torch.zeros_like(batch.token_mask).scatter(1, places, chosen)

    def _noting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*given: Any) -> Any:
            self.noted[name] = function(*given)
            return self.noted[name]

        return noting

    def value(self, name: str) -> float:
        """Of a loss."""
        return float(self.losses[name].detach())

    def slow_image(self) -> float:
        """Patch by patch, in numpy."""
        grid = self.task.objective.rebuilding.grid
        images = self.batch.images if self.batch.fine_images is None else self.batch.fine_images
        side, errors = images.shape[-1] // grid[0], []
        for study in range(len(self.batch)):
            for patch in range(grid[0] * grid[1]):
                if self.hidden[study, patch]:
                    y, x = side * (patch // grid[1]), side * (patch % grid[1])
                    true, found = (
                        each[study, 0, y : y + side, x : x + side].detach().double().numpy()
                        for each in (images, self.rebuilt)
                    )
                    true = (true - true.mean()) / np.sqrt(true.var() + 1e-6)
                    errors.append(np.mean((true - found) ** 2))
        return float(np.mean(errors))

    def slow_report(self) -> Tensor:
        """Report by report, without padding, with its gradient."""
        words: Any = self.task.objective.words
        encoder = self.task.model.report_encoder
        table = encoder.body.get_input_embeddings().weight
        errors = []
        for study in range(len(self.batch)):
            visible = [p for p in range(self.seen.shape[1]) if not self.hidden[study, p]]
            image = sum(self.seen[study, p] for p in visible) / len(visible)
            shift = words.image.weight @ image + words.image.bias
            length = int(self.batch.token_mask[study].sum())
            ids = self.batch.token_ids[study].tolist()
            rows = [words.mask if self.words[study, t] else table[ids[t]] for t in range(length)]
            given = torch.stack([row + shift for row in rows])[None]
            states = encoder.body(inputs_embeds=given).last_hidden_state[0]
            for t in range(length):
                if self.words[study, t]:
                    logits = torch.stack([states[t] @ table[v] + words.bias[v] for v in range(40)])
                    errors.append(torch.log(torch.exp(logits).sum()) - logits[ids[t]])
        return torch.stack(errors).mean()


@pytest.mark.parametrize("options", [{}, {"mask": "tokens"}, {"mask_ratio": 0.3}, {"target_scale": 2}], ids=str)
def test_the_image_part_is_its_formula(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = studies()
    if "target_scale" in options:
        batch.fine_images = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    found = Spied(task_of(**options), batch, monkeypatch)
    assert found.value("image") == pytest.approx(found.slow_image(), rel=1e-5)
    assert (found.hidden.sum(1) == round(16 * float(str(options.get("mask_ratio", 0.75))))).all()


@pytest.mark.parametrize("options", [{}, {"mask": "tokens", "word_ratio": 0.3}], ids=str)
def test_the_report_part_is_its_formula(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    found = Spied(task_of(**options), studies(), monkeypatch)
    slow = found.slow_report()
    torch.testing.assert_close(found.losses["report"], slow)
    slow.backward(retain_graph=True)
    expected = gradients(found.task)
    found.losses["report"].backward()
    assert {"gradient objective.words.bias", "gradient model.patch_projection.weight"} <= expected.keys()
    assert_equal(gradients(found.task), expected, options)


def test_the_loss_is_the_sum_of_both_and_lambda_weighs_the_report() -> None:
    batch = studies()
    for weight in (1.0, 0.25):
        losses, metrics = task_of(report_weight=weight)(batch, 0)
        assert losses.keys() == {"loss", "image", "report"}
        assert not metrics
        torch.testing.assert_close(losses["loss"], losses["image"] + weight * losses["report"])


@pytest.mark.parametrize("mask", ["pixels", "tokens"])
def test_pitfall_hidden_pixels_do_not_get_through_the_encoder(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = task_of(mask=mask), studies()
    images = batch.images.clone().requires_grad_()
    found = Spied(task, replace(batch, images=images), monkeypatch)
    covered = covered_pixels(found.hidden, (4, 4), (32, 32))
    # Of the rebuilt image and of what the report's loss reads: targets are made of pixels, and may be.
    (found.rebuilt.square().sum() + found.losses["report"]).backward()
    assert images.grad is not None
    assert not images.grad[covered].any()
    assert images.grad[~covered].any()
    changed = torch.where(covered, batch.images.roll(5, -1), batch.images)
    other = Spied(task, replace(batch, images=changed), monkeypatch)
    for name in ("seen", "rebuilt", "states"):
        assert torch.equal(getattr(other, name), getattr(found, name)), name
    assert other.value("report") == found.value("report")
    assert other.value("image") != found.value("image")


def test_pitfall_hidden_words_do_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = task_of(), studies()
    found = Spied(task, batch, monkeypatch)
    other_words = 5 + (batch.token_ids - 5 + 7) % 35
    changed = replace(batch, token_ids=torch.where(found.words, other_words, batch.token_ids))
    hidden = Spied(task, changed, monkeypatch)
    assert torch.equal(hidden.states, found.states)
    assert hidden.value("report") != found.value("report")
    visible = (batch.token_sentence >= 0) & ~found.words
    changed = replace(batch, token_ids=torch.where(visible, other_words, batch.token_ids))
    assert not torch.allclose(Spied(task, changed, monkeypatch).states, found.states, atol=1e-3)


def test_pitfall_special_word_pieces_are_never_hidden_and_half_of_the_others_are() -> None:
    batch, often = random_batch((3, 5, 0, 4, 1), BOUND), torch.zeros(5, 12)
    real = batch.token_sentence >= 0
    for seed in range(200):
        places, chosen = draw_words(real, 0.5, torch.Generator().manual_seed(seed))
        assert places.shape == (5, 6)
        assert all(len(set(row)) == 6 for row in places.tolist())
        hidden = torch.zeros_like(real).scatter(1, places, chosen)
        assert not (hidden & ~real).any()
        assert hidden.sum(1).tolist() == [3, 5, 0, 4, 1]  # of two word pieces a sentence
        often += hidden
    assert (often[real] / 200 - 0.5).abs().max() < 0.15  # each as often as another


def test_the_share_of_hidden_words_is_as_said_and_of_the_real_ones() -> None:
    real = torch.arange(30) < torch.tensor([[30], [10], [7], [1]])
    for ratio, expected in ((0.5, [15, 5, 4, 0]), (0.3, [9, 3, 2, 0]), (0.9, [27, 9, 6, 1])):
        places, chosen = draw_words(real, ratio, torch.Generator().manual_seed(0))
        assert places.shape[1] == round(30 * ratio)
        assert chosen.sum(1).tolist() == expected


def test_pitfall_the_report_part_needs_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = task_of(), studies()
    found = Spied(task, batch, monkeypatch)
    covered = covered_pixels(found.hidden, (4, 4), (32, 32))
    changed = torch.where(covered, batch.images, batch.images.roll(5, -1))
    other = Spied(task, replace(batch, images=changed), monkeypatch)
    assert ((other.states - found.states).abs().amax((1, 2)) > 1e-4).all()
    others = Spied(task, replace(batch, images=batch.images.roll(1, 0)), monkeypatch)
    assert ((others.states - found.states).abs().amax((1, 2)) > 1e-4).all()


def test_one_study_does_not_change_another(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = task_of().eval(), studies()
    found = Spied(task, batch, monkeypatch)
    images, ids = batch.images.clone(), batch.token_ids.clone()
    images[0], ids[0] = images[0].roll(5, -1), ids[0].roll(1)
    other = Spied(task, replace(batch, images=images, token_ids=ids), monkeypatch)
    torch.testing.assert_close(other.states[1:], found.states[1:])
    torch.testing.assert_close(other.rebuilt[1:], found.rebuilt[1:])
    assert not torch.allclose(other.states[0], found.states[0], atol=1e-3)


ERRORS = torch.arange(1.0, 25.0).view(6, 4)
CHOSEN = torch.arange(4) < torch.tensor([[4], [3], [4], [1], [0], [2]])  # 11 on one rank, 3 on the other


def run_means(rows: slice) -> Found:
    errors = ERRORS[rows].clone().requires_grad_()
    mean = mean_where(errors, CHOSEN[rows])
    mean.backward()
    places, chosen = draw_words(CHOSEN[rows], 0.5, torch.Generator().manual_seed(0))
    hidden = torch.zeros_like(CHOSEN[rows]).scatter(1, places, chosen)
    assert errors.grad is not None
    return {"mean": mean.detach(), "gradient": errors.grad, "hidden": hidden}


def test_pitfall_the_mean_is_over_hidden_pieces_of_all_ranks(tmp_path: Path) -> None:
    expected = [float(ERRORS[i, j]) for i in range(6) for j in range(4) if CHOSEN[i, j]]
    alone, ranks = run_means(slice(0, 6)), two_ranks(run_means, tmp_path)
    for found in (alone, *ranks):
        assert float(found["mean"]) == pytest.approx(sum(expected) / 14)
    torch.testing.assert_close(torch.cat([found["gradient"] for found in ranks]), CHOSEN / 14)
    assert torch.equal(torch.cat([found["hidden"] for found in ranks]), alone["hidden"])
    assert float(mean_where(ERRORS, torch.zeros_like(CHOSEN))) == 0


def test_training_hides_by_the_seed_and_evaluation_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = task_of(), studies()
    first, same, other = (Spied(task, batch, monkeypatch, seed) for seed in (1, 1, 2))
    for name in ("hidden", "words"):
        assert torch.equal(getattr(first, name), getattr(same, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    task.eval()
    first, other = (Spied(task, batch, monkeypatch, seed) for seed in (1, 2))
    assert torch.equal(first.hidden, other.hidden)
    assert torch.equal(first.words, other.words)
    assert (first.hidden.sum(1) == 12).all()
    assert first.words.any()
    assert first.value("image") == pytest.approx(first.slow_image(), rel=1e-5)


def test_only_what_a_restoration_reaches_is_trained() -> None:
    task = task_of()
    trained = {".".join(name.split(".")[:2]) for name, each in task.named_parameters() if each.requires_grad}
    model = {"model.image_encoder", "model.report_encoder", "model.patch_projection"}
    assert trained == model | {"objective.rebuilding", "objective.words"}
    assert all(task.objective.lacks_map(kind) for kind in get_args(MapKind))  # nor is there a joint space


@pytest.mark.parametrize("encoder", [VIT, RESNET], ids=lambda encoder: encoder.name)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_trained_parameter_has_a_gradient(encoder: ImageEncoderSettings, precision: torch.dtype) -> None:
    task = task_of(encoder, **({"mask": "tokens"} if encoder is VIT else {}))
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        losses, _ = task(studies(), 0)
    assert all(value.dtype == torch.float32 for value in losses.values())
    losses["loss"].backward()
    for name, parameter in task.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name


def test_pitfall_batchnorm_learns_statistics_of_whole_images_and_in_training_alone() -> None:
    task, batch = task_of(RESNET), studies()
    alone = deepcopy(task.model.image_encoder)
    before = {name: value.clone() for name, value in alone.named_buffers()}
    task.eval()(batch, 0)
    assert_equal(dict(task.model.image_encoder.named_buffers()), before, "eval")
    task.train()(batch, 0)
    alone.train().tokens(batch.images)
    expected = dict(alone.named_buffers())
    assert any(not torch.equal(value, before[name]) for name, value in expected.items())
    assert_equal(dict(task.model.image_encoder.named_buffers()), expected, "train")


def test_an_encoder_without_batchnorm_sees_no_image_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    task, passes = task_of(), []
    task.model.image_encoder.body.patch_embed.register_forward_hook(lambda *_: passes.append(1))
    task(studies(), 0)
    assert len(passes) == 1


def test_chunks_of_the_vocabulary_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most in (2**26, 7 * 40, 1):
        monkeypatch.setattr(mrm, "_MOST_LOGITS", most)
        task = task_of()
        losses, _ = task(studies(), 0)
        losses["loss"].backward()
        found.append(gradients(task) | {name: value.detach() for name, value in losses.items()})
    assert_equal(found[1], found[0], "some")
    assert_equal(found[2], found[0], "one by one")


def test_reports_of_like_length_are_encoded_together_with_the_same_loss() -> None:
    batch, found = studies(), []
    lengths = batch.token_mask.sum(1)
    order = lengths.argsort()
    for parts in ({}, {"token_order": order, "token_lengths": tuple(lengths[order][1::2].tolist())}):
        task = task_of()
        losses, _ = task(replace(batch, **parts), 0)
        losses["report"].backward()
        found.append(gradients(task) | {"report": losses["report"].detach()})
    assert_equal(found[1], found[0], "parts")


def test_twice_the_side_needs_fine_images() -> None:
    with pytest.raises(UserError, match="fine_images is missing"):
        task_of(target_scale=2)(studies(), 0)


def test_a_finished_run_has_no_part_for_reports() -> None:
    recipe = recipe_of()
    task, finished = build_task(recipe, 40), build_task(recipe, 40, for_training=False)
    kept = {name for name in task.state_dict() if not name.startswith(task.training_only)}
    assert finished.state_dict().keys() == kept
    assert len(kept) == len(task.state_dict()) - 4


def test_what_cannot_be_is_refused_and_the_rest_can_be_tried_out() -> None:
    try_out(recipe_of(mask="tokens"))
    with pytest.raises(UserError, match=r"options\.mask=tokens: ResNet cannot leave patches out"):
        task_of(RESNET, mask="tokens")
    for wrong in ({"mask_ratio": 1.0}, {"word_ratio": 0.0}, {"mask": "features"}):
        with pytest.raises(UserError, match=f"objective.options of mrm:\\s+{next(iter(wrong))}"):
            task_of(**wrong)


def test_narrow_word_embeddings_are_refused() -> None:
    task = task_of()
    config = {"model_type": "electra", "embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 40, "max_position_embeddings": 32}
    task.model.report_encoder = ReportEncoder(ReportEncoderSettings(), 40, 32, config)
    with pytest.raises(UserError, match="ElectraModel embeds word pieces in 8 dimensions and gives 16"):
        task.objective.attach(task.model)
