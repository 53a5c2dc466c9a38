"""Overlap of reports by cluster as soft negatives of L_global, beside a loop over pairs of studies."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.report_clusters import report_overlap, soft_negatives
from cmcgns.settings.recipe import load_recipe
from support.objectives import (
    DIM,
    assert_gradient,
    assert_value,
    figures_of,
    random_batch,
    random_features,
    small_objective,
    start_bank,
    unit,
)

COUNTS = (3, 5, 2, 0, 4)


def started(strength: float, local: str = "own_query", source: str = "cross_modal") -> CMCGNS:
    """With a bank whose clusters are not equally full."""
    bank = {"clusters": 4, "source": source, "start_from_step": 0}
    objective = small_objective(global_overlap=strength, local=local, bank=bank)
    start_bank(objective)
    objective.bank.means.copy_(0.1 * unit(2, DIM, seed=52))
    objective.bank.usage.copy_(0.5 * torch.tensor([0.6, 0.3, 0.0999, 0.0001]))
    objective.bank.watched.fill_(0.5)
    return objective.eval()


def studies(seed: int = 0) -> tuple[Batch, Features]:
    batch = random_batch(COUNTS, 5, seed=seed)
    return batch, random_features(batch, seed=seed)


def slow_clusters(objective: CMCGNS, features: Features, batch: Batch) -> list[set[int]]:
    """Of every report, sentence after sentence."""
    bank, attention, found = objective.bank, objective.attention, []
    matched = objective.settings.local == "query_matched"
    for study, count in enumerate(batch.sentence_mask.sum(1).tolist()):
        held = set()
        for place in range(count):
            z1 = F.normalize(features.sentences[study, place], dim=0)
            gates = (attention.image_key(features.patches[study]) @ attention.text_query(z1) / DIM**0.5).sigmoid()
            z2 = F.normalize(gates @ attention.image_value(features.patches[study]), dim=0)
            vector = z1
            if matched and bank.settings.source == "cross_modal":
                vector = z2
            if matched and bank.settings.source == "centred":
                vector = sum(F.normalize(z - mean, dim=0) for z, mean in zip((z1, z2), bank.means, strict=True))
            held.add(int((bank.centroids @ vector).argmax()))
        found.append(held)
    return found


def slow_global(objective: CMCGNS, features: Features, held: list[set[int]], strength: float) -> Tensor:
    shares = [max(float(u / objective.bank.watched), 0.05 / 4) for u in objective.bank.usage]
    scale, losses, count = objective.logit_scale(), [], len(held)
    image, report = (F.normalize(each, dim=1) for each in (features.image_global, features.report_global))
    for queries, targets in ((image, report), (report, image)):
        for i in range(count):
            own, total = scale * (queries[i] @ targets[i]), torch.zeros(())
            for j in range(count):
                both = sum(1 / shares[k] for k in held[i] & held[j])
                either = sum(1 / shares[k] for k in held[i] | held[j])
                weight = 1.0 if i == j or not either else max(1 - strength * both / either, 1e-3)
                total = total + weight * (scale * (queries[i] @ targets[j])).exp()
            losses.append(total.log() - own)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize(
    ("local", "source"),
    [("own_query", "cross_modal"), ("query_matched", "text"), ("query_matched", "cross_modal"),
     ("query_matched", "centred")],
)  # fmt: skip
def test_value_and_gradients_are_those_of_the_loop(strength: float, local: str, source: str) -> None:
    objective = started(strength, local, source)
    batch, features = studies()
    held = slow_clusters(objective, features, batch)
    assert len({frozenset(each) for each in held}) > 2
    slow = slow_global(objective, features, held, strength)
    fast = figures_of(objective.train(), features, batch)["global"]
    assert_value(fast.detach(), slow.detach())
    wanted = (features.image_global, features.report_global, objective.logit_scale.logarithm)
    pairs = zip(torch.autograd.grad(fast, wanted), torch.autograd.grad(slow, wanted), strict=True)
    for found, expected in pairs:
        assert_gradient(found, expected)


def test_reports_that_share_nothing_cost_what_they_cost_without() -> None:
    own = torch.tensor([[0, 1], [2, 2], [3, 0]])
    mask = torch.tensor([[True, True], [True, True], [True, False]])
    weights, mean = soft_negatives(own, mask, torch.ones(4), 1.0)
    assert torch.equal(weights, torch.zeros(3, 3))  # the second sentence of the third report is padding
    assert float(mean) == 0


def test_overlap_of_known_reports() -> None:
    holds = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()
    rarity = torch.tensor([1.0, 3.0, 4.0, 9.0])
    expected = torch.tensor([[1, 1, 1 / 8, 0], [1, 1, 1 / 8, 0], [1 / 8, 1 / 8, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(report_overlap(holds, rarity), expected)


def test_what_rare_clusters_share_counts_more() -> None:
    bank = started(1.0).bank
    common, rare = (
        report_overlap(torch.tensor([[True, True, False, False], [k == 0, k == 1, True, False]]), bank.rarity)[0, 1]
        for k in (0, 1)
    )
    assert rare > common
    assert float(bank.rarity.max()) == pytest.approx(4 / 0.05)  # that of a dead centroid is bounded


def test_equal_reports_are_the_weakest_negatives_and_the_own_study_stays() -> None:
    own = torch.tensor([[0, 1], [1, 0], [2, 3]])
    weights, mean = soft_negatives(own, torch.ones(3, 2, dtype=torch.bool), torch.rand(4) + 0.1, 1.0)
    assert weights.exp().diagonal().tolist() == [1, 1, 1]
    assert float(weights[0, 1].exp()) == pytest.approx(1e-3, rel=1e-3)
    assert float(mean) == pytest.approx(1 / 3)


def test_nothing_changes_before_the_bank_has_started_nor_with_a_strength_of_0() -> None:
    batch, features = studies()
    plain = figures_of(started(0.0).train(), features, batch)
    waiting = small_objective(global_overlap=1.0, bank={"start_from_step": 9, "start_by_step": 9})
    found = figures_of(waiting, features, batch)
    assert torch.equal(found["global"], plain["global"])
    assert "report_overlap" not in found.keys() | plain.keys()
    assert 0 < float(figures_of(started(0.5), features, batch)["report_overlap"]) < 1


def test_a_step_takes_the_clusters_of_before_it_and_validation_weighs_all_alike() -> None:
    batch, features = studies()
    objective, resting = started(0.7), started(0.7)
    expected = slow_global(objective, features, slow_clusters(objective, features, batch), 0.7)
    moved = figures_of(objective.train(), features, batch)["global"]
    assert_value(moved.detach(), expected.detach())
    assert not torch.equal(objective.bank.centroids, resting.bank.centroids)
    judged = figures_of(resting, features, batch)
    assert torch.equal(judged["global"], figures_of(started(0.0), features, batch)["global"])
    assert float(judged["global"].detach()) > float(expected.detach())
    assert float(judged["report_overlap"]) > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["objective.weight_global=0"], r"needs objective\.weight_global"),
        (["objective.weight_report=0"], r"needs objective\.weight_report"),
        (["objective.negatives=in_batch"], r"negatives=in_batch has none"),
        (["objective.arithmetic=released"], r"objective\.global_overlap=0"),
    ],
)
def test_settings_that_leave_nothing_to_overlap_are_refused(changes: list[str], says: str) -> None:
    recipe: Any = ["objective.global_overlap=0.5", "objective.sentence_gradient=1"]
    with pytest.raises(UserError, match=says):
        load_recipe("demo", recipe + changes)
