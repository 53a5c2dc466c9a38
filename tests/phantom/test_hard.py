"""Hard studies: what they promise of findings, reports, masks and pictures, measured on many."""

import json
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.check.run import run_checks
from cmcgns.common.errors import UserError
from cmcgns.data.manifest import NUMBERS, TEXT
from cmcgns.data.reports.text import split_sentences
from cmcgns.phantom import finding_mask, make_study, sentence_truth, write_dataset
from cmcgns.phantom.hard import HARD_FINDINGS, make_hard_study, plan_hard_study
from cmcgns.phantom.hard.language import HARD_WORDING
from cmcgns.phantom.hard.study import render_hard
from cmcgns.pretrained.prompts import load_prompts

SEED, COUNT = 13, 1500
COUNTS = {"train": 30, "val": 4, "test": 30}


@pytest.fixture(scope="module")
def studies():
    return [make_hard_study(SEED, index, 64) for index in range(COUNT)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("hard") / "data"
    return out, pd.read_parquet(write_dataset(out, COUNTS, seed=4, size=64, level="hard"))


def region(study, finding):
    """The mask of one instance: its label's bit, inside its box."""
    x, y, width, height = map(int, finding.box)
    inside = np.zeros(study.mask.shape, bool)
    inside[y : y + height, x : x + width] = True
    return inside & (study.mask >> HARD_FINDINGS.index(finding.label) & 1).astype(bool)


def said(study):
    truths = [sentence_truth(text) for text in split_sentences(f"{study.findings_text} {study.impression}")]
    return set().union(*({(label, truth.side) for label in truth.stated} for truth in truths))


def test_a_study_depends_on_seed_and_index_only(studies):
    again = make_hard_study(SEED, 40, 64)
    assert np.array_equal(again.image, studies[40].image)
    assert np.array_equal(again.mask, studies[40].mask)
    assert (again.findings_text, again.impression) == (studies[40].findings_text, studies[40].impression)
    assert len({study.image.tobytes() for study in studies}) == COUNT
    assert not np.array_equal(make_hard_study(SEED + 1, 40, 64).image, again.image)


def test_hard_and_plain_studies_share_no_id_and_no_picture(studies):
    plain = make_study(SEED, 40, 64)
    assert plain.study_id != studies[40].study_id
    assert plain.patient_id != studies[40].patient_id
    assert not np.array_equal(plain.image, studies[40].image)


def test_at_least_a_quarter_of_the_findings_is_left_out_by_the_report(studies):
    findings = [finding for study in studies for finding in study.findings]
    assert 0.25 <= np.mean([not finding.stated for finding in findings]) < 0.40
    for label in HARD_FINDINGS:
        assert any(not finding.stated for finding in findings if finding.label == label), label


def test_what_is_stated_is_said_and_what_is_not_stated_is_not(studies):
    for study in studies:
        told = said(study)
        for finding in study.findings:
            sides = {finding.side, "none"} if finding.label == "Edema" else {finding.side}
            assert any((finding.label, side) in told for side in sides) == finding.stated, finding


def test_at_least_half_of_the_findings_cover_less_than_two_per_cent():
    shares: dict[str, list[float]] = {label: [] for label in HARD_FINDINGS}
    for index in range(500):
        study = make_hard_study(SEED, index)
        for finding in study.findings:
            shares[finding.label].append(float(region(study, finding).mean()))
    assert np.mean(np.concatenate(list(shares.values())) < 0.02) > 0.5
    assert np.median(shares["Nodule"]) < 0.004
    assert np.median(shares["Cardiomegaly"]) > 0.05


def test_two_findings_are_rare_and_the_others_are_not(studies):
    prevalence = {label: np.mean([study.labels[label] for study in studies]) for label in HARD_FINDINGS}
    rare = ("Hernia", "Lung Cavity")
    for label, share in prevalence.items():
        assert (0.008 < share < 0.03) if label in rare else (0.05 < share < 0.25), (label, share)
    normal = np.mean([not study.findings for study in studies])
    assert 0.2 < normal < 0.4


def test_test_studies_alone_have_the_wordings_that_are_held_out():
    common = {text for label in HARD_FINDINGS for text in HARD_WORDING[label]["stated"]}
    shown: dict[bool, set[str]] = {}
    for held_out in (False, True):
        plans = [plan_hard_study(SEED, index, held_out=held_out) for index in range(COUNT)]
        reports = (f"{plan.findings_text} {plan.impression}" for plan in plans)
        shown[held_out] = {_template(sentence) for report in reports for sentence in split_sentences(report)}
        assert all(plan.findings == plan_hard_study(SEED, i).findings for i, plan in enumerate(plans[:50]))
    held = {_bare(text) for label in HARD_FINDINGS for text in HARD_WORDING[label]["held_out"]}
    assert not held & shown[False]
    assert len(held & shown[True]) > 25
    assert {_bare(text) for text in common} & shown[True]


def _bare(text):
    """A template without what its fields say."""
    for field in ("{degree}", "{side}", "{place}", "{size}"):
        text = text.replace(field, "*")
    return text.lower().rstrip(".")


def _template(sentence):
    """A sentence as :func:`_bare` gives its template."""
    text = sentence.lower().rstrip(".")
    for zone in ("upper zone", "mid zone", "lower zone"):
        text = text.replace(zone, "*")
    words = ("mild", "moderate", "small", "right", "left")
    return " ".join(_star(word, words) for word in text.split())


def _star(word, words):
    bare = word.rstrip(",")
    if bare.removesuffix("-sided") in words:
        return word.replace(bare.removesuffix("-sided"), "*")
    return "*" + word[len(bare) :] if bare.replace(".", "").isdecimal() else word


def test_near_pairs_of_opposite_polarity_and_side_are_common(studies):
    lines = Counter(text for study in studies for text in split_sentences(study.findings_text))
    for text in ("Small {} pleural effusion.", "No {} pleural effusion."):
        assert all(lines[text.format(side)] >= 3 for side in ("left", "right"))
    mixed = 0
    for study in studies:
        truths = [sentence_truth(text) for text in split_sentences(study.findings_text)]
        stated = set().union(*(truth.stated for truth in truths))
        mixed += bool(stated & set().union(*(truth.denied for truth in truths)))
    assert mixed > 20  # of one finding, one side is stated and the other denied


def test_a_finding_changes_the_image_inside_its_mask():
    changes: dict[str, list[float]] = {label: [] for label in HARD_FINDINGS}
    for index in range(400):
        plan = plan_hard_study(SEED, index)
        for label in {finding.label for finding in plan.findings}:
            if len(changes[label]) == 10:
                continue
            image, mask, _ = render_hard(plan, 128)
            healthy, without, _ = render_hard(plan.without({label}), 128)
            inside = (mask >> HARD_FINDINGS.index(label) & 1).astype(bool)
            assert not (without >> HARD_FINDINGS.index(label) & 1).any()
            change = np.abs(image.astype(float) - healthy)
            changes[label].append(change[inside].mean())
            assert change[~inside].mean() < 2.5
    for label, found in changes.items():
        assert len(found) >= 4, label
        assert np.median(found) > 5, (label, found)


def test_masks_lie_in_their_boxes_and_touch_all_borders(studies):
    for study in studies[:400]:
        for finding in study.findings:
            x, y, width, height = map(int, finding.box)
            assert x >= 0
            assert y >= 0
            assert x + width <= 64
            assert y + height <= 64
            rows, columns = np.nonzero(region(study, finding))
            assert (columns.min(), rows.min()) == (x, y)
            assert (columns.max() + 1, rows.max() + 1) == (x + width, y + height)
            if finding.side != "none":  # the patient's right is on the image's left
                assert x + width / 2 < 40 if finding.side == "right" else x + width / 2 > 24


def test_rows_describe_the_files(written):
    out, table = written
    labels = [f"label_{label}" for label in HARD_FINDINGS]
    assert set(table.columns) == {*TEXT, *NUMBERS, *labels, "finding_layer_path"}
    assert table["split"].value_counts().to_dict() == COUNTS
    assert sorted(path.name for path in out.iterdir()) == ["finding_layers", "images", "manifest.parquet", "masks"]
    for row in table.to_dict("records"):
        study = make_hard_study(4, int(row["study_id"].rsplit("-", 1)[1]), 64, held_out=row["split"] == "test")
        assert (row["findings"], row["impression"]) == (study.findings_text, study.impression)
        assert {label: row[f"label_{label}"] for label in HARD_FINDINGS} == study.labels
        with Image.open(out / row["image_path"]) as image:
            assert np.array_equal(np.asarray(image), study.image)
        boxes = json.loads(row["boxes"])
        assert [(box["label"], box["side"], box["stated"]) for box in boxes] == [
            (finding.label, finding.side, finding.stated) for finding in study.findings
        ]
        if boxes:
            with Image.open(out / row["mask_path"]) as mask:
                assert np.array_equal(np.asarray(mask), np.where(study.mask > 0, 255, 0))
            for number, label in enumerate(HARD_FINDINGS):
                drawn = (study.mask >> number & 1).astype(bool)
                assert np.array_equal(finding_mask(out / row["finding_layer_path"], label), drawn)
                assert drawn.any() == bool(study.labels[label])


def test_workers_do_not_change_a_byte(written, tmp_path):
    out, _ = written
    write_dataset(tmp_path, COUNTS, seed=4, size=64, workers=2, level="hard")
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((out / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_its_own_check_finds_nothing_to_correct(tmp_path):
    write_dataset(tmp_path / "data", {"train": 40, "val": 10, "test": 20}, seed=4, size=64, level="hard")
    assert run_checks([tmp_path / "data"]).exit_code == 0


def test_an_unknown_level_is_refused(tmp_path):
    with pytest.raises(UserError, match="'harder'; there are plain, hard"):
        write_dataset(tmp_path / "new", {"train": 1}, level="harder")
    assert not (tmp_path / "new").exists()


def test_prompts_know_the_findings_and_statements_from_denials():
    book = load_prompts("phantom")
    assert book.unknown(HARD_FINDINGS) == []
    for index in range(COUNT):
        plan = plan_hard_study(SEED, index, held_out=index % 2 == 0)
        for sentence in split_sentences(f"{plan.findings_text} {plan.impression}"):
            truth = sentence_truth(sentence)
            assert {label for label in HARD_FINDINGS if book.states(sentence, label)} == truth.stated, sentence


@pytest.mark.slow
def test_a_core_makes_at_least_forty_studies_a_second():
    make_hard_study(0, 0)
    best = np.inf
    for start in range(0, 150, 30):
        begin = time.thread_time()
        for index in range(start, start + 30):
            make_hard_study(0, index)
        best = min(best, time.thread_time() - begin)
    assert 30 / best > 40
