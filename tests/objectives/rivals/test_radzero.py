"""RadZero beside slow loops over sentences, images and patches, written from its equations."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cmcgns.objectives.numerics as numerics
from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.global_alignment import global_alignment_loss
from cmcgns.objectives.objective import STAGES, find_objective
from cmcgns.objectives.query_matched import Stated, Statements
from cmcgns.objectives.rivals.radzero import CosineReader, RadZero, multi_positive_contrast
from cmcgns.settings.config import ObjectiveSettings
from objectives.rivals.test_every_rival import rival_task
from objectives.test_collective import assert_equal, gradients, two_ranks
from support.objectives import DIM, GRID, SIZE, figures_of, part, random_batch, random_features, set_stage, unit

Doubles = NDArray[np.float64]
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "duplicates kept": {"duplicates": False},
    "flat maps": {"map_temperature": 0.5},
    "another temperature": {"tau": 0.3, "learn_tau": False},
    "cross-attention": {"attention": "cross"},
    "cross-attention, duplicates kept": {"attention": "cross", "duplicates": False, "learn_tau": False},
    "with a global term": {"global_weight": 0.5},
}


def rival(**options: object) -> RadZero:
    torch.manual_seed(0)
    settings = ObjectiveSettings(name="radzero", dim=DIM, options=options)
    objective = find_objective(settings)(settings, GRID, SIZE)
    assert isinstance(objective, RadZero)
    set_stage(objective, "alignment")
    return objective


def studies() -> tuple[Batch, Features]:
    """Of 1 to 5 sentences or none, many of them equal; report 1 holds one of report 0 that it does not show."""
    batch = random_batch((3, 5, 2, 1, 0, 4), 6, distinct=9, seed=1)
    reports = batch.report_sentences.clone()
    text = batch.sentence_text.clone()
    text[0, 1] = reports[0, 1] = reports[1, 5] = 77
    batch = replace(batch, sentence_text=text, report_sentences=reports)
    return batch, random_features(batch, seed=3)


def parameters(objective: RadZero) -> dict[str, Doubles]:
    return {key: value.detach().double().numpy() for key, value in objective.named_parameters()}


def slow_score(objective: RadZero, patches: Doubles, sentence: Doubles) -> float:
    """S of one unit sentence and one image."""
    options, maps = objective.options, parameters(objective)
    if options.attention == "cross":
        query = maps["attention.text_query.weight"] @ sentence + maps["attention.text_query.bias"]
        keys = [maps["attention.image_key.weight"] @ each + maps["attention.image_key.bias"] for each in patches]
        values = [
            maps["attention.image_value.weight"] @ each + maps["attention.image_value.bias"] for each in patches
        ]
        looks = [float(query @ key) / DIM**0.5 for key in keys]
    else:
        values = list(patches)
        looks = [float(sentence @ each) / options.map_temperature for each in patches]
    seen = np.zeros(DIM)
    for look, value in zip(looks, values, strict=True):
        seen += np.exp(look) / sum(np.exp(other) for other in looks) * value
    return float(sentence @ seen / np.sqrt(seen @ seen))


def slow_report(objective: RadZero, patches: Doubles, sentences: Doubles, batch: Batch, tau: float) -> float:
    """The loss, one sentence after the other; patches and sentences as in `Features`."""
    stated = [
        (
            study,
            sentences[study, place] / np.linalg.norm(sentences[study, place]),
            int(batch.sentence_text[study, place]),
        )
        for study in range(len(batch))
        for place in range(int(batch.sentence_mask[study].sum()))
    ]
    score = [[slow_score(objective, image, vector) / tau for image in patches] for _, vector, _ in stated]

    def no_negative(sentence: int, image: int) -> bool:
        study, _, text = stated[sentence]
        return study == image or (objective.options.duplicates and text in batch.report_sentences[image].tolist())

    loss = 0.0
    for n, (own, _, _) in enumerate(stated):
        positive = np.exp(score[n][own])
        images = sum(np.exp(score[n][image]) for image in range(len(batch)) if not no_negative(n, image))
        others = sum(np.exp(score[m][own]) for m in range(len(stated)) if not no_negative(m, own))
        loss -= np.log(positive / (positive + images)) + np.log(positive / (positive + others))
    return float(loss / (2 * len(stated)))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_term_and_its_gradient_are_those_of_the_formula(name: str) -> None:
    objective, (batch, features) = rival(**VARIANTS[name]), studies()
    inputs = [each.detach().double().numpy() for each in (features.patches, features.sentences)]
    tau = objective.options.tau
    loss = figures_of(objective, features, batch)["report"]
    assert float(loss.detach()) == pytest.approx(slow_report(objective, *inputs, batch, tau), rel=1e-5)
    loss.backward()
    generator = np.random.default_rng(0)
    for place, leaf in enumerate((features.patches, features.sentences)):
        assert leaf.grad is not None
        direction = generator.standard_normal(leaf.shape)
        direction[np.abs(inputs[place]).max(-1) == 0] = 0  # a sentence of padding has no direction
        ends = []
        for step in (1e-6, -1e-6):
            moved = list(inputs)
            moved[place] = moved[place] + step * direction
            ends.append(slow_report(objective, *moved, batch, tau))
        slope = float((leaf.grad.double() * torch.from_numpy(direction)).sum())
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-5)
    logarithm = objective.report_scale.logarithm.grad  # of 1/τ
    assert (logarithm is not None) == objective.options.learn_tau
    if logarithm is not None:
        ends = [slow_report(objective, *inputs, batch, tau * np.exp(-step)) for step in (1e-6, -1e-6)]
        assert float(logarithm) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-5)


def test_the_means_in_the_log_are_those_of_own_and_of_other_images() -> None:
    objective, (batch, features) = rival(), studies()
    own, other = [], []
    for study, place in batch.sentence_mask.nonzero().tolist():
        vector = F.normalize(features.sentences[study, place].detach(), dim=0).double().numpy()
        for image in range(len(batch)):
            found = slow_score(objective, features.patches[image].detach().double().numpy(), vector)
            if image == study:
                own.append(found)
            elif int(batch.sentence_text[study, place]) not in batch.report_sentences[image].tolist():
                other.append(found)
    figures = figures_of(objective, features, batch)
    assert float(figures["score_own"]) == pytest.approx(np.mean(own), abs=1e-6)
    assert float(figures["score_other"]) == pytest.approx(np.mean(other), abs=1e-6)
    assert float(figures["tau"]) == pytest.approx(0.07)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest array that any operation makes, in either direction."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, list | tuple) else (made,):
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.untyped_storage().nbytes() // each.element_size())
        return made


def weighed_scores(objective: RadZero, patches: Tensor, queries: Tensor) -> tuple[Tensor, ...]:
    """Scores and the gradient of their sum, each with a weight of its own."""
    scores = objective.score(patches, queries)
    weights = unit(*scores.shape, seed=2)
    return scores, *torch.autograd.grad((scores * weights).sum(), (patches, queries))


@pytest.mark.parametrize("attention", ["cosine", "cross"])
def test_pitfall_memory_holds_no_vector_for_every_sentence_and_image(attention: str) -> None:
    studies, patches, sentences = 7, 5, 11
    objective = rival(attention=attention)
    inputs = unit(studies, patches, DIM).requires_grad_(), unit(sentences, DIM, seed=1).requires_grad_()
    with Largest() as seen:
        weighed_scores(objective, *inputs)
    assert 0 < seen.largest <= studies * patches * max(DIM, sentences)
    assert seen.largest < studies * sentences * DIM


@pytest.mark.parametrize("attention", ["cosine", "cross"])
def test_pitfall_memory_scores_in_parts_are_the_same_and_smaller(
    attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = rival(attention=attention)
    inputs = unit(5, 4, DIM).requires_grad_(), unit(300, DIM, seed=1).requires_grad_()
    whole = weighed_scores(objective, *inputs)
    monkeypatch.setattr(numerics, "MOST", 2 * 4 * 300)
    with Largest() as seen:
        parts = weighed_scores(objective, *inputs)
    for found, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(found, expected)
    assert seen.largest < 5 * 4 * 300  # of all images at once
    kept: list[Tensor] = []  # for the way back
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        objective.score(*inputs)
    assert kept  # queries that a closure holds are not among what autograd saves
    assert {each.untyped_storage().data_ptr() for each in kept} <= {each.data_ptr() for each in inputs}
    monkeypatch.setattr(numerics, "MOST", 1)
    torch.testing.assert_close(objective.score(*inputs), whole[0])


def contrast_of(batch: Batch, duplicates: bool = True) -> tuple[Any, Tensor]:
    """The loss as a function of scores (B, N) in double precision, and such scores."""
    vectors = unit(batch.sentence_mask.numel(), DIM)
    rows = Statements.of(vectors, batch.sentence_mask, batch.sentence_text)
    stated = Stated.of(rows, rows, batch.report_sentences, None)
    scores = torch.randn(len(batch), len(vectors), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (lambda given: multi_positive_contrast(given, rows, rows, stated, duplicates)), scores


@pytest.mark.parametrize("known", [True, False])
def test_pitfall_several_positives_do_not_push_each_other_away(known: bool) -> None:
    """In the row of a sentence, the gradient of another sentence of its report is 0 whatever the scores."""
    batch = random_batch((2, 2, 0), 2)  # sentences 0 and 1 of image 0, 2 and 3 of image 1, 4 and 5 are padding
    batch = replace(batch, report_sentences=batch.report_sentences * known)  # else only their place tells
    loss, scores = contrast_of(batch)
    hessian = torch.autograd.functional.hessian(loss, scores)
    assert float(hessian[0, 0, 0, 1]) == 0  # two positives of image 0
    assert float(hessian[1, 2, 1, 3]) == 0
    assert float(hessian[0, 0, 0, 2].abs()) > 1e-3  # a positive and a negative of image 0
    own = torch.zeros_like(scores, dtype=torch.bool)
    own[0, :2] = own[1, 2:4] = True
    for factor in (1.0, 10.0, 100.0):  # so that one positive lies far above the other
        scaled = (factor * scores).requires_grad_()
        gradient = torch.autograd.grad(loss(scaled), scaled)[0]
        assert bool((gradient[own] <= 0).all())
        assert bool((gradient[~own] >= 0).all())


def equal_texts() -> Batch:
    """Image 1 does not show a sentence of image 0, but its report holds it; image 2 states something else."""
    batch = random_batch((2, 1, 1), 2)
    text = torch.tensor([[11, 12], [13, 0], [14, 0]])
    reports = torch.tensor([[11, 12, 0], [13, 11, 0], [14, 0, 0]])
    return replace(batch, sentence_text=text, report_sentences=reports)


@pytest.mark.parametrize("duplicates", [True, False])
def test_pitfall_equal_sentences_of_other_reports_are_no_negatives(duplicates: bool) -> None:
    """Neither the image of the other report for the sentence, nor the sentence for that image."""
    loss, scores = contrast_of(equal_texts(), duplicates)
    hessian = torch.autograd.functional.hessian(loss, scores)
    gradient = torch.autograd.functional.jacobian(loss, scores)
    # Sentence 0 meets its own image, or sentence 2 of image 1, only in the row of a direction that has both.
    for meets in (gradient[1, 0], hessian[1, 0, 0, 0], hessian[1, 0, 1, 2]):
        assert (float(meets) == 0) == duplicates
    assert float(gradient[2, 0]) > 1e-4  # report 2 holds nothing like it
    assert float(gradient[1, 1]) > 1e-4  # nor report 1 the other sentence


@pytest.mark.parametrize("duplicates", [True, False])
def test_pitfall_a_sentence_s_own_image_always_stays(duplicates: bool) -> None:
    loss, scores = contrast_of(equal_texts(), duplicates)
    gradient = torch.autograd.functional.jacobian(loss, scores)
    for image, sentence in ((0, 0), (0, 1), (1, 2), (2, 4)):  # 3 and 5 are padding
        assert float(gradient[image, sentence]) < -1e-3
    far = scores.clone()
    far[0, 0] -= 50
    assert float(loss(far)) > float(loss(scores)) + 10


@pytest.mark.parametrize("counts", [(1,), (3,), (0, 0), (2, 3)])
def test_nothing_to_compare_with_is_zero_with_zero_gradient(counts: tuple[int, ...]) -> None:
    batch = random_batch(counts, 3, distinct=1)  # one text: every report holds every sentence
    features = random_features(batch)
    loss = figures_of(rival(), features, batch)["report"]
    assert float(loss.detach()) == 0
    loss.backward()
    for leaf in (features.patches, features.sentences):
        assert leaf.grad is None or not bool(leaf.grad.abs().max() > 0)


def test_it_cannot_be_solved_by_the_sentences_alone() -> None:
    """Images that look alike leave a sentence at chance among them, -log(1/B)."""
    batch, features = studies()
    objective = rival(duplicates=False)
    same = replace(features, patches=features.patches[:1].detach().expand(len(batch), -1, -1))
    everyone = F.normalize(features.sentences[batch.sentence_mask], dim=-1)
    scores = objective.score(same.patches[:1], everyone)[0] / 0.07
    image = torch.arange(len(batch)).repeat_interleave(batch.sentence_mask.sum(1))
    others = torch.stack([scores[image != own].logsumexp(0) for own in image])
    expected = (np.log(len(batch)) + F.softplus(others - scores).mean()) / 2
    torch.testing.assert_close(figures_of(objective, same, batch)["report"], expected)


def test_packed_sentences_give_the_same_loss_from_fewer_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, features = studies()
    mask = batch.sentence_mask.flatten()
    places = torch.cat([mask.nonzero()[:, 0], (~mask).nonzero()[:2, 0]])
    score, asked = RadZero.score, []
    monkeypatch.setattr(RadZero, "score", lambda *given: asked.append(len(given[2])) or score(*given))
    both = (replace(batch, sentence_places=places), batch)
    found, expected = (figures_of(rival(), features, each)["report"] for each in both)
    torch.testing.assert_close(found, expected)
    assert asked == [len(places), len(mask)] == [17, 36]


def test_the_switches_differ() -> None:
    batch, features = studies()
    values = {
        name: float(figures_of(rival(**each), features, batch)["loss"].detach()) for name, each in VARIANTS.items()
    }
    assert len({round(value, 5) for value in values.values()}) == len(values)
    for wrong in (
        {"tau": 0.0},
        {"map_temperature": -1},
        {"attention": "sigmoid"},
        {"global_weight": -1},
        {"taus": 1},
    ):
        with pytest.raises(UserError):
            rival(**wrong)


def test_the_temperature_of_maps_goes_from_the_mean_to_the_best_patch() -> None:
    patches, queries = unit(3, 5, DIM), unit(4, DIM, seed=1)
    flat, sharp = (CosineReader(temperature).score(patches, queries) for temperature in (1e4, 1e-4))
    torch.testing.assert_close(flat, F.normalize(patches.mean(1), dim=-1) @ queries.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sharp, (patches @ queries.T).amax(1))


def test_the_global_term_is_that_of_clip_and_weighs_what_it_should() -> None:
    batch, features = studies()
    figures = figures_of(rival(global_weight=0.5), features, batch)
    expected = global_alignment_loss(features.image_global, features.report_global, torch.tensor(10.0))
    torch.testing.assert_close(figures["global"], expected)
    torch.testing.assert_close(figures["loss"], figures["report"] + 0.5 * expected)
    assert float(figures["temperature"]) == pytest.approx(0.1)
    assert "global" not in figures_of(rival(), features, batch)


def test_maps_and_what_each_patch_adds_belong_to_the_score() -> None:
    patches, queries = unit(3, 4, DIM), unit(6, DIM, seed=1)
    reader = rival().reader
    seen = reader.weights(patches, queries).transpose(1, 2) @ patches  # (B, N, D)
    scores = reader.score(patches, queries)
    torch.testing.assert_close(reader.gated_products(patches, queries).sum(1), scores * seen.norm(dim=-1))
    torch.testing.assert_close(reader.weights(patches, queries).sum(1), torch.ones(3, 6))
    assert isinstance(rival(attention="cross").reader, CrossModalAttention)


def test_it_lacks_the_maps_that_no_loss_trains() -> None:
    lacking = {
        name: {kind for kind in ("pooled", "patches", "attention", "gated", "joint") if rival(**each).lacks_map(kind)}
        for name, each in VARIANTS.items()
    }
    assert lacking["as it is"] == {"pooled", "joint"}
    assert lacking["cross-attention"] == {"pooled", "joint", "patches"}
    assert lacking["with a global term"] == set()


def test_scales_are_held_below_their_bound_and_told() -> None:
    objective = rival(tau=0.02, global_weight=1.0)
    assert objective.local_temperature == pytest.approx(0.02)
    assert objective.temperature == pytest.approx(0.1)
    for scale in (objective.report_scale, objective.logit_scale):
        scale.logarithm.data.fill_(9.0)
    objective.clamp_logit_scale()
    for scale in (objective.report_scale, objective.logit_scale):
        assert float(scale.logarithm.detach()) < np.log(100)


@pytest.mark.parametrize("name", VARIANTS)
def test_it_trains_what_its_terms_reach_and_nothing_else(name: str) -> None:
    for stage in STAGES:
        task = rival_task("radzero", **VARIANTS[name])
        task.set_stage(stage)
        task(random_batch((3, 4, 2), 5, size=32), 0)[0]["loss"].backward()
        for key, parameter in task.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, key
    trained = {key for key, parameter in task.named_parameters() if parameter.requires_grad}
    heads = {"model.image_projection.weight", "model.sentence_pool.c_proj.weight", "objective.logit_scale.logarithm"}
    assert trained & heads == (heads if name == "with a global term" else set())
    assert ("objective.attention.image_key.weight" in trained) == ("attention" in VARIANTS[name])
    assert "model.patch_projection.weight" in trained


def run_variants(rows: slice) -> dict[str, dict[str, Tensor]]:
    return dict(_variants(rows))


def _variants(rows: slice) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for name, options in VARIANTS.items():
        objective, whole = rival(**options), random_batch((5, 4, 3, 1, 0, 2), 5, distinct=8)
        batch, features = part(whole, random_features(whole), rows)
        figures = figures_of(objective, features, batch)
        figures["loss"].backward()
        found = {key: value.detach() for key, value in figures.items()} | gradients(objective)
        leaves = {key: getattr(features, key).grad for key in ("patches", "sentences")}
        yield name, found | {f"input {key}": value for key, value in leaves.items()}


def test_two_ranks_equal_one_in_every_variant(tmp_path: Path) -> None:
    alone, ranks = run_variants(slice(0, 6)), two_ranks(run_variants, tmp_path)
    for name, expected in alone.items():
        first, second = (found[name] for found in ranks)
        assert first.keys() == expected.keys()
        for key, value in expected.items():
            joined = {"input": torch.cat, "gradient": sum}.get(key.split()[0], lambda both: both[0])
            assert_equal({key: joined([first[key], second[key]])}, {key: value}, name)
