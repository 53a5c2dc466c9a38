"""Pictures drawn from the codes of reports: what a code becomes, and what is left out."""

import csv
import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.phantom.dataset import write_hard_studies
from cmcgns.phantom.hard import HARD_FINDINGS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
coded_studies, real_language = (importlib.import_module(name) for name in ("coded_studies", "real_language"))

TABLE = {
    "findings": {
        "Spot": {"label": "Nodule", "needs": "lung"},
        "Water": {"label": "Effusion", "also": ["old"]},
        "Plate": {"label": "Atelectasis"},
        "Heart": {"label": "Cardiomegaly"},
    },
    "sides": {"right": ["right"], "left": ["left"], "bilateral": ["right", "left"]},
    "places": {"top": "upper zone", "bottom": "lower zone"},
    "grades": {"faint": 0, "strong": 1},
    "silent": ["lung", "round"],
}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("Spot/lung/top/left/round/faint", coded_studies.CodedFinding("Nodule", ("left",), "upper zone", 0)),
        ("Spot/lung", coded_studies.CodedFinding("Nodule", (), "", None)),
        ("Water/bilateral/strong/old", coded_studies.CodedFinding("Effusion", ("right", "left"), "", 1)),
        ("Heart", coded_studies.CodedFinding("Cardiomegaly", (), "", None)),
        ("Plate/bottom/right", coded_studies.CodedFinding("Atelectasis", ("right",), "lower zone", None)),
        ("Plate/top/right", None),  # drawn at the base alone
        ("Spot/top/left", None),  # not said to be in a lung
        ("Spot/lung/skin", None),
        ("Spot/lung/old", None),  # a word of another finding
        ("Spot/lung/top/bottom", None),
        ("Bone/left", None),
    ],
)
def test_a_code_is_read_or_left_to_the_text(code, found):
    report = coded_studies.read_codes(code, TABLE)
    assert report.findings == ((found,) if found else ())
    assert report.other == (() if found else (code,))


def test_a_report_is_covered_if_it_is_normal_or_shows_something():
    assert coded_studies.read_codes("normal", TABLE).covered
    assert coded_studies.read_codes("Bone; Water/left", TABLE).covered
    assert not coded_studies.read_codes("Bone", TABLE).covered
    assert not coded_studies.read_codes("normal; Bone", TABLE).covered
    assert not coded_studies.read_codes("", TABLE).covered


def test_findings_are_where_their_codes_say():
    report = coded_studies.read_codes(
        "Spot/lung/top/left/strong; Spot/lung/top/left; Water/bilateral; Heart/faint", TABLE
    )
    for seed in range(30):
        plans = list(coded_studies.draw_coded_findings(np.random.default_rng(seed), report.findings))
        found = sorted((plan.label, plan.side, plan.place) for plan in plans)
        assert found == [
            ("Cardiomegaly", "none", "heart"),
            ("Effusion", "left", "base"),
            ("Effusion", "right", "base"),
            ("Nodule", "left", "upper zone"),
        ]
        assert next(plan.degree for plan in plans if plan.label == "Cardiomegaly") == "mild"


def test_what_a_code_leaves_open_is_drawn_from_all_places():
    report = coded_studies.read_codes("Spot/lung", TABLE)
    places = {
        (plan.side, plan.place)
        for seed in range(200)
        for plan in coded_studies.draw_coded_findings(np.random.default_rng(seed), report.findings)
    }
    assert len(places) == 6


def test_an_enlarged_heart_hides_no_coded_finding():
    report = coded_studies.read_codes("Heart/strong; Spot/lung/bottom/left; Plate/bottom/left", TABLE)
    for index in range(60):
        study = coded_studies.make_coded_study(0, index, "a", ("Text.", ""), report, 128)
        assert len(study.findings) == 3
        for finding in study.findings:
            if finding.label != "Cardiomegaly":
                assert 2 <= finding.box[2] <= 40, finding


def test_written_studies_have_the_reports_own_text(tmp_path):
    report = coded_studies.read_codes("Water/left", TABLE)
    studies = [
        coded_studies.make_coded_study(0, i, f"CXR{i}", (f"Real {i}.", "Left effusion."), report, 64)
        for i in range(3)
    ]
    rows = pd.read_parquet(write_hard_studies(tmp_path, zip(studies, ("train", "val", "test"), strict=True)))
    assert rows["study_id"].tolist() == [f"phantom:coded-CXR{i}" for i in range(3)]
    assert rows["patient_id"].is_unique
    assert rows["findings"].tolist() == ["Real 0.", "Real 1.", "Real 2."]
    assert (rows["label_Effusion"] == 1).all()
    assert rows[[f"label_{label}" for label in HARD_FINDINGS]].to_numpy().sum() == 3
    assert all((tmp_path / path).is_file() for path in rows["finding_layer_path"])
    with pytest.raises(UserError, match="exists already"):
        write_hard_studies(tmp_path, [])


def test_every_label_of_the_table_is_one_of_the_level():
    table = coded_studies.code_table()
    assert {kind["label"] for kind in table["findings"].values()} == set(HARD_FINDINGS)
    assert set(table["places"].values()) == {"upper zone", "mid zone", "lower zone"}
    assert coded_studies.read_codes("Hernia, Hiatal/large; Opacity/lung/base/left", table).other == ()
    assert coded_studies.read_codes("Opacity/lung/interstitial; Calcinosis/aorta", table).findings == ()


def test_the_script_writes_covered_reports_and_says_what_is_not(tmp_path, monkeypatch, capsys):
    with (tmp_path / "reports.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("uid", "findings", "impression", "mesh_major"))
        writer.writerows([(i, "Lungs XXXX clear.", "", "normal") for i in range(10)])
        writer.writerow((10, "Aorta.", "Old aorta.", "Aorta/tortuous"))
        writer.writerow((11, "", "", "Cardiomegaly"))
        writer.writerow((12, "Heart.", "", "Cardiomegaly; Aorta"))
    words = ["real_language.py", str(tmp_path / "reports.csv"), "--out", str(tmp_path / "data"), "--size", "64"]
    monkeypatch.setattr(sys, "argv", words)
    real_language.main()
    told = capsys.readouterr().out
    assert "11 of 13 reports are covered (84.6%); 10 of them are normal" in told
    assert "codes that are not drawn: Aorta 2" in told
    rows = pd.read_parquet(tmp_path / "data" / "manifest.parquet")
    assert len(rows) == 11
    assert set(rows["findings"]) == {"Lungs clear.", "Heart."}
    assert set(rows["split"]) <= {"train", "val", "test"}


@pytest.mark.slow
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="needs CMCGNS_DEV_DATA")
def test_two_in_three_real_reports_are_covered():
    path = Path(os.environ["CMCGNS_DEV_DATA"]) / "iu_reports" / "iu_reports.csv"
    if not path.is_file():
        pytest.skip("iu_reports is not there")
    reports = real_language.read_texts(path)
    coded = [coded_studies.read_codes(codes, coded_studies.code_table()) for codes in reports["mesh"]]
    shown = [
        real_language.covered(row, report) for row, report in zip(reports.to_dict("records"), coded, strict=True)
    ]
    assert 0.6 < np.mean(shown) < 0.75
    assert {finding.label for report in coded for finding in report.findings} == set(HARD_FINDINGS)
