"""The released arithmetic, loss and gradients, against its golden values."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.own_query import SentencePairs, Sentences, released_contrast, released_margin
from support.objectives import Golden, assert_gradient, assert_value, clusters_of, sentence_rows, small_settings, unit


def later_steps(golden: Golden) -> range:
    return range(1, len(golden["z_sentence"]))


def golden_rows(golden: Golden, step: int) -> tuple[Sentences, Tensor, Tensor]:
    """Rows normalised inside the graph (the released program takes cosines), and their leaves."""
    z1 = golden["z_sentence"][step].clone().requires_grad_()
    z2 = golden["z_cross_modal"][step].clone().requires_grad_()
    return sentence_rows(F.normalize(z1, dim=-1), F.normalize(z2, dim=-1)), z1, z2


def test_margin_and_its_gradients(golden: Golden) -> None:
    for step in later_steps(golden):
        rows, z1, z2 = golden_rows(golden, step)
        pairs = SentencePairs.of(rows, clusters_of(rows.z1, golden["centroids"][step - 1]))
        loss = released_margin(pairs, rows.mask, 0.2, 0.5)
        loss.backward()
        assert_value(loss.detach(), golden["bml_loss"][step])
        assert_gradient(z1.grad, golden[f"step{step}/grad_bml_sentence"])
        assert_gradient(z2.grad, golden[f"step{step}/grad_bml_cross_modal"])


def test_multiplied_cross_entropy(golden: Golden) -> None:
    rows, _, _ = golden_rows(golden, 0)
    in_batch = released_contrast(rows, SentencePairs.of(rows, None), None, 3.0)
    assert_value(in_batch.detach(), golden["ce_multiplicative_w3"][0])
    for step in later_steps(golden):
        rows, _, _ = golden_rows(golden, step)
        clusters = clusters_of(rows.z1, golden["centroids"][step - 1])
        loss = released_contrast(rows, SentencePairs.of(rows, clusters), clusters, 3.0)
        assert_value(loss.detach(), golden["ce_multiplicative_w3"][step])


def released_objective(golden: Golden) -> CMCGNS:
    clusters, dim = golden["centroids_after_init"].shape
    bank = {"clusters": clusters, "rate": 1e-3}
    settings = small_settings(
        dim=dim, arithmetic="released", learn_tau=False, margin_weight=1e-4, mu=3.0, bank=bank, reconstruction="off"
    )
    return CMCGNS(settings, (7, 7), 56)


def test_whole_objective_over_all_steps(golden: Golden) -> None:
    objective = released_objective(golden)
    rows, _, _ = golden_rows(golden, 0)
    assert_value(objective.own_query_loss(rows)[0].detach(), golden["local_report_loss"][0])
    objective.bank.start(golden["centroids_after_init"])
    for step in later_steps(golden):
        rows, z1, z2 = golden_rows(golden, step)
        objective.bank.observe(rows.z1, rows.z2, rows.mask, rows.text)
        loss, margin = objective.own_query_loss(rows)
        loss.backward()
        torch.testing.assert_close(objective.bank.centroids, golden["centroids"][step - 1], rtol=0, atol=1e-6)
        assert_value(loss.detach(), golden["local_report_loss"][step])
        assert_value(margin.detach(), golden["bml_loss"][step])
        assert_gradient(z1.grad, golden[f"step{step}/grad_sentence"])
        assert_gradient(z2.grad, golden[f"step{step}/grad_cross_modal"])


def test_padding_changes_nothing(golden: Golden) -> None:
    z1, z2 = golden["z_sentence"][1], golden["z_cross_modal"][1]
    centroids = golden["centroids"][0]
    values = []
    for extra in (0, 4):
        mask = torch.arange(len(z1) + extra) >= extra
        rows = sentence_rows(F.pad(z1, (0, 0, extra, 0)), F.pad(z2, (0, 0, extra, 0)), mask)
        clusters = clusters_of(rows.z1, centroids)
        pairs = SentencePairs.of(rows, clusters)
        margin = released_margin(pairs, rows.mask, 0.2, 0.5)
        values.append(torch.stack([released_contrast(rows, pairs, clusters, 3.0), margin]))
    torch.testing.assert_close(values[0], values[1])


def test_margin_needs_clusters() -> None:
    rows = sentence_rows(unit(3, 4), unit(3, 4))
    with pytest.raises(ValueError, match="needs clusters"):
        released_margin(SentencePairs.of(rows, None), rows.mask, 0.2, 0.5)
