"""The whole objective: which terms, which precision, what evaluation leaves alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.report_comparison import other_reports
from cmcgns.training.checkpoint import load_weights, save_weights
from cmcgns.training.task import build_task
from support.objectives import (
    COUNTS,
    DIM,
    GRID,
    SIZE,
    all_active,
    figures_of,
    random_batch,
    random_features,
    run_objective,
    sentence_rows,
    set_stage,
    slow_contrast,
    slow_margin,
    small_objective,
    small_settings,
    small_task,
    start_bank,
    unit,
)
from support.training import tiny_recipe


@pytest.mark.parametrize("false_negatives", ["keep", "margin", "mask", "soft"])
@pytest.mark.parametrize("duplicates", [True, False])
def test_switches_choose_the_report_loss(false_negatives: str, duplicates: bool) -> None:
    objective = small_objective(
        false_negatives=false_negatives, duplicates=duplicates, tau=0.2, mu=2.0, margin_weight=0.7
    )
    z1, z2 = unit(12, DIM), unit(12, DIM, seed=1)
    rows = sentence_rows(z1, z2, torch.arange(12) < 10, torch.arange(12) % 5)
    start_bank(objective)
    for negatives in ("in_batch", "hard", "cluster"):
        objective.settings = objective.settings.model_copy(update={"negatives": negatives})
        centroids = None if negatives == "in_batch" else objective.bank.centroids
        of_cluster = negatives == "cluster"
        expected = slow_contrast(
            rows, centroids, tau=0.2, mu=2.0, duplicates=duplicates,
            mask_cluster=of_cluster and false_negatives == "mask", soft=of_cluster and false_negatives == "soft",
        )  # fmt: skip
        margin = torch.zeros(())
        if of_cluster and false_negatives == "margin":
            margin = slow_margin(rows, objective.bank.centroids, 0.2, 0.5, duplicates)
            assert margin > 0
        loss, found = objective.own_query_loss(rows)
        torch.testing.assert_close(loss.detach(), expected + 0.7 * margin, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.detach(), margin, rtol=1e-4, atol=1e-5)


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    weights = {"global": 0.5, "image": 2.0, "report": 3.0, "reconstruction": 10.0}
    objective = small_objective(**{f"weight_{name}": value for name, value in weights.items()})
    set_stage(objective, "reconstruction")
    losses = run_objective(objective)
    torch.testing.assert_close(losses["loss"], torch.stack([w * losses[n] for n, w in weights.items()]).sum())


@pytest.mark.parametrize("name", ["global", "image", "report", "reconstruction"])
def test_a_term_of_weight_0_is_not_computed(name: str) -> None:
    objective = small_objective(**{f"weight_{name}": 0.0})
    set_stage(objective, "reconstruction")
    losses = run_objective(objective)
    assert name not in losses
    assert {"global", "image", "report", "reconstruction"} - {name} <= set(losses)


def test_the_step_that_seeds_the_bank_is_still_in_batch() -> None:
    seeding, in_batch = small_objective(), small_objective(negatives="in_batch")
    in_batch.load_state_dict(seeding.state_dict())
    first = run_objective(seeding)
    assert seeding.bank.is_started
    torch.testing.assert_close(first["report"], run_objective(in_batch)["report"])
    assert (run_objective(seeding)["report"] - first["report"]).abs() > 0.01


@pytest.mark.parametrize("source", ["cross_modal", "text"])
def test_the_bank_clusters_its_source(source: str) -> None:
    bank = {"clusters": 4, "check_every": 1, "start_cosine": 1.0, "start_from_step": 0, "source": source}
    objective = small_objective(bank=bank)
    batch = random_batch(COUNTS, 5)
    features = random_features(batch)
    figures_of(objective, features, batch)
    attended, _ = objective.attention.image_to_text(features.patches, features.sentences, batch.sentence_mask)
    vectors = attended if source == "cross_modal" else features.sentences
    vectors = torch.nn.functional.normalize(vectors.detach(), dim=-1)[batch.sentence_mask]
    assert (objective.bank.centroids @ vectors.T).max(1).values.min() > 1 - 1e-5


def test_pitfall_09_evaluation_does_not_move_the_bank() -> None:
    objective = small_objective()
    run_objective(objective)
    for started in (True, False):
        if not started:
            objective = small_objective()
        objective.eval()
        before = {key: value.clone() for key, value in objective.bank.state_dict().items()}
        with torch.no_grad():
            run_objective(objective, seed=1)
        for key, value in objective.bank.state_dict().items():
            assert torch.equal(value, before[key]), key
        assert objective.bank.is_started is started


def test_evaluation_compares_with_another_study_image() -> None:
    objective = small_objective()
    assert "report_swapped" not in run_objective(objective)
    objective.eval()
    with torch.no_grad():
        figures = run_objective(objective)
        batch = random_batch(COUNTS, 5, distinct=6)
        features = random_features(batch)
        features.patches = features.patches.roll(-1, 0)
        other = figures_of(objective, features, batch)
    torch.testing.assert_close(figures["report_swapped"], other["report"])
    assert (figures["report_swapped"] - figures["report"]).abs() > 1e-6


def test_another_study_is_one_whose_report_differs() -> None:
    partner, found = other_reports(torch.tensor([4, 4, 4, 9, 4]))
    assert partner[found].tolist() == [3, 3, 3, 4, 3]
    assert found.all()
    assert not other_reports(torch.tensor([4, 4]))[1].any()
    assert not other_reports(torch.tensor([4]))[1].any()
    with torch.no_grad():
        assert "report_swapped" not in run_objective(small_objective().eval(), counts=(3,))


def test_swapped_images_are_never_of_the_same_study() -> None:
    """A study with two images has two rows with the same report next to each other."""
    objective = small_objective().eval()
    batch = random_batch((3, 3, 2, 4), 5, distinct=6)
    batch = replace(batch, report_text=torch.tensor([0, 0, 1, 2]))
    features = random_features(batch)
    with torch.no_grad():
        figures = figures_of(objective, features, batch)
        swapped = replace(features, patches=features.patches[[2, 2, 3, 0]])
        torch.testing.assert_close(figures["report_swapped"], figures_of(objective, swapped, batch)["report"])


def test_pitfall_05_evaluation_hides_nothing() -> None:
    task = small_task()
    task.set_stage("reconstruction")
    batch = random_batch(COUNTS, 5, size=32)
    assert task.objective.reconstruction is not None
    seen: list[Tensor] = []
    task.objective.reconstruction.norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    token = task.objective.reconstruction.mask_token
    assert token is not None
    for training, share in ((True, 0.5), (False, 0.0)):
        task.train(training)
        with torch.no_grad():
            task(batch)
        # The first is the loss's; evaluation then compares three reports, where it does hide.
        assert float((seen[0][:, :, :DIM] == token).all(-1).float().mean()) == share
        assert len(seen) == (1 if training else 4)
        seen.clear()


@pytest.mark.parametrize("mask", ["features", "pixels", "tokens"])
@pytest.mark.parametrize("target", ["pixels", "text_map"])
def test_evaluation_compares_the_right_report_another_one_and_none(mask: str, target: str) -> None:
    task = small_task(mask=mask, target=target).eval()
    task.set_stage("reconstruction")
    batch = random_batch(COUNTS, 5, size=32)
    names = {"rebuilt_own", "rebuilt_other", "rebuilt_none"}
    with torch.no_grad():
        figures = task(batch)[1]
        assert {name: float(figures[name]) for name in names} == {name: float(task(batch)[1][name]) for name in names}
        assert len({float(figures[name]) for name in names}) == 3
        same = task(replace(batch, report_text=torch.zeros(4, dtype=torch.long)))[1]
        assert not names & same.keys()  # there is no other report
    assert not names & task.train()(batch)[1].keys()
    alone = small_task(mask=mask, target=target, reconstruction="image_only").eval()
    alone.set_stage("reconstruction")
    assert not names & alone(batch)[1].keys()


def test_without_a_report_is_as_with_sentences_that_say_nothing() -> None:
    """The figure of no report equals that of studies whose reports hold no sentence."""
    task = small_task().eval()
    task.set_stage("reconstruction")
    batch = random_batch(COUNTS, 5, size=32)
    empty = random_batch((0, 0, 0, 0), 5, size=32)
    empty = replace(empty, images=batch.images)
    with torch.no_grad():
        figures, silent = task(batch)[1], task(empty)[1]
    for name in ("rebuilt_own", "rebuilt_other", "rebuilt_none"):
        torch.testing.assert_close(silent[name], figures["rebuilt_none"])


def test_tokens_are_refused_where_patches_cannot_be_left_out() -> None:
    with pytest.raises(UserError, match="ResNet cannot leave patches out"):
        build_task(tiny_recipe(objective__mask="tokens"), 100)


def test_masks_are_drawn_from_the_seed_of_the_step() -> None:
    task = small_task()
    task.set_stage("reconstruction")
    batch = random_batch(COUNTS, 5, size=32)
    values = []
    for seed in (1, 1, 2):
        with torch.no_grad():
            values.append(float(task(batch, seed)[0]["reconstruction"]))
    assert values[0] == values[1] != values[2]


def test_pitfall_11_weights_arrive_by_value_with_the_bank(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = CMCGNS(small_settings(), GRID, SIZE), small_objective()
    run_objective(source)
    with torch.no_grad():
        source.logit_scale.logarithm.fill_(1.25)
    save_weights(tmp_path / "best.safetensors", source, {"epoch": 3})
    assert load_weights(tmp_path / "best.safetensors", target) == {"epoch": 3}
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key
    assert target.bank.is_started
    torch.testing.assert_close(run_objective(target, seed=1)["loss"], run_objective(source, seed=1)["loss"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"reconstruction": "off"}, "unexpected: reconstruction.decoder"),
        ({"query": "unmasked"}, "1 unexpected: reconstruction.position"),
        ({"dim": 24}, "25 other shape: "),
    ],
)
def test_pitfall_11_weights_that_do_not_fit_are_refused(
    changes: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    save_weights(tmp_path / "best.safetensors", small_objective())
    target = small_objective(**changes)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UserError, match="does not fit the model") as error:
        load_weights(tmp_path / "best.safetensors", target)
    assert complaint in str(error.value).replace("\n", " ")
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


@pytest.mark.parametrize("arithmetic", ["described", "released"])
@pytest.mark.parametrize("attention", ["sigmoid", "softmax"])
@pytest.mark.parametrize("counts", [(1,), (0,), (0, 2), (3, 0, 0)])
def test_few_and_no_sentences_are_finite(arithmetic: str, attention: str, counts: tuple[int, ...]) -> None:
    objective = small_objective(arithmetic=arithmetic, attention=attention, learn_tau=arithmetic == "described")
    set_stage(objective, "reconstruction")
    for started in (False, True):
        if started:
            start_bank(objective)
        batch = random_batch(counts, 3)
        features = random_features(batch)
        losses = figures_of(objective, features, batch)
        losses["loss"].backward()
        assert all(value.isfinite().all() for value in losses.values())
        leaves = (features.patches, features.sentences, features.image_global, features.report_global)
        for leaf in (*leaves, *objective.parameters()):
            assert leaf.grad is None or leaf.grad.isfinite().all()
        assert features.sentences.grad is not None
        assert (features.sentences.grad[~batch.sentence_mask] == 0).all()
        assert objective.bank.centroids.isfinite().all()


class FixedAttention(CrossModalAttention):
    """Gives vectors that no matrix product in half precision has touched."""

    def image_to_text(self, patches: Tensor, sentences: Tensor, sentence_mask: Tensor) -> tuple[Tensor, Tensor]:
        vectors = sentences * torch.linspace(0.5, 1.5, sentences.shape[-1])
        return vectors * sentence_mask[:, :, None] + patches.mean(), sentences

    def text_to_image(self, patches: Tensor, sentences: Tensor, sentence_mask: Tensor) -> tuple[Tensor, Tensor]:
        return patches.roll(1, 1), patches


@pytest.mark.parametrize("false_negatives", ["margin", "soft"])
@pytest.mark.parametrize("training", [True, False])
def test_losses_and_bank_are_float32_under_autocast(false_negatives: str, training: bool) -> None:
    both = []
    for autocast in (False, True):
        objective = small_objective(false_negatives=false_negatives)
        objective.attention = FixedAttention(DIM)
        objective.predictor = nn.Identity()  # type: ignore[assignment]
        start_bank(objective)
        objective.train(training)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses = run_objective(objective)
        both.append(losses | objective.bank.state_dict())
    for name, value in both[0].items():
        assert both[1][name].dtype == value.dtype
        assert torch.equal(both[1][name], value), name


def test_attention_predictor_and_decoder_run_in_half_precision_under_autocast() -> None:
    objective = small_objective()
    set_stage(objective, "reconstruction")
    start_bank(objective)
    found: dict[str, torch.dtype] = {}
    for name, module in objective.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _, __, output, name=name: found.update({name: output.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        losses = run_objective(objective)
    losses["loss"].backward()
    assert len(found) >= 10
    assert set(found.values()) == {torch.bfloat16}
    assert losses["loss"].dtype == torch.float32
    reference = small_objective()
    set_stage(reference, "reconstruction")
    start_bank(reference)
    torch.testing.assert_close(losses["loss"], run_objective(reference)["loss"], rtol=0.03, atol=0.05)


def test_unused_centroids_of_a_small_start_stay_out() -> None:
    objective = small_objective(bank={"clusters": 6}, false_negatives="margin")
    z1, z2 = unit(8, DIM), unit(8, DIM, seed=1)
    objective.bank.start(unit(3, DIM, seed=2))
    rows = sentence_rows(z1, z2)
    expected = slow_contrast(rows, unit(3, DIM, seed=2), tau=0.1, mu=3.0)
    margin = slow_margin(rows, unit(3, DIM, seed=2), 0.2, 0.5, duplicates=True)
    assert all_active(objective.bank.centroids).sum() > objective.bank.active.sum()
    torch.testing.assert_close(objective.own_query_loss(rows)[0].detach(), expected + margin, rtol=1e-4, atol=1e-5)
