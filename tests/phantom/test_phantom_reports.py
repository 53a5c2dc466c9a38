"""A report must mention every finding and contradict none; most of its sentences are stock ones."""

import re
from collections import Counter

import pytest

from cmcgns.phantom import FINDINGS
from cmcgns.phantom.study import plan_study
from cmcgns.pretrained.prompts import load_prompts

# What a report says when a label is absent, and when it is present, written down apart from the generator.
DENIALS = {
    "Effusion": r"no (focal .*, )?pleural eff|angles are sharp|lungs are (well expanded and )?clear",
    "Pneumothorax": r"no pneumothorax|no [a-z ,]*(or|,) pneumothorax",
    "Consolidation": r"no focal (consolidation|airspace)|lungs are (well expanded and )?clear",
    "Nodule": r"no suspicious pulmonary nodule|lungs are (well expanded and )?clear",
    "Cardiomegaly": r"heart size is normal|heart is not enlarged|silhouette is normal",
    "Edema": r"no pulmonary edema|vasculature is within normal|lungs are (well expanded and )?clear",
    "Foreign Object": r"no radiopaque|no support lines",
}
MENTIONS = {
    "Effusion": r"effusion|pleural fluid",
    "Pneumothorax": r"pneumothorax",
    "Consolidation": r"consolidation|airspace|pneumonia|opacit(y|ies) in the",
    "Nodule": r"nodul",
    "Cardiomegaly": r"cardiomegaly|enlarge",
    "Edema": r"edema",
    "Foreign Object": r"pacemaker|catheter|central line|endotracheal|foreign|\bring\b",
}
ALL_CLEAR = r"no acute cardiopulmonary|normal chest|no evidence of acute|no radiographic evidence"
NEGATIVE = re.compile(r"^(there is )?no |not enlarged|within normal|is normal|sharp|clear", re.IGNORECASE)
HEDGE = r"possible|may represent|cannot be excluded"


def sentences(plan):
    text = f"{plan.findings_text} {plan.impression}"
    return re.split(r"(?<=\.)\s+(?=[A-Z0-9])", text)


@pytest.fixture(scope="module")
def plans():
    return [plan_study(21, index) for index in range(2000)]


def present(plan):
    return {finding.label for finding in plan.findings}


@pytest.mark.parametrize("label", FINDINGS)
def test_no_sentence_denies_a_present_finding(plans, label):
    texts = [(label in present(plan), f"{plan.findings_text} {plan.impression}".lower()) for plan in plans]
    assert not [text for here, text in texts if here and re.search(DENIALS[label], text)]
    assert sum(bool(re.search(DENIALS[label], text)) for _, text in texts) > 100


@pytest.mark.parametrize("label", FINDINGS)
def test_a_finding_is_affirmed_if_and_only_if_present(plans, label):
    for plan in plans:
        affirmed = [
            line for line in sentences(plan) if not NEGATIVE.search(line) and re.search(MENTIONS[label], line.lower())
        ]
        if label == "Consolidation":  # the word opacity serves other findings too
            affirmed = [line for line in affirmed if not re.search(r"nodul| cm |edema", line)]
        assert bool(affirmed) == (label in present(plan)), (plan.study_id, affirmed)


def test_only_studies_without_disease_are_called_normal(plans):
    called = 0
    for plan in plans:
        if re.search(ALL_CLEAR, plan.impression.lower()):
            called += 1
            assert present(plan) <= {"Foreign Object"}
        else:
            assert present(plan)
    assert called > 600


def test_the_healthy_side_is_named_rightly(plans):
    found = 0
    lung = {"Effusion", "Pneumothorax", "Consolidation", "Nodule", "Edema"}
    for plan in plans:
        sick = {finding.side for finding in plan.findings if finding.label in lung}
        pattern = r"(left|right) (?:lung is (?:clear|well)|costophrenic angle is sharp)|no (left|right) pleural"
        for match in re.finditer(pattern, plan.findings_text.lower()):
            found += 1
            assert not sick & set(match.groups()), plan.findings_text
    assert found > 50


def test_sides_of_positive_sentences_are_those_of_the_findings(plans):
    found = 0
    for plan in plans:
        for line in sentences(plan):
            if NEGATIVE.search(line) or "aerated" in line:
                continue
            for label in ("Effusion", "Pneumothorax", "Nodule"):
                if re.search(MENTIONS[label], line):
                    truth = {finding.side for finding in plan.findings if finding.label == label}
                    said = set(re.findall(r"\b(left|right)\b", line.lower()))
                    found += len(said)
                    assert said <= truth, line
                    if "bilateral" in line or "both" in line:
                        assert truth == {"left", "right"}
    assert found > 500


def test_doubt_is_worded_as_doubt(plans):
    doubtful = [plan for plan in plans if plan.findings and not any(f.certain for f in plan.findings)]
    sure = [plan for plan in plans if plan.findings and all(f.certain for f in plan.findings)]
    assert len(doubtful) > 50
    assert all(re.search(HEDGE, plan.impression.lower()) for plan in doubtful)
    assert not [plan for plan in sure if re.search(HEDGE, f"{plan.findings_text} {plan.impression}".lower())]
    assert all(f.degree in ("small", "mild") for plan in plans for f in plan.findings if not f.certain)


def test_reports_are_short_and_sentences_end_once(plans):
    for plan in plans:
        lines = sentences(plan)
        assert 3 <= len(lines) <= 9, lines
        for line in lines:
            assert line.endswith(".")
            assert line[0].isupper() or line[0].isdigit()
            assert len(line.split()) < 25
            assert "{" not in line
            assert "none" not in line.lower()


def test_measurements_hold_a_decimal_point_and_the_drawn_diameter(plans):
    measured = 0
    for plan in plans:
        for value in re.findall(r"(\d\.\d) cm", f"{plan.findings_text} {plan.impression}"):
            measured += 1
            assert float(value) == next(f.amount for f in plan.findings if f.label == "Nodule")
    assert measured > 100


def test_most_sentences_are_verbatim_repeats(plans):
    lines = [line for plan in plans[:500] for line in sentences(plan)]
    counts = Counter(lines)
    assert sum(count for count in counts.values() if count > 5) / len(lines) > 0.6
    assert len(counts) > 150


def test_wording_varies():
    reports = {(p.findings_text, p.impression) for p in (plan_study(21, i) for i in range(500))}
    assert len(reports) > 480


def test_prompts_deny_and_affirm_each_label_without_a_side():
    book = load_prompts("phantom")
    assert book.unknown(FINDINGS) == []
    for label in FINDINGS:
        positive, negative = book.of(label).positive, book.of(label).negative
        assert 4 <= len(positive) <= 6
        assert 4 <= len(negative) <= 6
        assert not set(positive) & set(negative)
        assert not re.search(r"left|right", " ".join(positive + negative))
        assert not [text for text in positive if NEGATIVE.search(text)], label
