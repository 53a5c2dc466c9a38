"""Which parameters and which inputs of the objective get a gradient, and whence."""

import itertools

import pytest
import torch
from torch import Tensor

from cmcgns.objectives.centroids import Clusters, assign_two
from cmcgns.objectives.objective import STAGES
from cmcgns.objectives.own_query import SentencePairs, contrast
from support.objectives import (
    COUNTS,
    DIM,
    all_active,
    figures_of,
    random_batch,
    random_features,
    run_objective,
    sentence_rows,
    set_stage,
    small_objective,
    small_task,
    start_bank,
    unit,
)

SWITCHES = tuple(itertools.product(("sigmoid", "softmax"), ("global", "image", "report", None), (True, False)))


@pytest.mark.parametrize("negatives", ["in_batch", "hard", "cluster"])
@pytest.mark.parametrize("false_negatives", ["keep", "margin", "mask", "soft"])
@pytest.mark.parametrize("reconstruction", ["off", "image_only", "cross_modal"])
@pytest.mark.parametrize("mask", ["features", "pixels"])
def test_pitfall_12_exactly_the_trained_parameters_get_a_gradient(
    negatives: str, false_negatives: str, reconstruction: str, mask: str
) -> None:
    for attention, without, learn_tau in SWITCHES:
        zero = {} if without is None else {f"weight_{without}": 0.0}
        objective = small_objective(
            negatives=negatives, false_negatives=false_negatives, reconstruction=reconstruction, mask=mask,
            attention=attention, learn_tau=learn_tau, **zero,
        )  # fmt: skip
        start_bank(objective)
        for stage in STAGES:
            set_stage(objective, stage)
            trained = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
            objective.requires_grad_(True)  # the graph itself says what a stage reaches
            objective.report_scale.requires_grad_(learn_tau)
            objective.zero_grad(set_to_none=True)
            run_objective(objective)["loss"].backward()
            reached = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
            assert trained == reached, (stage, attention, without, learn_tau)
            for name, parameter in objective.named_parameters():
                assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reconstruction": "image_only", "negatives": "in_batch"},
        {"query": "unmasked"},
        {"weight_global": 0.0, "attention": "softmax", "false_negatives": "margin"},
        {"weight_image": 0.0, "weight_report": 0.0, "reconstruction": "off"},
        {
            "arithmetic": "released",
            "learn_tau": False,
            "tau": 1.0,
            "duplicates": False,
            "false_negatives": "margin",
        },
        {"sentence_gradient": 0.0},
        {"sentence_gradient": 0.1},
        {"mask": "tokens", "target_per_patch": True},
        {"target": "high_frequencies", "report_dropout": 0.5},
        {"target": "features", "mask": "tokens"},
        {"target": "text_map", "mask": "pixels"},
    ],
    ids=str,
)
@pytest.mark.parametrize("started", [False, True], ids=["before the bank", "with the bank"])
def test_pitfall_12_every_trained_parameter_of_the_task_gets_a_gradient(
    changes: dict[str, object], started: bool
) -> None:
    task = small_task(**changes)
    batch = random_batch(COUNTS, 5, size=32)
    if started:
        start_bank(task.objective)
    for stage in STAGES:
        task.set_stage(stage)
        task.zero_grad(set_to_none=True)
        task(batch)[0]["loss"].backward()
        for name, parameter in task.named_parameters():
            assert parameter.requires_grad == (parameter.grad is not None), (stage, name)
            assert parameter.grad is None or parameter.grad.isfinite().all(), (stage, name)
            if parameter.grad is not None and "bias" not in name:
                assert parameter.grad.any(), (stage, name)


@pytest.mark.parametrize("term", ["image", "report", "reconstruction"])
@pytest.mark.parametrize("mask", ["features", "pixels"])
def test_sentence_gradient_is_the_share_of_the_local_terms_that_reaches_the_sentences(term: str, mask: str) -> None:
    """Values and the gradients of the patches are the same whatever the share."""
    values, sentences, patches = {}, {}, {}
    for share in (1.0, 0.25, 0.0):
        objective = small_objective(sentence_gradient=share, mask=mask)
        set_stage(objective, "reconstruction")
        start_bank(objective)
        batch = random_batch(COUNTS, 5, distinct=6)
        features = random_features(batch)
        losses = figures_of(objective, features, batch)
        values[share] = {name: value.detach() for name, value in losses.items()}
        sentences[share], patches[share] = torch.autograd.grad(
            losses[term], (features.sentences, features.patches), allow_unused=True
        )
    assert sentences[0.0] is None
    assert sentences[1.0].any()
    assert patches[1.0].any()
    torch.testing.assert_close(sentences[0.25], 0.25 * sentences[1.0])
    for share in (0.25, 0.0):
        torch.testing.assert_close(values[share], values[1.0], rtol=0, atol=0)
        torch.testing.assert_close(patches[share], patches[1.0], rtol=0, atol=0)


def test_sentences_are_pushed_away_from_their_hard_negatives_as_published() -> None:
    objective = small_objective(
        sentence_gradient=1.0, mu=50.0, margin_weight=0.0
    ).eval()  # the bank stays where it is
    start_bank(objective)
    batch = random_batch(COUNTS, 5)
    features = random_features(batch)
    (gradient,) = torch.autograd.grad(figures_of(objective, features, batch)["report"], features.sentences)
    sentences = features.sentences.detach()[batch.sentence_mask]
    hard = assign_two(sentences, objective.bank.centroids, objective.bank.active).hard
    towards = (gradient[batch.sentence_mask] * objective.bank.centroids[hard]).sum(-1)
    assert (towards > 0).all()  # descent goes the other way


def test_of_fixed_sentences_hard_negatives_only_weigh_what_the_images_learn() -> None:
    """What docs/method.md says of sentence_gradient=0: no direction of a centroid enters the gradient of z2."""
    z2 = unit(12, DIM, seed=1).requires_grad_()
    rows = sentence_rows(unit(12, DIM), z2)
    centroids = unit(4, DIM, seed=2)
    clusters = assign_two(rows.z1, centroids, all_active(centroids))
    pairs = SentencePairs.of(rows, clusters)
    (gradient,) = torch.autograd.grad(contrast(rows, pairs, clusters, logit_scale=5.0, mu=3.0), z2)
    logits = torch.cat([5 * rows.z1 @ z2.detach().T, _written_out_hard_columns(rows.z1, clusters, 5.0, 3.0)], dim=1)
    share = logits.softmax(1)[:, :12] - torch.eye(12)
    torch.testing.assert_close(gradient, 5 * share.T @ rows.z1 / 12, rtol=1e-4, atol=1e-6)


def _written_out_hard_columns(z1: Tensor, clusters: Clusters, scale: float, mu: float) -> Tensor:
    """(n, n) logits of every sentence's hard negative, -inf where it is the row's own cluster."""
    columns = scale * clusters.cosines[:, clusters.hard] + torch.eye(len(z1)) * torch.tensor(mu).log()
    return columns.masked_fill(clusters.hard[None, :] == clusters.own[:, None], -torch.inf)


def test_fixed_sentences_leave_the_report_encoder_to_the_global_term() -> None:
    """Its gradients are those of L_global alone; the image encoder's are not."""
    batch, gradients = random_batch(COUNTS, 5, size=32), []
    for changes in ({"sentence_gradient": 0.0}, {"weight_image": 0.0, "weight_report": 0.0}):
        task = small_task(**changes)
        task(batch)[0]["loss"].backward()
        gradients.append({name: p.grad for name, p in task.model.named_parameters()})
    full, alone = gradients
    trained = {name: gradient for name, gradient in alone.items() if gradient is not None}
    report_side = ("report_encoder", "token_projection", "sentence_pool")
    report = [name for name in trained if name.startswith(report_side)]
    assert all(any(name.startswith(part) for name in report) for part in report_side)
    for name in report:
        torch.testing.assert_close(full[name], trained[name], rtol=0, atol=0)
    assert any(not torch.allclose(full[n], trained[n]) for n in trained if n.startswith("image_encoder"))
