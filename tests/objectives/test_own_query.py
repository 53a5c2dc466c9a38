"""L_report: golden values, an explicit reference with all N hard-negative columns, and its pitfalls."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.centroids import Clusters
from cmcgns.objectives.own_query import SentencePairs, Sentences, contrast, margin_loss, soft_weights
from support.objectives import (
    Golden,
    assert_gradient,
    assert_value,
    clusters_of,
    compact,
    sentence_rows,
    slow_contrast,
    slow_margin,
    unit,
)


def later_steps(golden: Golden) -> range:
    return range(1, len(golden["z_sentence"]))


def golden_rows(golden: Golden, step: int) -> Sentences:
    z1, z2 = golden["z_sentence"][step].clone(), golden["z_cross_modal"][step].clone()
    return sentence_rows(z1.requires_grad_(), z2.requires_grad_(), text=golden["described/text_id"])


def cross_entropy(rows: Sentences, clusters: Clusters, name: str) -> Tensor:
    pairs = SentencePairs.of(rows, clusters)
    assert pairs.same_cluster is not None
    left_out = torch.zeros_like(pairs.equal_text)
    if name.startswith("mask"):
        left_out |= pairs.same_cluster
    if name.endswith("duplicates"):
        left_out |= pairs.equal_text
    return contrast(rows, pairs, clusters, logit_scale=10.0, mu=3.0, left_out=left_out)


def test_golden_cross_entropies(golden: Golden) -> None:
    for step in later_steps(golden):
        values = section_of_step(golden, step)
        rows = golden_rows(golden, step)
        clusters = clusters_of(rows.z1, values["centroids"])
        for name in ("keep", "mask", "keep_duplicates", "mask_duplicates"):
            assert_value(cross_entropy(rows, clusters, name).detach(), values[name])


def section_of_step(golden: Golden, step: int) -> Golden:
    prefix = f"described/step{step}/"
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def test_golden_margin_and_gradients(golden: Golden) -> None:
    for step in later_steps(golden):
        values, rows = section_of_step(golden, step), golden_rows(golden, step)
        clusters = clusters_of(rows.z1, values["centroids"])
        pairs = SentencePairs.of(rows, clusters)
        assert pairs.same_cluster is not None
        assert_value(margin_loss(pairs, pairs.same_cluster, rows.mask, 0.2, 0.5).detach(), values["margin"])
        without = margin_loss(pairs, pairs.same_cluster & ~pairs.equal_text, rows.mask, 0.2, 0.5)
        assert_value(without.detach(), values["margin_duplicates"])
        (cross_entropy(rows, clusters, "keep_duplicates") + without).backward()
        assert_gradient(rows.z1.grad, values["grad_sentence"])
        assert_gradient(rows.z2.grad, values["grad_cross_modal"])


def test_golden_false_negatives_are_the_others_of_the_cluster(golden: Golden) -> None:
    for step in later_steps(golden):
        rows = golden_rows(golden, step)
        pairs = SentencePairs.of(rows, clusters_of(rows.z1, golden["centroids"][step - 1]))
        assert pairs.same_cluster is not None
        assert torch.equal(pairs.same_cluster, golden["false_negative_mask"][step - 1].bool())


def test_golden_additive_form_with_no_column_left_out(golden: Golden) -> None:
    for step in later_steps(golden):
        rows = golden_rows(golden, step)
        found = clusters_of(rows.z1, golden["centroids"][step - 1])
        # Every sentence "belongs" to one more centroid that is nobody's hard negative: nothing is left out.
        count = found.cosines.shape[1]
        widened = Clusters(F.pad(found.cosines, (0, 1)), torch.full_like(found.own, count), found.hard)
        loss = contrast(rows, SentencePairs.of(rows, widened), widened, logit_scale=1.0, mu=math.e)
        assert_value(loss.detach(), golden[f"step{step}/ce_additive_w1"])


def test_golden_in_batch_cross_entropy(golden: Golden) -> None:
    rows = golden_rows(golden, 0)
    loss = contrast(rows, SentencePairs.of(rows, None), None, logit_scale=1.0)
    assert_value(loss.detach(), golden["local_report_loss"][0])


def padded_rows(seed: int) -> tuple[Sentences, Tensor]:
    """14 rows, 9 of them real, with equal texts, and 3 centroids."""
    mask = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0]).bool()
    text = torch.tensor([1, 2, 1, 0, 3, 2, 0, 0, 1, 4, 5, 0, 6, 0])
    z1 = F.normalize(unit(14, 6, seed=seed) + 0.5 * unit(1, 6, seed=9), dim=-1) * mask[:, None]
    z2 = F.normalize(unit(14, 6, seed=seed + 1) + 0.5 * z1, dim=-1) * mask[:, None]
    return Sentences(z1.requires_grad_(), z2.requires_grad_(), mask, text), 1.7 * unit(3, 6, seed=seed + 2)


def fast_contrast(rows: Sentences, centroids: Tensor | None, **options: bool) -> Tensor:
    clusters = None if centroids is None else clusters_of(rows.z1, centroids)
    pairs = SentencePairs.of(rows, clusters)
    left_out = pairs.equal_text if options.get("duplicates") else torch.zeros_like(pairs.equal_text)
    false = torch.zeros_like(left_out) if pairs.same_cluster is None else pairs.same_cluster & ~left_out
    weights = soft_weights(rows.z1, false) if options.get("soft") else None
    if options.get("mask_cluster"):
        left_out = left_out | false
    return contrast(rows, pairs, clusters, logit_scale=1 / 0.3, mu=2.5, left_out=left_out, weights=weights)


OPTIONS = [
    {},
    {"mask_cluster": True},
    {"soft": True},
    {"duplicates": True},
    {"mask_cluster": True, "duplicates": True},
    {"soft": True, "duplicates": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "keep")
@pytest.mark.parametrize("with_bank", [True, False])
def test_equals_the_loss_with_all_hard_columns_written_out(options: dict[str, bool], with_bank: bool) -> None:
    for seed in range(5):
        rows, centroids = padded_rows(10 * seed)
        bank = centroids if with_bank else None
        fast = fast_contrast(rows, bank, **options)
        slow = slow_contrast(rows, bank, tau=0.3, mu=2.5, **options)
        assert_value(fast.detach(), slow.detach())
        for actual, expected in zip(
            torch.autograd.grad(fast, (rows.z1, rows.z2)),
            torch.autograd.grad(slow, (rows.z1, rows.z2)),
            strict=True,
        ):
            assert_gradient(actual, expected)
            assert (actual[~rows.mask] == 0).all()


def test_the_options_differ_on_the_data_they_are_compared_on() -> None:
    rows, centroids = padded_rows(0)
    values = [float(fast_contrast(rows, centroids, **options).detach()) for options in OPTIONS]
    assert len({round(value, 4) for value in values}) == len(values)


@pytest.mark.parametrize("duplicates", [True, False])
def test_margin_equals_the_loss_entry_by_entry(duplicates: bool) -> None:
    for seed in range(5):
        rows, centroids = padded_rows(10 * seed)
        pairs = SentencePairs.of(rows, clusters_of(rows.z1, centroids))
        assert pairs.same_cluster is not None
        false = pairs.same_cluster & ~pairs.equal_text if duplicates else pairs.same_cluster
        fast = margin_loss(pairs, false, rows.mask, 0.2, 0.5)
        slow = slow_margin(rows, centroids, 0.2, 0.5, duplicates)
        assert_value(fast.detach(), slow.detach())
        for actual, expected in zip(
            torch.autograd.grad(fast, (rows.z1, rows.z2)),
            torch.autograd.grad(slow, (rows.z1, rows.z2)),
            strict=True,
        ):
            assert_gradient(actual, expected)


def everything(rows: Sentences, centroids: Tensor) -> Tensor:
    pairs = SentencePairs.of(rows, clusters_of(rows.z1, centroids))
    assert pairs.same_cluster is not None
    margin = margin_loss(pairs, pairs.same_cluster & ~pairs.equal_text, rows.mask, 0.2, 0.5)
    return fast_contrast(rows, centroids, soft=True, duplicates=True) + margin


def test_padding_changes_nothing() -> None:
    rows, centroids = padded_rows(0)
    padded, bare = everything(rows, centroids), everything(compact(rows), centroids)
    torch.testing.assert_close(padded, bare)
    leaves = (rows.z1, rows.z2)
    for actual, expected in zip(torch.autograd.grad(padded, leaves), torch.autograd.grad(bare, leaves), strict=True):
        assert_gradient(actual, expected)


def test_order_of_sentences_changes_nothing() -> None:
    rows, centroids = padded_rows(0)
    order = torch.randperm(len(rows.z1), generator=torch.Generator().manual_seed(0))
    shuffled = Sentences(rows.z1[order], rows.z2[order], rows.mask[order], rows.text[order])
    first, second = everything(rows, centroids), everything(shuffled, centroids)
    torch.testing.assert_close(first, second)
    leaves = (rows.z1, rows.z2)
    for actual, expected in zip(torch.autograd.grad(first, leaves), torch.autograd.grad(second, leaves), strict=True):
        assert_gradient(actual, expected)


def test_soft_weights_fall_with_similarity_and_stay_positive() -> None:
    z1 = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]), dim=-1)
    false = ~torch.eye(4).bool()
    false[0, 2] = False
    expected = torch.tensor([1.0, 1e-3, 1.0, 1.0])
    torch.testing.assert_close(soft_weights(z1, false)[0], expected)
    torch.testing.assert_close(soft_weights(z1, false)[2, 0], torch.tensor(1 - 0.5**0.5))


def test_gradients_never_reach_the_centroids() -> None:
    rows, centroids = padded_rows(0)
    centroids.requires_grad_()
    everything(rows, centroids).backward()
    assert centroids.grad is None


def three_rows_with_hard_negative_at(cosine: float) -> tuple[Sentences, Clusters]:
    """Every sentence has the same cosine to its hard negative, centroid 1; its own is centroid 0."""
    rows = sentence_rows(unit(3, 6), unit(3, 6, seed=1))
    cosines = torch.tensor([[0.9, cosine, -1.0]]).expand(3, 3)
    return rows, Clusters(cosines, torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long))


@pytest.mark.parametrize("cosine", [-0.8, 0.8])
def test_pitfall_06_weight_makes_a_hard_negative_harder_whatever_its_sign(cosine: float) -> None:
    rows, clusters = three_rows_with_hard_negative_at(cosine)
    pairs = SentencePairs.of(rows, clusters)
    losses = [float(contrast(rows, pairs, clusters, logit_scale=10.0, mu=mu)) for mu in (1.0, 3.0, 30.0)]
    assert losses[0] < losses[1] < losses[2]


def test_pitfall_06_no_zero_logits_in_the_denominator() -> None:
    rows, clusters = three_rows_with_hard_negative_at(-0.8)
    pairs = SentencePairs.of(rows, clusters)
    hard = torch.tensor([3.0, 1.0, 1.0]).log() - 0.8 * 10
    logits = torch.cat([10 * pairs.cosines, hard.expand(3, 3)], dim=1)
    expected = F.cross_entropy(logits, torch.arange(3))
    torch.testing.assert_close(contrast(rows, pairs, clusters, logit_scale=10.0, mu=3.0), expected)


def test_a_column_equal_to_the_own_centroid_is_no_negative() -> None:
    rows, clusters = three_rows_with_hard_negative_at(0.2)
    # Sentence 0's hard negative is the cluster of sentences 1 and 2, and the other way round.
    swapped = replace(clusters, own=torch.tensor([0, 1, 1]), hard=torch.tensor([1, 0, 0]))
    loss = contrast(rows, SentencePairs.of(rows, swapped), swapped, logit_scale=1.0, mu=3.0)
    in_batch, cosines = SentencePairs.of(rows, None).cosines, swapped.cosines
    terms = []
    for row, (hard, own_count) in enumerate([(1, 1), (0, 2), (0, 2)]):
        extra = math.log(own_count + 2) + cosines[row, hard]
        terms.append(torch.cat([in_batch[row], extra[None]]).logsumexp(0) - in_batch[row, row])
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_pitfall_07_loss_can_fall_well_below_log_n() -> None:
    z = unit(512, 256)
    rows = sentence_rows(z, z)
    pairs, bound = SentencePairs.of(rows, None), math.log(512)
    from cmcgns.settings.config import ObjectiveSettings

    ours = float(contrast(rows, pairs, None, logit_scale=1 / ObjectiveSettings().tau))
    released = float(contrast(rows, pairs, None, logit_scale=1.0))
    assert ours < 0.1 * bound
    assert released > 5.2


def test_pitfall_08_margin_of_an_empty_set_costs_nothing() -> None:
    rows = sentence_rows(unit(4, 6).requires_grad_(), unit(4, 6, seed=1))
    pairs = SentencePairs.of(rows, None)
    loss = margin_loss(pairs, torch.zeros(4, 4, dtype=torch.bool), rows.mask, 0.2, 0.5)
    loss.backward()
    assert float(loss.detach()) == 0
    assert rows.z1.grad is not None
    assert (rows.z1.grad == 0).all()


def test_single_sentence_is_finite() -> None:
    rows = sentence_rows(unit(1, 6).requires_grad_(), unit(1, 6, seed=1).requires_grad_())
    clusters = clusters_of(rows.z1, unit(4, 6, seed=2))
    pairs = SentencePairs.of(rows, clusters)
    assert pairs.same_cluster is not None
    loss = contrast(rows, pairs, clusters, logit_scale=10.0, mu=3.0)
    loss = loss + margin_loss(pairs, pairs.same_cluster, rows.mask, 0.2, 0.5)
    loss.backward()
    assert loss.isfinite()
    for leaf in (rows.z1, rows.z2):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_no_sentence_at_all_costs_nothing() -> None:
    rows = sentence_rows(torch.zeros(3, 6, requires_grad=True), torch.zeros(3, 6), torch.zeros(3, dtype=torch.bool))
    loss = contrast(rows, SentencePairs.of(rows, None), None, logit_scale=10.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert rows.z1.grad is not None
    assert (rows.z1.grad == 0).all()
