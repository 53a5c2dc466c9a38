"""Objectives of the ideas that were tried: the method, and what the idea adds."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from cmcgns.study.load import load_plan
from support.objectives import random_batch, small_task

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
ideas = importlib.import_module("ideas")

COUNTS, BOUND = (3, 2, 1, 0), 3
CHANGES = {"local": "query_matched", "negatives": "in_batch", "weight_image": 0.0}


@pytest.mark.parametrize("name", ["idea-single", "idea-words", "idea-fixed-words"])
def test_the_term_comes_to_the_method_s_loss_and_trains_the_images(name: str) -> None:
    batch = random_batch(COUNTS, BOUND, distinct=5, size=32)
    plain, task = (small_task(name=each, **CHANGES) for each in ("cm-cgns", name))
    task.load_state_dict(plain.state_dict())
    before, after = plain.eval()(batch, 0)[0], task.eval()(batch, 0)[0]
    torch.testing.assert_close(after["loss"], before["loss"] + after["idea"])
    after["idea"].backward()
    text = any(p.grad is not None and bool(p.grad.any()) for p in task.model.report_encoder.parameters())
    assert text == (name != "idea-fixed-words")
    assert any(p.grad is not None and bool(p.grad.any()) for p in task.model.image_encoder.parameters())


def test_sentences_look_by_their_cosines_alone() -> None:
    objective = small_task(name="idea-cosine", **CHANGES).objective
    patches, query = torch.eye(4, 16)[None], torch.eye(4, 16)[:1]
    weights = objective.reader.weights(patches, query)[0, :, 0]
    torch.testing.assert_close(weights, torch.tensor([5.0, 0, 0, 0]).softmax(0))
    assert objective.lacks_map("patches") == ""


def test_the_study_resolves() -> None:
    plan = load_plan(str(ideas.STUDY))
    assert {job.seed for job in plan.jobs} == {0, 1, 2}
    assert {job.recipe.objective.weight_report for job in plan.jobs} == {1, 2}
