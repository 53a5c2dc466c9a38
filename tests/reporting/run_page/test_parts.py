"""What the pictures are computed from."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cmcgns.demo import summarise_judgements
from cmcgns.evaluation.compare import Comparison
from cmcgns.evaluation.study_set import StudySet
from cmcgns.pretrained.prompts import load_prompts
from cmcgns.reporting import style
from cmcgns.reporting.clusters.bank import bank_start
from cmcgns.reporting.evaluation.notices import Records
from cmcgns.reporting.run_page.examples import _find
from cmcgns.reporting.run_page.heat_maps import _findings
from cmcgns.reporting.run_page.results import MEASURES, duration, interval, is_clear, number
from cmcgns.reporting.run_page.studies import EncodedStudies, _boxes_of_row
from cmcgns.reporting.run_page.training import PANELS, draw_panel, stage_change
from cmcgns.reporting.style import Box, new_figure, save_picture, wrap
from cmcgns.settings.config import DataSettings
from support.result_rows import make_rows


def box(label: str, side: str = "none", degree: str = "small") -> Box:
    return Box(0.25, 0.5, 0.75, 1.0, label, side, degree)


def _named(sentence: str, label: str, boxes: list[Box], dataset: str = "phantom") -> tuple[Box, ...]:
    """Boxes of the label that the sentence states."""
    frame = pd.DataFrame({"dataset": [dataset]})
    studies = SimpleNamespace(
        boxes=[boxes], sentences=[[sentence]], book=load_prompts("phantom" if synthetic(frame) else "built-in")
    )
    found = EncodedStudies.statements.func(studies)  # type: ignore[arg-type]
    return next((statement.boxes for statement in found if statement.label == label), ())


def synthetic(frame: pd.DataFrame) -> bool:
    return StudySet(Path(), frame, SimpleNamespace()).is_synthetic  # type: ignore[arg-type]


def test_a_mixed_table_is_not_called_synthetic() -> None:
    for names, expected in (
        (["phantom", "phantom"], True),
        (["phantom", "mine"], False),
        (["mine", "phantom"], False),
    ):
        assert synthetic(pd.DataFrame({"dataset": names})) == expected


@pytest.mark.parametrize(
    ("sentence", "label", "expected"),
    [
        ("There is a small left pleural effusion.", "Effusion", ["left"]),
        ("Small bilateral pleural effusions.", "Effusion", ["left", "right"]),
        ("A small right pleural effusion cannot be excluded.", "Effusion", ["right"]),
        ("No pleural effusion.", "Effusion", []),
        ("The right costophrenic angle is sharp.", "Effusion", []),
        ("Large right pneumothorax.", "Effusion", []),
    ],
)
def test_sentence_names_the_boxes_of_its_side(sentence: str, label: str, expected: list[str]) -> None:
    boxes = [box("Effusion", "left"), box("Effusion", "right"), box("Nodule", "left")]
    assert [found.side for found in _named(sentence, label, boxes)] == expected


def test_retrocardiac_consolidation_is_no_cardiomegaly() -> None:
    boxes = [box("Cardiomegaly"), box("Consolidation", "left")]
    sentence = "Moderate consolidation in the left retrocardiac region."
    assert _named(sentence, "Cardiomegaly", boxes) == ()
    assert _named(sentence, "Consolidation", boxes) == (boxes[1],)


def test_findings_of_real_studies_are_known_by_the_names_of_their_datasets() -> None:
    (found,) = _named("Small left effusion.", "Pleural Effusion", [box("Pleural Effusion", "left")], "vindr")
    assert found.side == "left"


def test_unknown_label_is_looked_for_by_its_name() -> None:
    assert _named("Hilar fibrosis is present.", "Fibrosis", [box("Fibrosis")])


@pytest.mark.parametrize(
    "cells",
    [
        pd.array([1, 0, None], dtype="Int8"),  # of a prepared table
        ["1", "0", ""],  # of a csv table, all of whose cells are text
        ["1.0", "x", None],
        [1.0, -1.0, float("nan")],
    ],
    ids=lambda cells: str(list(cells)),
)
def test_labels_are_read_whatever_their_type(cells: object) -> None:
    frame = pd.DataFrame({"dataset": ["table"] * 3, "label_Mass": cells})
    studies = SimpleNamespace(boxes=[[], [box("Mass")], []], sentences=[[], [], []], frame=frame, book=load_prompts())
    assert [_findings(studies, row, ["Mass", "Fibrosis"]) for row in range(3)] == [{"Mass"}, {"Mass"}, set()]


def test_boxes_follow_resize_padding_and_crop() -> None:
    data = DataSettings(image_size=64, resize=72)
    text = '[{"x": 0, "y": 0, "width": 200, "height": 50, "label": "Nodule", "side": "none", "degree": "mild"}]'
    (found,) = _boxes_of_row(text, 200, 100, "row 1", data)  # scaled by 0.36: 72 wide, 36 high, 18 px of black above
    assert (found.x0, found.x1) == (0, 1)
    assert found.y0 == pytest.approx((18 - 4) / 64)
    assert found.y1 == pytest.approx((18 + 18 - 4) / 64)
    assert found.details == "mild"
    assert _boxes_of_row("[]", 200, 100, "row 1", data) == []
    assert _boxes_of_row(float("nan"), 200, 100, "row 1", data) == []


def test_stage_change_and_bank_start_come_from_the_log() -> None:
    records = [
        {"kind": "event", "stage": "alignment", "step": 4, "message": "the cluster bank started"},
        {"kind": "validation", "stage": "alignment", "epoch": 1, "step": 9},
        {"kind": "validation", "stage": "reconstruction", "epoch": 1, "step": 12},
    ]
    assert (bank_start(records), stage_change(records)) == (4, 9)
    assert (bank_start(records[1:]), stage_change(records[:2])) == (None, None)


@pytest.mark.parametrize(("key", "marks"), [("loss", [50, 100]), ("reconstruction", [100])])
def test_panels_mark_only_the_steps_that_they_show(key: str, marks: list[int]) -> None:
    """A curve that begins in Stage II is not squeezed to the side by a mark of Stage I."""
    records: list[dict[str, object]] = [
        {"kind": "event", "stage": "alignment", "step": 50, "message": "the cluster bank started"},
        *({"kind": "train", "stage": "alignment", "step": step, "loss": 1.0} for step in range(5, 101, 5)),
        {"kind": "validation", "stage": "alignment", "step": 100, "loss": 1.0},
        *(
            {"kind": "train", "stage": "reconstruction", "step": step, "loss": 1.0, "reconstruction": 0.5}
            for step in range(101, 201)
        ),
        {"kind": "validation", "stage": "reconstruction", "step": 200, "loss": 1.0, "reconstruction": 0.5},
    ]
    axes = new_figure(4, 3).add_subplot()
    (panel,) = (panel for panel in PANELS if panel.curves[0][0] == key)
    draw_panel(axes, panel, records)
    vertical = {int(line.get_xdata()[0]) for line in axes.lines if len(set(line.get_xdata())) == 1}  # type: ignore[index, call-overload]
    assert vertical & {50, 100} == set(marks)
    first, last = axes.get_xlim()
    assert last - first < 1.2 * (195 if key == "loss" else 99)


def test_equal_reports_are_one_answer_at_the_place_of_their_best() -> None:
    closeness = torch.tensor([[0.9], [0.8], [0.1], [0.5]])
    reports = torch.tensor([ord(one) for one in "ABAC"])
    studies = SimpleNamespace(image=torch.ones(4, 1), report=closeness, report_text=reports)
    found = _find(studies, 1, by_report=False, shown=3)  # type: ignore[arg-type]
    assert found.best == [0, 1, 3]
    assert (found.right, found.rank) == ([False, True, False], 2)


def test_an_image_by_url_is_shown() -> None:
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8), 200, dtype=np.uint8)).save(content, "PNG")
    fsspec.filesystem("memory").pipe("pictures/a.png", content.getvalue())
    frame = pd.DataFrame({"image_path": ["memory://pictures/a.png"]})
    studies = SimpleNamespace(frame=frame, dataset=SimpleNamespace(settings=DataSettings(image_size=32, resize=32)))
    assert EncodedStudies.fine_pixels(studies, 0).mean() == pytest.approx(200 / 127.5 - 1, abs=0.02)  # type: ignore[arg-type]


def test_every_curve_has_a_colour_of_the_style() -> None:
    assert all(getattr(style, colour).startswith("#") for panel in PANELS for _, _, colour in panel.curves)


def test_numbers_become_text() -> None:
    values = {"value": -0.01, "low": -0.02, "high": 0.005}
    assert interval(values, signed=True) == "−0.010 (−0.020 to +0.005)"
    nearly = {"value": -0.0001, "low": -0.0004, "high": 0.0004}  # no sign before what rounds to nothing
    assert interval(nearly) == interval(nearly, signed=True) == "0.000 (0.000 to 0.000)"
    assert interval(None) == number(None) == number(float("nan")) == "–"
    assert interval({"value": 0.8, "low": 0.75, "high": 0.9}, 4) == "0.8000 (0.7500 to 0.9000)"
    for none in (None, float("nan")):  # which results of an earlier version may hold
        assert interval({"value": 0.8, "low": none, "high": none}) == "0.800"
        assert interval({"value": none, "low": none, "high": none}) == "–"
        assert not is_clear({"value": 0.8, "low": none, "high": none})
    assert not is_clear(values)
    assert not is_clear(None)
    assert is_clear(values | {"high": -0.001})
    assert (duration(4.2), duration(212)) == ("4 s", "3 min 32 s")
    assert wrap("one two three four", 8, 2) == "one two\nthree …"


def test_equal_figures_give_equal_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    first, second = (save_picture(new_figure(1, 1), tmp_path / name / "a.png") for name in "xy")
    assert first.read_bytes() == second.read_bytes()


def test_what_guessing_gets_is_that_of_the_evaluations_report() -> None:
    retrieval = next(row for row in make_rows() if row.metric == "report_to_image_r@10" and row.seed is None)
    place = replace(retrieval, protocol="phantom-grounding/v1", task="grounding")
    rows = [
        retrieval,
        replace(retrieval, protocol="linear/v1", task="linear", metric="auroc", fraction=10.0),
        replace(place, metric="cnr_default"),
        replace(place, metric="pointing_default"),
        replace(place, metric="pointing_chance", value=0.125),
    ]
    kept = Records(facts={retrieval.protocol: {"chance_r": {"r@10": 0.02}}})
    chance = summarise_judgements(rows, rows, Comparison("a", "b", (), ()), kept)["chance"]
    known = {"linear_auroc": 0.5, "report_to_image_r10": 0.02, "grounding_cnr": 0.0, "grounding_pointing": 0.125}
    assert chance == dict.fromkeys(measure.key for measure in MEASURES) | known
