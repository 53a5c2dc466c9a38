"""FaNe-like: pairs of similar reports, reweighted negatives, sentences against what they see in their image."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.rivals.fane import (
    FaNe,
    centre_of,
    hard_negatives,
    pair_loss,
    shared_sentences,
    sparse_attention,
)
from cmcgns.objectives.rivals.siglip import sigmoid_loss
from cmcgns.settings.config import ObjectiveSettings
from objectives.rivals.test_every_rival import rival_task
from support.objectives import DIM, GRID, SIZE, figures_of, random_batch, random_features, unit

COUNTS, BOUND = (3, 5, 0, 1, 4, 2), 6
SCALE, BIAS = 7.0, -3.0  # far from the start, so that every pair counts for something
KAPPA = 0.6
REPORTS = ([21, 22, 23], [24, 25, 21, 24, 26], [], [27], [23, 22, 21, 28], [24, 25])
Given = tuple[Batch, Features]


def objective(**options: object) -> FaNe:
    options = {"bias": BIAS, "similar": KAPPA, **options}
    found = FaNe(ObjectiveSettings(name="fane", dim=DIM, options=options), GRID, SIZE)
    with torch.no_grad():
        found.logit_scale.logarithm.fill_(math.log(SCALE))
    return found


def given() -> Given:
    """Report 2 is empty, 4 shares most sentences with report 0, 5 has the text of report 1; some are repeated."""
    batch = random_batch(COUNTS, BOUND, distinct=4)
    numbers = torch.tensor([report + [0] * (BOUND - len(report)) for report in REPORTS])
    batch = replace(batch, report_text=torch.tensor([7, 8, 9, 10, 11, 8]), report_sentences=numbers)
    features = random_features(batch)
    reports = features.report_global.detach().clone()
    reports[2] = 0
    return batch, replace(features, report_global=reports.requires_grad_())


def slow_similarity(first: list[int], second: list[int]) -> float:
    one, other = Counter(first), Counter(second)
    length = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return sum(one[number] * other[number] for number in one) / length if length else 0.0


def slow_pairs(text: list[int], centre: float, similar: float = KAPPA) -> np.ndarray:
    count = len(REPORTS)
    paired = np.zeros((count, count), dtype=bool)
    for i in range(count):
        for j in range(count):
            similarity = (slow_similarity(REPORTS[i], REPORTS[j]) - centre) / (1 - centre)
            paired[i, j] = i == j or text[i] == text[j] or similarity > similar
    return paired


def slow_centre(reports: Sequence[list[int]]) -> float:
    """Of vectors that have a place for each sentence."""
    real = [report for report in reports if report]
    rows = np.array([[report.count(number) for number in range(1, 50)] for report in real], dtype=float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mean = rows.mean(0)
    return float(np.mean(rows @ mean / np.linalg.norm(mean)))


def slow_negatives(rows: Tensor, paired: np.ndarray, tau: float) -> Tensor:
    """Row by row; an empty report has length 0."""
    cost = torch.zeros((), dtype=torch.float64)
    for i in range(len(rows)):
        logits = [torch.dot(rows[i], rows[j]) / tau for j in range(len(rows)) if not paired[i, j]]
        whole = sum(torch.exp(each / tau) for each in logits)
        for each in logits:
            cost = cost + torch.exp(each / tau) / whole * each
    return cost / len(rows)


def slow_global(image: Tensor, report: Tensor, paired: np.ndarray) -> Tensor:
    cost = torch.zeros((), dtype=torch.float64)
    for i in range(len(image)):
        for j in range(len(report)):
            sign = 1 if paired[i, j] else -1
            logit = SCALE * torch.dot(image[i], report[j]) + BIAS
            cost = cost - torch.log(1 / (1 + torch.exp(-sign * logit)))
    return cost / len(image)


def slow_report(batch: Batch, sentences: Tensor, patches: Tensor, tau: float) -> Tensor:
    """Both directions, sentence by sentence."""
    losses = []
    for b, real in enumerate(batch.sentence_mask.sum(1).tolist()):
        text = [int(number) for number in batch.sentence_text[b]]
        said = [sentences[b, n] / sentences[b, n].norm() for n in range(real)]
        seen = [slow_attended(said[n], patches[b]) for n in range(real)]
        for n in range(real):
            others = [m for m in range(real) if m == n or text[m] != text[n]]
            to_seen = torch.stack([torch.exp(said[n] @ seen[m] / tau) for m in others]).sum()
            to_said = torch.stack([torch.exp(said[m] @ seen[n] / tau) for m in others]).sum()
            own = torch.exp(said[n] @ seen[n] / tau)
            losses.append(-(torch.log(own / to_seen) + torch.log(own / to_said)) / 2 / real)
    return torch.stack(losses).sum() / int((batch.sentence_mask.sum(1) > 0).sum())


def slow_attended(sentence: Tensor, patches: Tensor) -> Tensor:
    similarity = [torch.dot(sentence, patch) for patch in patches]
    least, most = min(similarity), max(similarity)
    stretched = [(each - least) / (most - least) for each in similarity]
    kept = [each if float(each.detach()) >= 1 / len(patches) else 0 * each for each in stretched]
    attended = sum(weight * patch for weight, patch in zip(kept, patches, strict=True)) / sum(kept)
    assert isinstance(attended, Tensor)
    return attended / attended.norm()


def doubles(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def test_global_is_its_formula_in_value_and_gradient() -> None:
    batch, features = given()
    image, report = doubles(features.image_global, features.report_global)
    paired = slow_pairs(batch.report_text.tolist(), slow_centre(REPORTS))
    assert paired.sum() == 6 + 4  # reports 0 and 4, 1 and 5
    expected = slow_global(image, report, paired)
    expected.backward()
    found = figures_of(objective(), features, batch)
    found["global"].backward()
    assert float(found["global"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(found["pairs"]) == pytest.approx(10 / 6)
    for tensor, slow in ((features.image_global, image), (features.report_global, report)):
        torch.testing.assert_close(tensor.grad.double(), slow.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tau", [0.2, 0.5])
def test_negatives_are_their_formula_in_value_and_gradient(tau: float) -> None:
    batch, features = given()
    image, report = doubles(features.image_global, features.report_global)
    paired = slow_pairs(batch.report_text.tolist(), slow_centre(REPORTS))
    expected = (slow_negatives(image, paired, tau) + slow_negatives(report, paired, tau)) / 2
    expected.backward()
    found = figures_of(objective(negative_temperature=tau), features, batch)["negatives"]
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    for tensor, slow in ((features.image_global, image), (features.report_global, report)):
        torch.testing.assert_close(tensor.grad.double(), slow.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_report_is_its_formula_in_value_and_gradient(tau: float) -> None:
    batch, features = given()
    sentences, patches = doubles(features.sentences, features.patches)
    expected = slow_report(batch, sentences, patches, tau)
    expected.backward()
    found = figures_of(objective(sentence_temperature=tau), features, batch)["report"]
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    for tensor, slow in ((features.sentences, sentences), (features.patches, patches)):
        bound = 1e-4 * float(slow.grad.abs().max())
        torch.testing.assert_close(tensor.grad.double(), slow.grad, rtol=1e-3, atol=bound)


def test_attention_is_sparse_and_sums_to_one() -> None:
    sentence = torch.eye(4)[:1][None]  # sees the first coordinate of a patch
    patches = torch.tensor([[[-0.2], [0.8], [0.3], [0.0]]]) * torch.eye(4)[0]
    weights = sparse_attention(sentence, patches)[0, 0]  # stretched: 0, 1, 0.5, 0.2; the last is below 1/4
    torch.testing.assert_close(weights, torch.tensor([0.0, 1 / 1.5, 0.5 / 1.5, 0.0]), rtol=1e-4, atol=1e-6)
    assert weights[0] == weights[3] == 0
    alike = sparse_attention(sentence, patches[:, :1].expand(1, 4, 4))
    torch.testing.assert_close(alike[0, 0], torch.full((4,), 0.25))


def test_pitfall_the_sigmoid_term_has_a_logarithm() -> None:
    """Without one the term is -Σ σ: negative, and -1 a pair at best."""
    pairs = torch.eye(4, dtype=torch.bool)
    nothing = pair_loss(torch.zeros(4, 4), pairs)
    assert float(nothing) == pytest.approx(4 * math.log(2), rel=1e-6)
    perfect = pair_loss(torch.where(pairs, 40.0, -40.0), pairs)
    assert 0 <= float(perfect) < 1e-6
    wrong = pair_loss(torch.where(pairs, -40.0, 40.0), pairs)
    assert float(wrong) == pytest.approx(4 * 40, rel=1e-6)  # a sigmoid alone would be bounded
    for seed in range(5):
        logits = 10 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        assert float(pair_loss(logits, pairs)) >= 0


def test_pitfall_the_cosine_is_scaled_once() -> None:
    """A single study: loss = -log σ(t c + b), whose derivative by the image is -σ(-(t c + b)) t y."""
    batch = random_batch((2,), BOUND)
    features = random_features(batch)
    image, report = features.image_global, features.report_global
    found = figures_of(objective(), features, batch)["global"]
    found.backward()
    logit = SCALE * float((image * report).detach().sum()) + BIAS
    assert float(found.detach()) == pytest.approx(math.log(1 + math.exp(-logit)), rel=1e-5)
    slope = -SCALE / (1 + math.exp(logit))
    torch.testing.assert_close(image.grad, slope * report.detach(), rtol=1e-4, atol=1e-6)


def test_pitfall_similar_reports_are_pairs_and_no_negatives() -> None:
    """The image comes nearer to a report that is similar to its own, and goes away from any other."""
    batch, features = given()
    reports = features.report_global.detach()
    found = objective().find_pairs(batch)
    assert np.array_equal(found.numpy(), slow_pairs(batch.report_text.tolist(), slow_centre(REPORTS)))
    assert [tuple(pair) for pair in found.nonzero().tolist() if pair[0] < pair[1]] == [(0, 4), (1, 5)]
    for i, j in ((0, 4), (1, 5)):  # with report j alone as the column of image i
        image = features.image_global.detach()[i : i + 1].clone().requires_grad_()
        logit = SCALE * image @ reports[j : j + 1].T + BIAS
        pair_loss(logit, found[i : i + 1, j : j + 1]).backward()
        assert float((image.grad * reports[j]).sum()) < 0  # a step against the gradient raises the cosine


def test_pitfall_no_gradient_flows_through_pairs() -> None:
    batch, _ = given()
    found = objective()
    assert found.find_pairs(batch).dtype == torch.bool
    assert not found.centre.requires_grad


def test_pitfall_the_hardest_negative_is_pushed_away_and_no_pair_is() -> None:
    """The image of a similar report is the nearest one, and is left alone."""
    images = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0, 0.0], [0.99, 0.14, 0.0], [0.8, 0.0, 0.6], [0.0, 0.0, 1.0]]), dim=1
    ).requires_grad_()
    paired = torch.eye(4, dtype=torch.bool)
    paired[0, 1] = paired[1, 0] = True
    each = hard_negatives(images, images.detach(), paired, 0.07)
    assert float(each[0].detach()) == pytest.approx(0.8 / 0.07, rel=1e-3)  # the third alone, softmax of 163 and 0
    each[0].backward()
    slope = images.grad[0]
    torch.testing.assert_close(slope, images.detach()[2] / 0.07, rtol=0.01, atol=0.1)
    alone = hard_negatives(images.detach(), images.detach(), torch.ones(4, 4, dtype=torch.bool), 0.07)
    assert not bool(alone.any())


def test_pitfall_the_paper_s_kappa_finds_nothing_where_reports_share_most_sentences() -> None:
    """Its scale is that of a frozen encoder, whose cosines are all near 1: there .95 is little, here nearly all."""
    reports = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [7, 8, 9, 10, 11], [12, 13, 14, 15, 16]])
    batch = replace(random_batch((5, 5, 5, 5), 5), report_sentences=reports, report_text=torch.arange(4))
    default = FaNe(ObjectiveSettings(name="fane", dim=DIM), GRID, SIZE)
    assert default.find_pairs(batch).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2], [3, 3]]
    assert torch.equal(objective(similar=0.95).find_pairs(batch), torch.eye(4, dtype=torch.bool))


def test_pitfall_sentences_of_other_reports_are_no_negatives() -> None:
    """The term is the mean of those of its reports, whatever the number of their sentences; one has none."""
    batch, features = given()
    alone = [
        objective()._report(
            SimpleNamespace(sentences=features.sentences[[row]], patches=features.patches[[row]]),
            SimpleNamespace(sentence_mask=batch.sentence_mask[[row]], sentence_text=batch.sentence_text[[row]]),
        )
        for row in range(len(COUNTS))
    ]
    expected = torch.stack(alone).sum() / sum(count > 0 for count in COUNTS)
    torch.testing.assert_close(figures_of(objective(), features, batch)["report"], expected)
    assert float(alone[3].detach()) == 0  # a single sentence has nothing to be told from


def test_pitfall_equal_sentences_do_not_repel() -> None:
    batch, features = given()
    same = replace(batch, sentence_text=batch.sentence_mask.long())
    loss = figures_of(objective(), features, same)["report"]
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert float(features.sentences.grad.abs().max()) < 1e-6
    two = replace(batch, sentence_text=torch.where(batch.sentence_mask, torch.arange(BOUND) // 2 + 1, 0))
    assert float(figures_of(objective(), random_features(batch), two)["report"].detach()) > 0.01


def test_similarity_is_the_cosine_of_counts_of_sentences() -> None:
    batch, _ = given()
    found = shared_sentences(batch.report_sentences, batch.report_sentences[[1, 4]])
    slow = [[slow_similarity(report, REPORTS[other]) for other in (1, 4)] for report in REPORTS]
    torch.testing.assert_close(found, torch.tensor(slow))
    assert float(found[1, 0]) == pytest.approx(1)
    assert float(found[5, 0]) == pytest.approx(3 / math.sqrt(2 * 7))  # 24 is said twice


def test_the_centre_is_the_mean_cosine_with_the_mean() -> None:
    batch, _ = given()
    reports = batch.report_sentences
    found = centre_of(shared_sentences(reports, reports), reports)
    assert float(found) == pytest.approx(slow_centre(REPORTS), rel=1e-5)
    empty = torch.zeros(3, BOUND, dtype=torch.long)
    assert float(centre_of(shared_sentences(empty, empty), empty)) == 0


def test_the_centre_runs_in_training_alone() -> None:
    batch, features = given()
    others = [[21], [21], [21, 22], [22], [23], []]
    numbers = torch.tensor([report + [0] * (BOUND - len(report)) for report in others])
    other = replace(batch, report_sentences=numbers)
    found = objective(centre_rate=0.25)
    found.eval()
    figures_of(found, features, batch)
    assert float(found.centre.abs().sum()) == 0
    found.train()
    first, second = slow_centre(REPORTS), slow_centre(others)
    figures_of(found, features, batch)
    assert float(found.centre[0] / found.centre[1]) == pytest.approx(first, rel=1e-5)  # no pull towards 0
    figures_of(found, features, other)
    expected = (0.75 * first + second) / 1.75
    assert float(found.centre[0] / found.centre[1]) == pytest.approx(expected, rel=1e-5)
    before = found.centre.clone()
    found.eval()
    figures_of(found, features, batch)
    assert torch.equal(found.centre, before)


def test_pitfall_reports_of_one_crowd_are_not_all_pairs() -> None:
    """Reports that share all but a sentence would all be pairs, whatever that sentence says."""
    batch, _ = given()
    crowd = torch.tensor([[1, 2, 3, 4, 5, 10 + number] for number in range(6)])
    batch = replace(batch, report_sentences=crowd, report_text=torch.arange(6))
    assert torch.equal(objective().find_pairs(batch), torch.eye(6, dtype=torch.bool))
    assert bool(objective(centred=False).find_pairs(batch).all())


def test_pitfall_what_is_learned_does_not_make_pairs() -> None:
    """Embeddings that are alike may not become pairs: they would be pulled together until all reports are."""
    batch, features = given()
    alike = replace(features, report_global=unit(1, DIM).expand(6, DIM).clone().requires_grad_())
    expected = figures_of(objective(), features, batch)["pairs"]
    assert float(figures_of(objective(), alike, batch)["pairs"]) == float(expected) == pytest.approx(10 / 6)


def test_similarity_may_be_the_cosine_and_kappa_bounds_it() -> None:
    batch, _ = given()
    text = batch.report_text.tolist()
    for similar in (0.1, 0.5, 0.95):
        found = objective(centred=False, similar=similar).find_pairs(batch)
        assert np.array_equal(found.numpy(), slow_pairs(text, 0.0, similar))
    same = replace(batch, report_sentences=batch.report_sentences[:1].expand(6, BOUND))
    found = objective(centred=False, similar=1.0).find_pairs(same)
    assert np.array_equal(found.numpy(), np.equal.outer(text, text))  # equal texts alone


def test_without_similar_reports_global_is_that_of_siglip() -> None:
    batch, features = given()
    batch = replace(batch, report_text=torch.arange(6))
    found = figures_of(objective(similar=1.0), features, batch)["global"]
    expected = sigmoid_loss(features.image_global, features.report_global, torch.tensor(SCALE), torch.tensor(BIAS))
    torch.testing.assert_close(found, expected)


def test_weights_weigh_the_terms() -> None:
    batch, features = given()
    found = figures_of(objective(global_weight=0.5, report_weight=3.0, negative_weight=0.1), features, batch)
    expected = 0.5 * found["global"] + 3 * found["report"] + 0.1 * found["negatives"]
    torch.testing.assert_close(found["loss"], expected)
    plain = figures_of(objective(), features, batch)
    torch.testing.assert_close(plain["loss"], plain["global"] + plain["report"] + plain["negatives"])
    with pytest.raises(UserError, match="similar"):
        objective(similar=1.5)
    with pytest.raises(UserError, match="centre_rate is not read with centred=false"):
        objective(centred=False, centre_rate=0.5)


def test_it_trains_the_projection_of_patches_and_what_reads_whole_images() -> None:
    task = rival_task("fane")
    task.set_stage("alignment")
    for part in (task.model.patch_projection, task.model.image_pool, task.model.sentence_pool, task.objective):
        assert all(parameter.requires_grad for parameter in part.parameters())


def test_start_of_scale_and_bias() -> None:
    fresh = FaNe(ObjectiveSettings(name="fane", dim=DIM), GRID, SIZE)
    assert float(fresh.bias.detach()) == -10
    assert fresh.temperature == pytest.approx(0.1)
    with torch.no_grad():
        fresh.logit_scale.logarithm.fill_(9.0)
    fresh.clamp_logit_scale()
    assert float(fresh.logit_scale.logarithm.detach()) < math.log(100)
