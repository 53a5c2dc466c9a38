"""Query-matched L_report beside slow loops over sentences and images, written from its equations."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cmcgns.objectives.numerics as numerics
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.cross_attention import AttentionKind, CrossModalAttention
from cmcgns.objectives.query_matched import Statements, matched_report
from cmcgns.objectives.report_clusters import SentenceClusters
from support.objectives import (
    DIM,
    assert_gradient,
    assert_value,
    figures_of,
    random_batch,
    random_features,
    small_objective,
    unit,
)

COUNTS = (3, 5, 2, 1, 0, 4)
SWITCHES: dict[str, dict[str, Any]] = {
    "in batch": {"negatives": "in_batch"},
    "duplicates kept": {"negatives": "in_batch", "duplicates": False},
    "hard": {"negatives": "hard", "mu": 4.0},
    "mask": {"false_negatives": "mask", "mu": 1.0, "rarity": 1.0},
    "mask, hard": {"false_negatives": "mask", "mu": 2.5},
    "soft": {"false_negatives": "soft", "rarity": 2.0},
    "keep": {"false_negatives": "keep"},
    "without centroids": {"false_negatives": "mask", "centroid_negatives": False},
    "softmax": {"attention": "softmax", "false_negatives": "soft"},
    "by the text": {"false_negatives": "mask", "bank": {"clusters": 5, "source": "text"}},
    "by the centred sum": {"false_negatives": "mask", "bank": {"clusters": 5, "source": "centred"}},
    "unit values": {"false_negatives": "mask", "unit_values": True, "bank": {"clusters": 5, "source": "cross_modal"}},
    "patches know their place": {"false_negatives": "mask", "patch_positions": True},
}


def keys_and_values(attention: CrossModalAttention, patches: Tensor) -> tuple[Tensor, Tensor]:
    """(P, D) each, of one image."""
    keys, values = attention.image_key(patches), attention.image_value(patches)
    if attention.positions is not None:
        keys = keys + attention.positions.position
    return keys, torch.stack([value / value.norm() for value in values]) if attention.unit_values else values


def slow_cosine(attention: CrossModalAttention, patches: Tensor, query: Tensor) -> Tensor:
    """Of one sentence with what it sees in one image."""
    keys, values = keys_and_values(attention, patches)
    scores = keys @ attention.text_query(query) / math.sqrt(DIM)
    weights = scores.sigmoid() if attention.kind == "sigmoid" else scores.softmax(0)
    attended = torch.stack([w * v for w, v in zip(weights, values, strict=True)]).sum(0)
    return F.cosine_similarity(attended, query, dim=0)


def slow_loss(
    objective: CMCGNS, features: Features, batch: Batch, not_shown: dict[int, set[int]] | None = None
) -> Tensor:
    """One sentence and one image after the other; `not_shown`: further clusters of images."""
    not_shown = not_shown or {}
    settings, bank, attention = objective.settings, objective.bank, objective.attention
    sentences = [
        (study, F.normalize(features.sentences[study, place], dim=0), int(batch.sentence_text[study, place]))
        for study in range(len(batch))
        for place in range(int(batch.sentence_mask[study].sum()))
    ]
    scale = objective.report_scale()
    clusters = settings.negatives != "in_batch"
    own, hard, weights = {}, {}, torch.zeros(bank.clusters)
    if clusters:
        shares = bank.usage / bank.watched
        for k in range(bank.clusters):
            if shares[k] >= 0.05 / bank.clusters and bank.active[k]:
                weights[k] = (1 - shares[k] / shares.max()) ** settings.rarity
        for n, (study, z1, _) in enumerate(sentences):
            keys, values = keys_and_values(attention, features.patches[study])
            weight = keys @ attention.text_query(z1) / math.sqrt(DIM)
            weight = weight.sigmoid() if attention.kind == "sigmoid" else weight.softmax(0)
            z2 = F.normalize(weight @ values, dim=0)
            source = settings.bank.source
            vector = {"text": z1, "cross_modal": z2}.get(source)
            if vector is None:
                parts = [F.normalize(z - mean, dim=0) for z, mean in zip((z1, z2), bank.means, strict=True)]
                vector = F.normalize(parts[0] + parts[1], dim=0)
            order = (bank.centroids @ vector).argsort(descending=True).tolist()
            own[n], hard[n] = order[0], order[1]

    def holds(image: int, cluster: int) -> bool:
        return any(own[m] == cluster for m in own if sentences[m][0] == image) or cluster in not_shown.get(image, ())

    def told(n: int, image: int) -> tuple[bool, float]:
        """Whether the image states the sentence, and the weight of the pair otherwise."""
        study, z1, text = sentences[n]
        if image == study or (settings.duplicates and text in batch.report_sentences[image].tolist()):
            return True, 0.0
        if settings.negatives == "cluster" and settings.false_negatives in ("mask", "soft"):
            others = [m for m, (b, _, _) in enumerate(sentences) if b == image and own[m] == own[n]]
            if settings.false_negatives == "mask" and holds(image, own[n]):
                return True, 0.0
            alike = [float(z1.detach() @ sentences[m][1].detach()) for m in others]
            if own[n] in not_shown.get(image, ()):
                alike.append(float(z1.detach() @ bank.queries[own[n]]))
            if alike:
                return False, max(1 - max(*alike, 0.0), 1e-3)
        return False, 1.0

    total, images = torch.zeros(()), len(batch)
    for n, (study, z1, _) in enumerate(sentences):
        positive = slow_cosine(attention, features.patches[study], z1) * scale
        denominator = positive.exp()
        for image in range(images):
            stated, weight = told(n, image)
            if stated:
                continue
            if clusters and weight == 1 and holds(image, hard[n]):
                treated = settings.negatives == "cluster" and settings.false_negatives == "soft"
                weight = weight if treated and holds(image, own[n]) else settings.mu
            denominator = denominator + weight * (slow_cosine(attention, features.patches[image], z1) * scale).exp()
        total = total + denominator.log() - positive
        negatives = torch.zeros(())
        for m, (_, other, _) in enumerate(sentences):
            stated, weight = told(m, study)
            if not stated:
                negatives = (
                    negatives + weight * (slow_cosine(attention, features.patches[study], other) * scale).exp()
                )
        if clusters and settings.centroid_negatives:
            for k in range(bank.clusters):
                if weights[k] > 0 and not holds(study, k):
                    times = settings.mu if k == hard[n] else 1
                    score = slow_cosine(attention, features.patches[study], bank.queries[k]) * scale
                    negatives = negatives + times * weights[k] * score.exp()
        total = total + (negatives / positive.exp()).log1p()
    return total / (2 * len(sentences))


def started(**changes: Any) -> CMCGNS:
    bank = {"clusters": 5, "check_every": 1, "start_cosine": 1.0, "start_from_step": 0} | changes.pop("bank", {})
    objective = small_objective(local="query_matched", bank=bank, weight_image=0.0, weight_global=0.0, **changes)
    if objective.attention.positions is not None:  # they start at 0
        with torch.no_grad():
            objective.attention.positions.position.copy_(3 * unit(4, DIM, seed=53))
    objective.bank.start(unit(5, DIM, seed=50), unit(5, DIM, seed=51))
    objective.bank.means.copy_(0.1 * unit(2, DIM, seed=52))
    objective.bank.usage.copy_(0.5 * torch.tensor([0.4, 0.3, 0.2, 0.099, 0.001]))
    objective.bank.watched.fill_(0.5)
    return objective.eval()  # the bank stays where it is


def studies(seed: int = 0) -> tuple[Batch, Features]:
    """A report shown in part among them."""
    batch = random_batch(COUNTS, 6, distinct=9, seed=seed)
    reports = batch.report_sentences.clone()
    reports[3, 4] = int(batch.sentence_text[0, 0])  # a sentence that was dropped from the fourth report
    return replace(batch, report_sentences=reports), random_features(batch, seed=seed)


@pytest.mark.parametrize("name", SWITCHES)
def test_value_and_gradients_are_those_of_the_loops(name: str) -> None:
    objective = started(**SWITCHES[name])
    batch, features = studies()
    fast = figures_of(objective, features, batch)["report"]
    slow = slow_loss(objective, features, batch)
    assert_value(fast.detach(), slow.detach())
    attention = objective.attention
    trained = [*attention.text_query.parameters(), *attention.image_key.parameters()]
    trained += [*attention.image_value.parameters(), objective.report_scale.logarithm]
    trained += [] if attention.positions is None else [attention.positions.position]
    wanted = [features.patches, features.sentences, *trained]
    found, expected = (torch.autograd.grad(loss, wanted, allow_unused=True) for loss in (fast, slow))
    for actual, right in zip(found, expected, strict=True):
        assert (actual is None) == (right is None)
        if right is not None:
            assert_gradient(actual, right)
    assert found[0].abs().max() > 1e-4


@pytest.mark.parametrize("name", ["hard", "mask", "mask, hard", "soft", "keep", "without centroids"])
def test_clusters_of_sentences_that_are_not_shown_count_as_the_image_s(name: str) -> None:
    """Pitfall: a centroid of what sentence dropout took from the image's own report is no negative of it."""
    objective = started(**SWITCHES[name])
    batch, features = studies()
    not_shown = {0: {1, 2}, 4: {0, 1, 2, 3}, 5: {2}}
    held = torch.zeros(len(batch), 5, dtype=torch.bool)
    for image, clusters in not_shown.items():
        held[image, list(clusters)] = True
    rows = objective.sentences(features, features.patches, batch)
    statements = Statements.of(rows.z1, batch.sentence_mask, batch.sentence_text)
    vectors = objective.assigned_by(rows.z1, rows.z2)
    statements = statements.assigned(vectors, objective.bank.centroids, objective.bank.active)
    given = (objective.settings, objective.bank, objective.attention, features.patches, statements)
    scale = objective.report_scale()
    found = matched_report(*given, batch.report_sentences, scale, held).loss
    assert_value(found.detach(), slow_loss(objective, features, batch, not_shown).detach())
    if name != "keep":
        without = matched_report(*given, batch.report_sentences, scale).loss
        assert not torch.allclose(found, without, atol=1e-5)


def test_training_remembers_the_clusters_of_sentences_that_a_report_does_not_show() -> None:
    batch, features = studies()
    left_out = int(batch.report_sentences[3, 4])
    assert left_out not in batch.sentence_text[3].tolist()
    reports = batch.report_sentences.clone()
    reports[2, 5] = 999  # stands in no other report of the batch
    batch, losses = replace(batch, report_sentences=reports), []
    for remembered in (False, True):
        objective = started(false_negatives="mask").train()
        objective.known = SentenceClusters()
        if remembered:
            objective.known.keep(torch.tensor([999]), torch.tensor([1]), torch.tensor([True]))
        losses.append(float(figures_of(objective, features, batch)["report"].detach()))
        held = objective.known.of_left_out(batch.report_sentences, batch.sentence_text, 5)
        assert bool(held[2, 1]) == remembered
        assert held[3].sum() == 1  # the first report shows it in this very step
    assert losses[1] < losses[0]  # fewer negatives


def test_the_switches_differ() -> None:
    batch, features = studies()
    figures = [figures_of(started(**changes), features, batch) for changes in SWITCHES.values()]
    values = [float(each["report"].detach()) for each in figures]
    assert len({round(value, 5) for value in values}) == len(values)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_gated_products_add_up_to_the_numerator_of_the_score(kind: AttentionKind) -> None:
    attention = CrossModalAttention(DIM, kind)
    patches, queries = unit(3, 5, DIM), unit(4, DIM, seed=1)
    seen, weights = attention.image_to_text(patches, queries.expand(3, -1, -1), torch.ones(3, 4, dtype=torch.bool))
    parts = attention.gated_products(patches, queries)
    torch.testing.assert_close(parts.sum(1), attention.score(patches, queries) * seen.norm(dim=-1))
    slow = weights[2, 1] * (attention.image_value(patches)[2] @ queries[1])
    torch.testing.assert_close(parts[2, :, 1], slow)


def test_scores_in_chunks_of_images_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = CrossModalAttention(DIM)
    patches, queries = unit(5, 4, DIM).requires_grad_(), unit(7, DIM, seed=1).requires_grad_()
    whole = attention.score(patches, queries)
    expected = torch.autograd.grad((whole * unit(5, 7, seed=2)).sum(), (patches, queries))
    monkeypatch.setattr(numerics, "MOST", 2 * 4 * 7)
    parts = attention.score(patches, queries)
    torch.testing.assert_close(parts, whole)
    found = torch.autograd.grad((parts * unit(5, 7, seed=2)).sum(), (patches, queries))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("counts", [(1,), (3,), (0, 0), (1, 2)])
def test_nothing_to_compare_with_is_zero_with_zero_gradient(counts: tuple[int, ...]) -> None:
    objective = started(negatives="in_batch")
    batch = random_batch(counts, 3, distinct=1)  # one text: every image states every sentence
    features = random_features(batch)
    loss = figures_of(objective, features, batch)["report"]
    assert float(loss.detach()) == 0
    loss.backward()
    assert features.patches.grad is None or not bool(features.patches.grad.abs().max() > 0)


def test_padding_changes_nothing() -> None:
    objective = started(false_negatives="mask")
    batch, features = studies()
    wide = {
        name: F.pad(getattr(batch, name), (0, 4)) for name in ("sentence_mask", "sentence_text", "report_sentences")
    }
    padded = replace(features, sentences=F.pad(features.sentences, (0, 0, 0, 4), value=0.3))
    before = figures_of(objective, features, batch)["report"]
    after = figures_of(objective, padded, replace(batch, **wide))["report"]
    torch.testing.assert_close(after, before)


def test_it_cannot_be_solved_by_the_sentences_alone() -> None:
    """Pitfall: with one's own query in every image, images that look alike leave the loss at chance, -log(1/B)."""
    batch, features = studies()
    same = replace(features, patches=features.patches[:1].detach().expand(len(batch), -1, -1))
    objective = started(negatives="in_batch", duplicates=False)
    figures = figures_of(objective, same, batch)
    chance = math.log(len(batch))
    directions = 2 * figures["report"].detach() - chance  # what is left is the other direction, of one image
    everyone = objective.attention.score(same.patches[:1], _real(batch, features))[0] * objective.report_scale()
    image = torch.arange(len(batch)).repeat_interleave(batch.sentence_mask.sum(1))
    rivals = [everyone[image != b].logsumexp(0) for b in image]
    assert_value(directions, F.softplus(torch.stack(rivals) - everyone).mean().detach())


def _real(batch: Batch, features: Features) -> Tensor:
    return F.normalize(features.sentences[batch.sentence_mask], dim=-1)
