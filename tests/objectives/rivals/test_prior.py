"""PRIOR by its formulas written out, and what its own program gets wrong or slow."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.collective import mean_where
from cmcgns.objectives.objective import STAGES
from cmcgns.objectives.rivals.prior import PRIOR, PresenceHead, balanced_presence_loss
from cmcgns.objectives.rivals.rival import pairs_of, within_study_contrast
from cmcgns.settings.config import ObjectiveSettings
from objectives.rivals.test_every_rival import rival_task
from support.objectives import GRID, SIZE, figures_of, random_batch, random_features, unit
from training.test_step import no_host_reads

COUNTS, BOUND, DIM = (3, 1, 0, 5, 2), 5, 16
PATCHES = GRID[0] * GRID[1]
TERMS = ("global", "image", "report", "reconstruction", "prototypes")
Given = tuple[Batch, Features]


def small_prior(seed: int = 0, temperature: float = 0.1, **options: object) -> PRIOR:
    """With few prototypes, biases that are not 0 and attention that is not nearly uniform."""
    torch.manual_seed(0)
    chosen = {"prototypes": 7} | options
    objective = PRIOR(
        ObjectiveSettings(name="prior", dim=DIM, temperature=temperature, options=chosen), GRID, SIZE, seed
    )
    with torch.no_grad():
        for name, value in objective.named_parameters():
            if name.endswith("bias"):
                value.normal_(std=0.3)
            elif name.endswith(("query.weight", "key.weight")):
                value.mul_(4)
    return objective


def given(counts: tuple[int, ...] = COUNTS) -> Given:
    batch = random_batch(counts, BOUND)
    return batch, random_features(batch)


def array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().numpy()


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def linear(layer: nn.Linear, x: NDArray[np.float64]) -> NDArray[np.float64]:
    bias = 0.0 if layer.bias is None else array(layer.bias)
    product: NDArray[np.float64] = array(layer.weight) @ x + bias
    return product


def gated(query: nn.Linear, key: nn.Linear, value: nn.Linear, one: Tensor, others: Tensor) -> NDArray[np.float64]:
    """What one vector gathers from others through sigmoid gates."""
    asked, found = linear(query, array(one)), np.zeros(DIM)
    for other in array(others):
        gate = 1 / (1 + math.exp(-float(asked @ linear(key, other)) / math.sqrt(DIM)))
        found += gate * linear(value, other)
    return found


def written_out_report(first: Tensor, second: Tensor, counts: tuple[int, ...], tau: float) -> Tensor:
    """One sentence after another, in double precision, with a gradient."""
    loss, sentences = first.new_zeros(()).double(), 0
    for study, count in enumerate(counts):
        r, c = first[study].double(), second[study].double()
        for m in range(count):
            sentences += 1
            there = torch.stack([F.cosine_similarity(r[m], c[n], dim=0) / tau for n in range(count)])
            back = torch.stack([F.cosine_similarity(r[n], c[m], dim=0) / tau for n in range(count)])
            loss = loss - (there[m] - there.exp().sum().log() + back[m] - back.exp().sum().log()) / 2
    return loss / sentences


def sentence_contrast(sentences: Tensor, seen: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """As PRIOR takes it."""
    return mean_where(within_study_contrast(sentences, seen, pairs_of(mask), temperature), mask)


def test_the_contrast_of_sentences_is_its_formula_in_value_and_gradient() -> None:
    batch, _ = given()
    first, second = ((1 + each) * unit(len(COUNTS), BOUND, DIM, seed=each) for each in range(2))
    first, second = first.requires_grad_(), second.requires_grad_()
    found = sentence_contrast(first, second, batch.sentence_mask, 0.2)
    expected = written_out_report(first, second, COUNTS, 0.2)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    ours = torch.autograd.grad(found, (first, second))
    for actual, right in zip(ours, torch.autograd.grad(expected, (first, second)), strict=True):
        torch.testing.assert_close(actual, right, rtol=1e-4, atol=1e-6)


def test_the_only_sentence_of_a_report_adds_nothing_and_counts() -> None:
    first, second = unit(2, 3, DIM), unit(2, 3, DIM, seed=1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert float(sentence_contrast(first[1:], second[1:], mask[1:], 0.1)) == 0
    alone = sentence_contrast(first[:1], second[:1], mask[:1], 0.1)
    torch.testing.assert_close(sentence_contrast(first, second, mask, 0.1), alone * 3 / 4)


def test_pitfall_sentences_of_other_studies_are_no_negatives() -> None:
    """Across patients many sentences say the same; the paper keeps to one report."""
    batch, features = given((3, 4))
    objective, mask = small_prior(), batch.sentence_mask

    def alone(study: int) -> Tensor:
        only = slice(study, study + 1)
        patches, sentences = features.patches[only], features.sentences[only]
        seen, _ = objective.attention.image_to_text(patches, sentences, mask[only])
        return sentence_contrast(sentences, seen, mask[only], 0.1)

    found = figures_of(objective, features, batch)["report"]
    torch.testing.assert_close(found, (3 * alone(0) + 4 * alone(1)) / 7)
    with torch.no_grad():  # the second study says and shows the same as the first, and more
        features.sentences[1, :3], features.patches[1] = features.sentences[0, :3], features.patches[0]
    same = figures_of(objective, features, batch)["report"]
    torch.testing.assert_close(same, (3 * alone(0) + 4 * alone(1)) / 7)


def test_sentences_see_their_own_image_through_sigmoid_gates() -> None:
    batch, features = given()
    objective, seen = small_prior(), torch.zeros(len(COUNTS), BOUND, DIM)
    layers = objective.attention.text_query, objective.attention.image_key, objective.attention.image_value
    assert objective.attention.positions is None
    for study, count in enumerate(COUNTS):
        for m in range(count):
            patches = features.patches[study]
            seen[study, m] = torch.from_numpy(gated(*layers, features.sentences[study, m], patches))
    expected = written_out_report(features.sentences, seen, COUNTS, 0.1)
    found = figures_of(objective, features, batch)["report"]
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_agreement_of_patches_is_its_formula() -> None:
    batch, features = given()
    objective, expected = small_prior(), 0.0
    layers = objective.attention.image_query, objective.attention.text_key, objective.attention.text_value
    hidden, output = objective.predictor.hidden, objective.predictor.output
    for study, count in enumerate(COUNTS):
        for patch in features.patches[study]:
            told = gated(*layers, patch, features.sentences[study, :count])
            of_patch, of_told = (linear(output, np.maximum(linear(hidden, x), 0)) for x in (array(patch), told))
            directions = (cosine(of_patch, told) if count else 0.0) + cosine(of_told, array(patch))
            expected -= directions / (2 * len(COUNTS) * PATCHES)
    assert float(figures_of(objective, features, batch)["image"].detach()) == pytest.approx(expected, rel=1e-5)


def test_pitfall_targets_of_patches_are_fixed() -> None:
    """Without stop-gradient all patches may become one vector, and so what they gather."""
    batch, features = given((3, 4))
    objective = small_prior()
    gathered, _ = objective.attention.text_to_image(features.patches, features.sentences, batch.sentence_mask)
    found = torch.autograd.grad(figures_of(objective, features, batch)["image"], features.patches)[0]

    def mean_cosine(prediction: Tensor, target: Tensor) -> Tensor:
        return F.cosine_similarity(objective.predictor(prediction), target, dim=-1).mean()

    patches = features.patches
    fixed = -(mean_cosine(patches, gathered.detach()) + mean_cosine(gathered, patches.detach())) / 2
    free = -(mean_cosine(patches, gathered) + mean_cosine(gathered, patches)) / 2
    right, wrong = (torch.autograd.grad(each, patches, retain_graph=True)[0] for each in (fixed, free))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(right, wrong, atol=1e-3)


def test_the_global_term_is_its_formula() -> None:
    batch, features = given()
    image, report, count = array(features.image_global), array(features.report_global), len(COUNTS)
    for temperature in (0.1, 0.5):
        expected = 0.0
        for i in range(count):
            row, column = np.exp(image[i] @ report.T / temperature), np.exp(image @ report[i] / temperature)
            expected -= (math.log(row[i] / row.sum()) + math.log(column[i] / column.sum())) / (2 * count)
        objective = small_prior(temperature=temperature)
        found = figures_of(objective, features, batch)
        assert float(found["global"].detach()) == pytest.approx(expected, rel=1e-5)
        assert float(found["temperature"]) == pytest.approx(temperature) == objective.temperature
        assert objective.logit_scale.logarithm.requires_grad


def test_the_scale_is_held_below_its_bound() -> None:
    objective = small_prior()
    with torch.no_grad():
        objective.logit_scale.logarithm.fill_(9)
    objective.clamp_logit_scale()
    assert objective.temperature == pytest.approx(0.01, rel=1e-3)


def test_presence_is_its_formula_in_value_and_gradient() -> None:
    """Studies without any sentence are left out; in the others both kinds of prototypes weigh a half."""
    logits = (5 * unit(4, 7)).requires_grad_()
    present = torch.zeros(4, 7, dtype=torch.bool)
    present[0, [1, 4]] = present[1, 6] = present[3, :] = True
    expected = logits.new_zeros(()).double()
    for study in (0, 1, 3):
        for there, sign in ((True, 1), (False, -1)):
            ones = [k for k in range(7) if bool(present[study, k]) == there]
            for k in ones:
                z = sign * logits[study, k].double()
                expected = expected - torch.log(1 / (1 + torch.exp(-z))) / (2 * 3 * len(ones))
    found = balanced_presence_loss(logits, present)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    gradient, right = (torch.autograd.grad(each, logits)[0] for each in (found, expected))
    torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-7)


def test_the_head_is_its_formula() -> None:
    """Every prototype asks all tokens with each of 2 heads of 8; the scaled cosine of what it sees is its logit."""
    torch.manual_seed(3)
    head, prototypes, tokens = PresenceHead(DIM, heads=2), unit(5, DIM), unit(3, 4, DIM, seed=1)
    with torch.no_grad():
        for layer in (head.query, head.value, head.output):
            layer.bias.normal_()
        head.query.weight.mul_(9)
        head.logit.bias.fill_(0.7)
    assert head.key.bias is None  # softmax would cancel it
    found = head(prototypes, tokens)
    for study in range(3):
        for k in range(5):
            asked, seen = linear(head.query, array(prototypes[k])), np.zeros(DIM)
            for part in (slice(0, 8), slice(8, 16)):
                keys = [linear(head.key, array(token))[part] for token in tokens[study]]
                weights = np.exp([float(asked[part] @ key) / math.sqrt(8) for key in keys])
                for weight, token in zip(weights / weights.sum(), tokens[study], strict=True):
                    seen[part] += weight * linear(head.value, array(token))[part]
            logit = 10 * cosine(linear(head.output, seen), array(prototypes[k])) + 0.7
            assert float(found[study, k].detach()) == pytest.approx(logit, rel=1e-4, abs=1e-5)


def nearest_by_loops(objective: PRIOR, features: Features) -> dict[int, list[tuple[int, NDArray[np.float64]]]]:
    """Prototype -> (study, unit vector) of its sentences."""
    found: dict[int, list[tuple[int, NDArray[np.float64]]]] = {}
    for study, count in enumerate(COUNTS):
        for sentence in array(features.sentences[study, :count]):
            cosines = [cosine(sentence, prototype) for prototype in array(objective.memory)]
            found.setdefault(int(np.argmax(cosines)), []).append((study, sentence / np.linalg.norm(sentence)))
    return found


def test_the_image_tells_which_prototypes_its_report_has() -> None:
    batch, features = given()
    objective = small_prior().eval()
    members = nearest_by_loops(objective, features)
    present = torch.zeros(len(COUNTS), 7, dtype=torch.bool)
    for k, sentences in members.items():
        for study, _ in sentences:
            present[study, k] = True
    tokens = torch.cat([features.image_global[:, None], features.patches], dim=1)
    expected = balanced_presence_loss(objective.head(objective.memory, tokens), present)
    found = figures_of(objective, features, batch)
    torch.testing.assert_close(found["prototypes"], expected)
    assert float(found["prototypes_in_use"]) == len(members)
    whole = torch.autograd.grad(found["prototypes"], (features.patches, features.image_global), retain_graph=True)
    assert all(bool((gradient != 0).any(-1)[0].all()) for gradient in whole)
    told = torch.autograd.grad(found["prototypes"], features.sentences, allow_unused=True)[0]
    assert told is None  # the report is not shown to the head, and its prototypes are fixed targets


def test_prototypes_follow_their_sentences_and_others_rest() -> None:
    batch, features = given()
    objective = small_prior(prototype_momentum=0.6)
    objective.chosen.fill_(True)
    before, members = array(objective.memory), nearest_by_loops(objective, features)
    figures_of(objective, features, batch)
    assert 1 < len(members) < 7
    for k, prototype in enumerate(array(objective.memory)):
        expected = before[k]
        if k in members:
            expected = 0.6 * before[k] + 0.4 * np.mean([vector for _, vector in members[k]], axis=0)
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(prototype, expected, rtol=1e-5, atol=1e-6)


def test_one_prototype_a_step_that_no_sentence_chose_goes_to_the_sentence_that_fits_least() -> None:
    batch, features = given()
    objective = small_prior(prototype_momentum=1.0)  # the others rest
    before, members = array(objective.memory), nearest_by_loops(objective, features)
    fits = {
        cosine(vector, before[k]): vector for k, sentences in members.items() for _, vector in sentences
    }  # of every sentence to its own
    first = min(set(range(7)) - members.keys())
    figures_of(objective, features, batch)
    expected = before.copy()
    expected[first] = fits[min(fits)]
    np.testing.assert_allclose(array(objective.memory), expected, rtol=1e-5, atol=1e-6)
    assert objective.chosen.nonzero().flatten().tolist() == sorted({first, *members})
    for _ in range(7):
        figures_of(objective, features, batch)
    assert objective.chosen.all()
    placed = array(objective.memory)
    figures_of(objective, features, batch)
    np.testing.assert_array_equal(array(objective.memory), placed)


def test_prototypes_start_by_the_seed_as_unit_vectors() -> None:
    first, same, other = (small_prior(seed).memory for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(7))
    assert PRIOR(ObjectiveSettings(name="prior", dim=DIM), GRID, SIZE).memory.shape == (512, DIM)
    assert "memory" in small_prior().state_dict()


def test_pitfall_a_report_is_a_set_of_prototypes() -> None:
    """No matching is needed: order and repetition of sentences change nothing."""
    batch, features = given((3, 4))
    objective = small_prior().eval()
    turned = features.sentences.detach().clone()
    turned[0, :3] = turned[0, [2, 0, 1]]
    turned[1, :5] = turned[1, [3, 1, 0, 2, 2]]
    mask = batch.sentence_mask.clone()
    mask[1, 4] = True
    found = figures_of(objective, features, batch)["prototypes"]
    other = figures_of(objective, replace(features, sentences=turned), replace(batch, sentence_mask=mask))[
        "prototypes"
    ]
    torch.testing.assert_close(other, found)
    turned[0, :3] = turned[0, 0]
    fewer = figures_of(objective, replace(features, sentences=turned), batch)["prototypes"]
    assert not torch.allclose(fewer, found, rtol=1e-4)


def test_pitfall_no_matching_on_the_host() -> None:
    """The Hungarian algorithm waits for the device in every step; nothing is read back here."""
    task = rival_task("prior", prototypes=7)
    batches = [random_batch((3, 0, 2, 4), BOUND, seed=seed, size=32) for seed in range(2)]
    for stage in STAGES:
        task.set_stage(stage)
        task(batches[0], 0)[0]["loss"].backward()
        with no_host_reads():
            losses, _ = task(batches[1], 1)
            losses["loss"].backward()
            task.objective.clamp_logit_scale()


def test_the_hidden_half_of_an_image_is_rebuilt_with_the_report() -> None:
    batch, features = given()
    objective = small_prior()
    hidden = objective.reconstruction.draw(len(batch), 5, torch.device("cpu"))
    assert torch.equal(hidden.sum(1), torch.full((len(COUNTS),), PATCHES // 2))
    rebuilt = array(
        objective.reconstruction.reconstruct(
            features.patches, hidden, features.sentences, batch.sentence_mask, objective.attention
        )
    )
    errors, side = [], SIZE // GRID[0]
    for study, image in enumerate(array(batch.images)):
        for place in np.flatnonzero(hidden[study].numpy()):
            row, column = (side * int(number) for number in divmod(place, GRID[1]))
            cell = slice(row, row + side), slice(column, column + side)
            errors.append(np.abs(rebuilt[study, 0][cell] - image[0][cell]).mean())
    found = figures_of(objective, features, batch, seed=5)["reconstruction"]
    assert float(found.detach()) == pytest.approx(float(np.mean(errors)), rel=1e-5)
    assert bool((torch.autograd.grad(found, features.sentences)[0] != 0).any())


def test_nothing_is_hidden_in_evaluation() -> None:
    batch, features = given()
    objective = small_prior().eval()
    hidden = torch.zeros(len(COUNTS), PATCHES, dtype=torch.bool)
    rebuilt = objective.reconstruction.reconstruct(
        features.patches, hidden, features.sentences, batch.sentence_mask, objective.attention
    )
    found = figures_of(objective, features, batch, seed=5)["reconstruction"]
    torch.testing.assert_close(found, (rebuilt - batch.images).abs().mean())


def test_the_loss_weighs_its_terms() -> None:
    batch, features = given()
    found = figures_of(small_prior(), features, batch)
    assert found.keys() == {"loss", *TERMS, "temperature", "prototypes_in_use"}
    torch.testing.assert_close(found["loss"], torch.stack([found[name] for name in TERMS]).sum())
    weights = {f"weight_{name}": 2.0**place for place, name in enumerate(TERMS)}
    weighed = figures_of(small_prior(**weights), features, batch)
    assert all(torch.equal(weighed[name], found[name]) for name in TERMS)
    expected = sum(2**place * found[name] for place, name in enumerate(TERMS))
    torch.testing.assert_close(weighed["loss"], expected)


def test_options_do_what_they_say() -> None:
    batch, features = given()
    plain, sharp = (figures_of(small_prior(sentence_temperature=tau), features, batch) for tau in (0.1, 0.5))
    assert not torch.allclose(plain["report"], sharp["report"], rtol=1e-3)
    assert all(torch.equal(plain[name], sharp[name]) for name in TERMS if name != "report")
    quarter = small_prior(mask_ratio=0.25).reconstruction.draw(9, 0, torch.device("cpu"))
    assert torch.equal(quarter.sum(1), torch.ones(9, dtype=torch.long))
    assert small_prior(prototypes=3).memory.shape == (3, DIM)
    still = small_prior(prototype_momentum=1.0)
    still.chosen.fill_(True)
    before = still.memory.clone()
    figures_of(still, features, batch)
    torch.testing.assert_close(still.memory, before)


@pytest.mark.parametrize("stage", STAGES)
def test_pitfall_every_parameter_of_the_objective_learns_in_every_stage(stage: str) -> None:
    """A part of the attention that no term reads would only wait for a gradient."""
    task = rival_task("prior", prototypes=7)
    task.set_stage(stage)
    task(random_batch((3, 4, 2), BOUND, size=32), 0)[0]["loss"].backward()
    for name, parameter in task.objective.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name
    for name, parameter in task.model.named_parameters():
        assert parameter.requires_grad or name.startswith("report_encoder.body.pooler"), name


def test_maps_of_phrases_are_the_gates_of_sentences() -> None:
    batch, features = given((5,))
    objective = small_prior()
    _, gates = objective.attention.image_to_text(features.patches, features.sentences, batch.sentence_mask)
    queries = objective.queries(features.sentences[0])
    torch.testing.assert_close(objective.reader.weights(features.patches, queries).transpose(1, 2), gates)
    assert not objective.lacks_map("attention")
    assert objective.lacks_map("gated") == "the run has objective.name prior (maps that it trains: pooled, attention)"
    assert all(objective.lacks_map(kind) for kind in ("patches", "gated", "joint"))
