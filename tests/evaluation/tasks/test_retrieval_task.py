"""Retrieval among test images and their reports."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.reports.text import split_sentences
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.protocols import load_protocol
from cmcgns.evaluation.tasks.retrieval import TASK, right_groups
from cmcgns.metrics.measure import Measure
from cmcgns.pretrained.prompts import load_prompts
from support.evaluation import figures, predict, protocol_of
from support.text_tasks import NAMES, SIDE, Blind, Seer, code_of, frozen, write_labelled

PROTOCOL = protocol_of("retrieval")
CLASSES = protocol_of("retrieval", {"classes": True, "class_ks": [1, 5]})


def reports(n: int) -> list[str]:
    return [f"Report of study {number}." for number in range(n)]


def oracle(labels: np.ndarray, texts: list[str]) -> dict[str, np.ndarray]:
    return {text: code_of(row, labels[row]) for row, text in enumerate(texts)}


def draw(n: int = 60) -> np.ndarray:
    return np.eye(3)[np.arange(n) % 3]


def test_an_oracle_finds_everything(tmp_path: Path) -> None:
    labels, texts = draw(), reports(60)
    folder = write_labelled(tmp_path / "d", labels, report=texts)
    predictions = predict(PROTOCOL, folder, frozen(Seer(oracle(labels, texts))))
    found = figures(PROTOCOL, predictions)
    assert [m.metric for m in found] == [
        f"{d}_r@{k}" for d in ("report_to_image", "image_to_report") for k in (10, 5, 1)
    ]
    assert set(found.values()) == {1.0}
    assert predictions.facts["chance_r"] == pytest.approx({"r@1": 1 / 60, "r@5": 5 / 60, "r@10": 10 / 60})


def test_a_blind_encoder_finds_what_chance_finds(tmp_path: Path) -> None:
    labels, texts = draw(200), reports(200)
    folder = write_labelled(tmp_path / "d", labels, report=texts)
    found = figures(PROTOCOL, predict(PROTOCOL, folder, frozen(Blind(oracle(labels, texts)))))
    assert found[Measure("report_to_image_r@10")] == pytest.approx(0.05, abs=0.05)


def test_permuting_studies_changes_no_figure(tmp_path: Path) -> None:
    labels, texts, order = draw(), reports(60), np.random.default_rng(0).permutation(60)
    wrong = oracle(labels, texts)
    wrong |= {text: wrong[texts[(row + 1) % 60]] for row, text in enumerate(texts) if row % 4}
    hits = {}
    for name, rows in (("a", np.arange(60)), ("b", order)):
        # The picture shows its row, so the look-up follows the picture.
        moved = {texts[row]: wrong[texts[row]] for row in rows}
        codes = {texts[row]: code_of(place, labels[row]) for place, row in enumerate(rows)}
        back = {tuple(code_of(row, labels[row])): codes[texts[row]] for row in rows}
        folder = write_labelled(tmp_path / name, labels[rows], report=[texts[row] for row in rows])
        seer = Seer({text: back[tuple(vector)] for text, vector in moved.items()})
        hits[name] = figures(PROTOCOL, predict(PROTOCOL, folder, frozen(seer)))
    assert hits["a"] == hits["b"]
    assert hits["a"][Measure("image_to_report_r@1")] < 1


def test_the_length_of_embeddings_does_not_matter(tmp_path: Path) -> None:
    class Scaled(Blind):
        def embed_tensors(self, images):  # type: ignore[no-untyped-def]
            return 7 * super().embed_tensors(images)

    labels, texts = draw(), reports(60)
    folder = write_labelled(tmp_path / "d", labels, report=texts)
    plain, scaled = (predict(PROTOCOL, folder, frozen(kind(oracle(labels, texts)))) for kind in (Blind, Scaled))
    for name, hits in plain.arrays.items():
        if not name.endswith("embeddings"):
            np.testing.assert_array_equal(hits, scaled.arrays[name])


def test_equal_reports_and_images_of_one_study_are_right(tmp_path: Path) -> None:
    """Both pairs are swapped on purpose: without the rule nothing would be found first."""
    labels = np.zeros((6, 3))
    texts = ["No change.", "no  change", "Report of study 2.", "Report of study 3.", "Left.", "Right."]
    studies = ["d:0", "d:1", "d:2", "d:2", "d:4", "d:5"]
    swapped = [1, 0, 3, 2, 5, 4]
    seer = Seer({text: code_of(swapped[row], [0, 0, 0]) for row, text in enumerate(texts)})
    folder = write_labelled(tmp_path / "d", labels, report=texts, study_id=studies, patient_id=studies)
    predictions = predict(PROTOCOL, folder, frozen(seer))
    assert predictions.arrays["report_to_image_r@1"].tolist() == [1, 1, 1, 1, 0, 0]
    assert predictions.facts["distinct_answers"] == 4


def test_right_answers_connect_through_studies_and_texts() -> None:
    groups = right_groups(["A b.", "x", "a  B", "y", "y."], ["1", "1", "2", "3", "4"])
    assert len(set(groups[[0, 1, 2]])) == 1
    assert groups[3] == groups[4] != groups[0]


def test_images_without_a_report_take_no_part_and_are_counted(tmp_path: Path) -> None:
    labels, texts = draw(9), reports(9)
    texts[4], texts[5] = "", " ?! "
    predictions = predict(
        PROTOCOL, write_labelled(tmp_path / "d", labels, report=texts), frozen(Seer(oracle(labels, texts)))
    )
    assert len(predictions.rows) == 7
    assert "4.png" not in predictions.rows
    assert predictions.facts["images_without_report"] == 2


def test_sections_or_report_as_the_run_was_trained(tmp_path: Path) -> None:
    labels = draw(4)
    folder = write_labelled(tmp_path / "d", labels, findings=reports(4), impression="Stable.", report="Whole.")
    texts = {f"{text}\n\nStable.": code_of(row, labels[row]) for row, text in enumerate(reports(4))}
    assert set(figures(PROTOCOL, predict(PROTOCOL, folder, frozen(Seer(texts)))).values()) == {1.0}
    whole = predict(
        protocol_of("retrieval", {"text": "report"}), folder, frozen(Seer({"Whole.": code_of(0, [1, 0, 0])}))
    )
    assert whole.facts["distinct_answers"] == 1


def test_a_limit_draws_whole_studies(tmp_path: Path) -> None:
    labels, texts = draw(20), reports(20)
    folder = write_labelled(
        tmp_path / "d", labels, report=texts, study_id=[f"d:{n // 2}" for n in range(20)],
        patient_id=[f"d:{n // 2}" for n in range(20)],
    )  # fmt: skip
    predictions = predict(protocol_of("retrieval", {"limit": 7}), folder, frozen(Seer(oracle(labels, texts))))
    assert len(predictions.rows) == 6
    assert predictions.facts["images_beyond_limit"] == 14
    assert sorted(np.unique(predictions.patients, return_counts=True)[1]) == [2, 2, 2]
    again = predict(protocol_of("retrieval", {"limit": 7}), folder, frozen(Seer(oracle(labels, texts))))
    assert (again.rows == predictions.rows).all()


def test_a_limit_below_the_size_of_a_study_is_refused(tmp_path: Path) -> None:
    labels, texts = draw(6), reports(6)
    owners = [f"d:{n // 3}" for n in range(6)]
    folder = write_labelled(tmp_path / "d", labels, report=texts, study_id=owners, patient_id=owners)
    with pytest.raises(UserError, match=r"settings\.limit=2 .* has 3 images"):
        predict(protocol_of("retrieval", {"limit": 2}), folder, frozen(Seer(oracle(labels, texts))))


def class_texts(texts: list[str], labels: np.ndarray) -> dict[str, np.ndarray]:
    found = {text: np.concatenate([2 * labels[row] - 1, np.zeros(8)]) for row, text in enumerate(texts)}
    for c, name in enumerate(NAMES):
        found |= dict.fromkeys(load_prompts().of(name).positive, np.concatenate([2 * np.eye(3)[c] - 1, np.zeros(8)]))
    return found


def test_precision_by_class(tmp_path: Path) -> None:
    labels, texts = draw(30), reports(30)
    labels[0], labels[1] = [1, 1, 0], [0, 0, 0]
    folder = write_labelled(tmp_path / "d", labels, report=texts)

    class ByClass(Seer):
        def embed_tensors(self, images):  # type: ignore[no-untyped-def]
            return super().embed_tensors(images) * ([1.0] * 3 + [1e-3] * 8)

    predictions = predict(CLASSES, folder, frozen(ByClass(class_texts(texts, labels))))
    found = figures(CLASSES, predictions)
    for search in ("image_to_report", "report_to_image", "image_to_prompt", "image_to_image"):
        assert found[Measure(f"{search}_p@5")] == pytest.approx(1)
        assert np.isnan(predictions.arrays[f"{search}_p@1"][:2]).all()
    assert predictions.facts["images_without_single_class"] == 2
    only = np.zeros(30)
    only[:2] = 1
    assert np.isnan(figures(CLASSES, predictions, only)[Measure("image_to_report_p@1")])


def test_without_reports_images_find_prompts_and_each_other(tmp_path: Path) -> None:
    labels = draw(12)
    predictions = predict(CLASSES, write_labelled(tmp_path / "d", labels), frozen(Seer(class_texts([], labels))))
    assert predictions.arrays["image_embeddings"].shape[0] == 12
    hits = [name.rpartition("_")[0] for name in predictions.arrays if not name.endswith("embeddings")]
    assert set(hits) == {"image_to_prompt", "image_to_image"}
    assert predictions.facts["chance_p"]["image_to_image"] == pytest.approx(3 / 11)


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "d", draw(6))
    assert TASK.lacks(TaskData(PROTOCOL, folder, SIDE, SIDE), frozen(Seer({}))) == "no image of test has a report"
    assert "no report encoder" in TASK.lacks(TaskData(PROTOCOL, folder, SIDE, SIDE), frozen(None))
    lonely = write_labelled(tmp_path / "e", np.eye(3), report=reports(3))
    with pytest.raises(UserError, match="two images a class"):
        predict(CLASSES, lonely, frozen(Seer(class_texts(reports(3), np.eye(3)))))
    assert split_sentences(reports(1)[0])


@pytest.mark.parametrize("by", ["global", "local"])
def test_each_direction_has_its_name(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report 1 is nearest to image 0, and yet image 1 finds no nearer report than it."""
    labels, texts = np.zeros((6, 3)), reports(6)
    codes = oracle(labels, texts)
    codes[texts[1]] = codes[texts[0]] + 0.1 * codes[texts[1]]
    table = np.eye(6, dtype=np.float32) * 3
    table[:2, 1] = 2, 1
    monkeypatch.setattr(Seer, "report_scores", lambda *_: table, raising=False)
    monkeypatch.setattr(Seer, "lacks", lambda *_: "")
    folder = write_labelled(tmp_path / "d", labels, report=texts)
    predictions = predict(protocol_of("retrieval", {"by": by}), folder, frozen(Seer(codes)))
    assert predictions.arrays["report_to_image_r@1"].tolist() == [1, 0, 1, 1, 1, 1]
    assert predictions.arrays["image_to_report_r@1"].tolist() == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("by", ["local", "sum"])
def test_retrieval_by_another_score(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that see their own report: the hits are theirs, not those of the blind embeddings."""
    labels, texts = draw(20), reports(20)
    asked: list[str] = []

    def scores(_: object, batches: Iterable[torch.Tensor], said: list[str], how: str) -> np.ndarray:
        asked.append(how)
        assert sum(len(batch) for batch in batches) == 20
        assert said == texts
        return np.eye(20, dtype=np.float32)[:, ::-1] * 9 if how == "local" else np.eye(20, dtype=np.float32) * 9

    monkeypatch.setattr(Seer, "report_scores", scores, raising=False)
    encoder = frozen(Blind(oracle(labels, texts)))
    monkeypatch.setattr(Seer, "lacks", lambda *_: "")
    protocol = protocol_of("retrieval", {"by": by})
    predictions = predict(protocol, write_labelled(tmp_path / "d", labels, report=texts), encoder)
    found = figures(protocol, predictions)
    assert (asked, predictions.facts["by"]) == ([by], by)
    assert found[Measure("report_to_image_r@1")] == found[Measure("image_to_report_r@1")] == (by == "sum")


def test_a_score_that_a_run_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seer, "lacks", lambda _, by: "" if by == "global" else f"no score by {by}")
    folder = write_labelled(tmp_path / "d", draw(6), report=reports(6))
    data = TaskData(protocol_of("retrieval", {"by": "sum"}), folder, SIDE, SIDE)
    assert TASK.lacks(data, frozen(Seer({}))) == "oracle: no score by sum"
    assert load_protocol("retrieval/v1").task_settings.by == "global"  # type: ignore[attr-defined]
