"""Validation logs the quality of clusters on synthetic studies, whose sentences are known, and on no others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmcgns.data.reports.text import normalise_sentence, text_number
from cmcgns.metrics.cluster_quality import cluster_quality
from cmcgns.phantom import sentence_truth
from cmcgns.training import cluster_log
from cmcgns.training.cluster_log import ClusterLog, KnownSentences
from cmcgns.training.data import PreparedData, prepare_data
from cmcgns.training.journal import read_metrics
from cmcgns.training.step import validate
from cmcgns.training.task import PretrainingTask, build_task
from support.training import BATCH, VALIDATION, first_batch, run, tiny_recipe

FIGURES = {
    "cluster_same_finding", "cluster_contradict", "false_negative_precision", "false_negative_recall",
    "false_negative_contradict", "hard_negative_precision", "hard_negative_recall",
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(studies: Path) -> PreparedData:
    return prepare_data(tiny_recipe(), studies)


@pytest.fixture(scope="module")
def known(prepared: PreparedData) -> KnownSentences:
    found = KnownSentences.of(prepared.pairs.frame["text"].iloc[prepared.validation.rows], sentence_truth)
    assert found is not None
    return found


def started(prepared: PreparedData, **changes: object) -> PretrainingTask:
    torch.manual_seed(0)
    task = build_task(tiny_recipe(**changes), len(prepared.tokenizer)).train()
    batch = first_batch(prepared.train, list(range(BATCH)))
    for _ in range(5):
        task(batch)
    assert task.objective.is_started
    return task


@pytest.mark.parametrize(
    "form",
    [
        {"local": "own_query", "rarity": 0.0, "weight_matching": 0.0, "bank__source": "cross_modal"},
        {"local": "query_matched"},
    ],
    ids=["own_query", "query_matched"],
)
def test_figures_are_those_of_all_sentences_in_one_batch(
    form: dict[str, object], prepared: PreparedData, known: KnownSentences
) -> None:
    task = started(prepared, **{f"objective__{name}": value for name, value in form.items()})
    plain = validate(task, prepared.validation, BATCH, 100, "cpu")
    logged = validate(task, prepared.validation, BATCH, 100, "cpu", known)
    assert {name: logged[name] for name in plain} == plain
    task.eval()
    batch = first_batch(prepared.validation, list(range(VALIDATION)))
    with torch.no_grad():
        clusters = task.objective.clusters_of(task.model(batch), batch)
    assert clusters is not None
    rows = []
    for study, place in batch.sentence_mask.nonzero().tolist():
        text = int((known.numbers == int(batch.sentence_text[study, place])).nonzero()[0][0])
        rows.append((study, text, *(int(each[study, place]) for each in clusters)))
    expected = cluster_quality(known.claims, *np.array(rows).T, VALIDATION)
    assert {name: logged[name] for name in logged.keys() - plain.keys()} == pytest.approx(expected)
    assert expected.keys() <= FIGURES
    assert len(expected) >= 5


def test_the_first_studies_are_enough(
    prepared: PreparedData, known: KnownSentences, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [first_batch(prepared.validation, rows) for rows in ([0, 1, 2, 3], [4, 5, 6, 7])]
    logs = []
    for limit, count in ((6, 2), (100, 2)):
        monkeypatch.setattr(cluster_log, "_STUDIES", limit)
        logs.append(ClusterLog(known))
        for batch in batches[:count]:
            own = batch.sentence_text % 3
            logs[-1].note(batch, (own, (own + 1) % 3))
    first = ClusterLog(known)
    for batch in (batches[0], first_batch(prepared.validation, [4, 5])):
        own = batch.sentence_text % 3
        first.note(batch, (own, (own + 1) % 3))
    assert logs[0].figures() == first.figures() != logs[1].figures()


def test_nothing_is_logged_without_clusters(prepared: PreparedData, known: KnownSentences) -> None:
    task = build_task(tiny_recipe(), len(prepared.tokenizer))  # its bank has not started
    figures = validate(task, prepared.validation, BATCH, 100, "cpu", known)
    assert not figures.keys() & FIGURES


def test_sentences_are_known_all_or_not_at_all() -> None:
    known = KnownSentences.of(
        ["No pleural effusion. Small left  pneumothorax.", "no pleural effusion"], sentence_truth
    )
    assert known is not None
    texts = ("no pleural effusion", "small left pneumothorax")
    assert known.numbers.tolist() == sorted(text_number(normalise_sentence(text)) for text in texts)
    assert KnownSentences.of(["No pleural effusion. The patient is rotated."], sentence_truth) is None
    assert KnownSentences.of([], sentence_truth) is None


def test_a_run_on_synthetic_studies_logs_every_validation_with_a_bank(studies: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(reconstruction__epochs=0)
    plain, judged = (
        read_metrics(run(studies, tmp_path / name, recipe, oracle=oracle) / "metrics.jsonl")
        for name, oracle in (("plain", None), ("judged", sentence_truth))
    )
    assert not any(record.keys() & FIGURES for record in plain)
    validations = [record for record in judged if record["kind"] == "validation"]
    assert all(record.keys() & FIGURES for record in validations if record["bank_started"])
    assert [{k: v for k, v in record.items() if k not in FIGURES} for record in judged] == plain
