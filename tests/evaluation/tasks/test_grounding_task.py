"""Phrases, boxes and maps of test images, from pixels to figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import boxes_text
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.tasks import grounding
from cmcgns.evaluation.tasks.grounding import TASK, find_units
from cmcgns.metrics.measure import Measure
from cmcgns.pretrained.prompts import load_prompts
from support.evaluation import figures, job_of, predict, protocol_of
from support.text_tasks import SIDE, Seer, frozen, write_boxed

PROTOCOL = protocol_of("grounding", whole_image=True)
BOXES = [[(2, 3, 12, 8)], [], [(0, 0, 8, 8), (20, 16, 10, 12)], [(12, 4, 6, 20)]]


@pytest.fixture(autouse=True)
def _oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps show the mean gray of patches, so the white boxes; negative prompts see the same turned round."""
    monkeypatch.setattr(Seer, "encode_texts", lambda _, texts: list(texts))

    def maps(_: Any, tokens: torch.Tensor, phrases: list[str], _kind: str) -> torch.Tensor:
        signs = torch.tensor([-1.0 if text.startswith("No ") or "normal" in text else 1.0 for text in phrases])
        return signs[None, :, None] * tokens.mean(2)[:, None]

    monkeypatch.setattr(Seer, "patch_maps", maps, raising=False)


def seer() -> FrozenEncoder:
    return frozen(Seer({}))


def test_an_oracle_points_at_every_box(tmp_path: Path) -> None:
    folder = write_boxed(tmp_path / "d", BOXES)
    predictions = predict(PROTOCOL, folder, seer())
    found = figures(PROTOCOL, predictions)
    assert predictions.rows.tolist() == ["0.png\tEdema", "2.png\tEdema", "3.png\tEdema"]
    assert predictions.patients.tolist() == ["d:0", "d:2", "d:3"]
    for kind in ("similarity", "attention"):
        assert found[Measure(f"pointing_{kind}")] == found[Measure(f"pointing_{kind}", "Edema")] == 1
        assert found[Measure(f"cnr_{kind}")] > 2
        assert found[Measure(f"miou_{kind}")] > 0.6
    assert next(iter(found)) == Measure("pointing_similarity")
    area = [12 * 8 / 1024, (64 + 120) / 1024, 120 / 1024]
    np.testing.assert_allclose(predictions.arrays["pointing_chance"], area)


def test_a_map_turned_round_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Seer.patch_maps
    monkeypatch.setattr(Seer, "patch_maps", lambda *arguments: -plain(*arguments))
    found = figures(PROTOCOL, predict(PROTOCOL, write_boxed(tmp_path / "d", BOXES), seer()))
    assert found[Measure("pointing_similarity")] == 0
    assert found[Measure("cnr_similarity")] < -2
    assert found[Measure("cnr_absolute_similarity")] == pytest.approx(-found[Measure("cnr_similarity")])


def test_a_map_without_contrast_gets_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Seer.patch_maps
    monkeypatch.setattr(Seer, "patch_maps", lambda *arguments: 0 * plain(*arguments) + 0.3)
    found = figures(PROTOCOL, predict(PROTOCOL, write_boxed(tmp_path / "d", BOXES), seer()))
    assert found[Measure("pointing_attention")] == pytest.approx(found[Measure("pointing_chance")])


def test_phrases_do_not_depend_on_each_others_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = predict(PROTOCOL, write_boxed(tmp_path / "a", BOXES), seer())
    monkeypatch.setattr(grounding, "_IMAGES", 1)
    monkeypatch.setattr(grounding, "_PIXELS", 1)
    turned = predict(PROTOCOL, write_boxed(tmp_path / "b", BOXES[::-1]), seer())
    for name, values in together.arrays.items():
        if name != "labels":
            np.testing.assert_allclose(turned.arrays[name], values[::-1], rtol=1e-6)


def test_boxes_beyond_the_crop_are_left_out_and_counted(tmp_path: Path) -> None:
    """Without `whole_image` the encoder sees only the middle of a larger square."""
    folder = write_boxed(tmp_path / "d", [[(0, 0, 2, 2)], [(10, 10, 12, 12)]])
    encoder = frozen(Seer({}), resize=64)  # the picture is doubled, its middle of 32 px is seen
    predictions = predict(protocol_of("grounding"), folder, encoder)
    assert predictions.rows.tolist() == ["1.png\tEdema"]
    assert predictions.facts["phrases_outside_of_the_picture"] == 1
    assert predictions.arrays["pointing_chance"] == pytest.approx(24 * 24 / 1024)
    with pytest.raises(UserError, match="outside of what the encoder sees"):
        predict(protocol_of("grounding"), write_boxed(tmp_path / "e", [[(0, 0, 2, 2)]]), encoder)


def test_contrast_subtracts_what_denies_the_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that both share, such as the place of the lungs, is gone."""
    plain = Seer.patch_maps
    bias = 50 * torch.eye(8).flatten()
    monkeypatch.setattr(Seer, "patch_maps", lambda *arguments: plain(*arguments) + bias)
    folder = write_boxed(tmp_path / "d", BOXES)
    with_contrast = figures(PROTOCOL, predict(PROTOCOL, folder, seer()))
    without = protocol_of("grounding", {"contrast": False}, whole_image=True)
    assert with_contrast[Measure("pointing_similarity")] == 1
    assert figures(without, predict(without, folder, seer()))[Measure("pointing_similarity")] < 1


def test_attention_that_nothing_trained_is_not_reported(tmp_path: Path) -> None:
    encoder = seer()
    encoder.pretrained.recipe.objective.weight_report = 0  # type: ignore[union-attr]
    predictions = predict(PROTOCOL, write_boxed(tmp_path / "d", BOXES), encoder)
    assert not any("attention" in name for name in predictions.arrays)
    assert "weight_report 0" in predictions.facts["attention"]


def test_a_run_without_the_similarity_is_judged_by_its_other_maps(tmp_path: Path) -> None:
    encoder = seer()
    encoder.pretrained.recipe.objective.weight_global = 0  # type: ignore[union-attr]
    encoder.run.map = "attention"  # type: ignore[misc, assignment]
    predictions = predict(PROTOCOL, write_boxed(tmp_path / "d", BOXES), encoder)
    assert not any("similarity" in name for name in predictions.arrays)
    assert "weight_global 0" in predictions.facts["similarity"]
    found = figures(PROTOCOL, predictions)
    assert found[Measure("pointing_default")] == found[Measure("pointing_attention")] == 1
    assert TASK.lacks(TaskData(PROTOCOL, tmp_path / "d", SIDE, SIDE), encoder) == ""


@pytest.mark.parametrize("kind", ["pooled", "patches", "attention"])
def test_the_default_map_is_the_one_that_validation_chose(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind sees the boxes in another light, so figures tell which one was asked."""
    plain, lights = Seer.patch_maps, {"pooled": 1.0, "patches": -1.0, "attention": 0.0}
    monkeypatch.setattr(Seer, "patch_maps", lambda *asked: plain(*asked) * lights[asked[3]])
    encoder = seer()
    encoder.run.map = kind  # type: ignore[misc, assignment]
    predictions = predict(PROTOCOL, write_boxed(tmp_path / "d", BOXES), encoder)
    found = figures(PROTOCOL, predictions)
    expected = {"pooled": 1.0, "patches": 0.0, "attention": pytest.approx(found[Measure("pointing_chance")])}[kind]
    assert found[Measure("pointing_default")] == found[Measure("pointing_default", "Edema")] == expected
    assert np.sign(found[Measure("cnr_default")]) == lights[kind]
    assert found[Measure("pointing_similarity")] == 1
    assert predictions.facts["default_map"] == kind


SENTENCES = (
    "There is left pleural effusion. No right pleural effusion. Bilateral pleural effusions. The heart is normal."
)


def sided(*extra: dict[str, Any]) -> str:
    marks: list[dict[str, object]] = [
        {"label": "Effusion", "side": "left", "x": 18, "y": 20, "width": 8, "height": 8},
        {"label": "Effusion", "side": "right", "x": 4, "y": 20, "width": 8, "height": 8},
        {"label": "Cardiomegaly", "x": 8, "y": 12, "width": 14, "height": 10},
        *extra,
    ]
    return boxes_text(marks)


def units_of(tmp_path: Path, kind: Any, boxes: str, text: str) -> Any:
    folder = write_boxed(tmp_path / "d", [[]], boxes=boxes, report=text)
    data = TaskData(PROTOCOL, folder, SIDE, SIDE)
    return find_units(data.test, kind, load_prompts(), [text], SIDE)


def test_report_sentences_that_state_a_label_speak_of_the_boxes_on_their_side(tmp_path: Path) -> None:
    units, unsaid = units_of(tmp_path, "sentence", sided(), SENTENCES)
    found = [(unit.label, unit.phrases[0], unit.boxes[:, 0].tolist()) for unit in units]
    assert found == [
        ("Effusion", "There is left pleural effusion.", [18]),
        ("Effusion", "Bilateral pleural effusions.", [18, 4]),
    ]
    assert unsaid == {"Cardiomegaly": 1}


def test_boxes_that_carry_their_own_words_are_taken_at_them(tmp_path: Path) -> None:
    extra = {"label": "Nodule", "phrase": "small nodule", "x": 1, "y": 1, "width": 2, "height": 2}
    units, _ = units_of(tmp_path, "sentence", sided(extra), "There is a nodule.")
    assert [(unit.label, unit.phrases) for unit in units] == [("Nodule", ("small nodule",))]


def test_labels_speak_of_all_their_boxes(tmp_path: Path) -> None:
    units, unsaid = units_of(tmp_path, "label", sided(), SENTENCES)
    assert [(unit.label, len(unit.boxes)) for unit in units] == [("Effusion", 2), ("Cardiomegaly", 1)]
    assert units[0].phrases == load_prompts().of("Effusion").positive
    assert unsaid == {}


def test_rows_of_sentences_are_unlike_each_other(tmp_path: Path) -> None:
    folder = write_boxed(tmp_path / "d", [[]], boxes=sided(), report=SENTENCES)
    predictions = predict(protocol_of("grounding", {"phrases": "sentence"}, whole_image=True), folder, seer())
    assert [row.split("\t")[0] for row in predictions.rows] == ["0.png", "0.png"]


def test_images_that_nobody_annotated_are_no_phrase(tmp_path: Path) -> None:
    folder = write_boxed(tmp_path / "d", BOXES[:1] * 2, boxes=[sided(), ""])
    assert len(predict(PROTOCOL, folder, seer()).rows) == 2


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    boxed = TaskData(PROTOCOL, write_boxed(tmp_path / "d", BOXES), SIDE, SIDE)
    assert "no report encoder" in TASK.lacks(boxed, frozen(None))
    empty = TaskData(PROTOCOL, write_boxed(tmp_path / "e", [[], []]), SIDE, SIDE)
    assert TASK.lacks(empty, seer()) == "no image of test has a box"
    local = seer()
    for weight in ("weight_global", "weight_report"):
        setattr(local.pretrained.recipe.objective, weight, 0)  # type: ignore[union-attr]
    assert "nothing trained a map" in TASK.lacks(boxed, local)
    job = job_of(protocol_of("grounding", {"phrases": "sentence"}, whole_image=True), boxed.folder, seer())
    (_, predictions), = TASK.run(job)  # fmt: skip
    assert len(predictions.rows) == 3
    silent = write_boxed(tmp_path / "f", BOXES, report="Unchanged.")
    with pytest.raises(UserError, match="no report sentence states"):
        predict(protocol_of("grounding", {"phrases": "sentence"}, whole_image=True), silent, seer())
