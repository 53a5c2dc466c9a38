"""What a sentence says is known of every sentence that either level writes, and agrees with the study's labels."""

import pytest

from cmcgns.data.reports.text import split_sentences
from cmcgns.phantom import sentence_truth
from cmcgns.phantom.hard import plan_hard_study
from cmcgns.phantom.hard.findings import HARD_FINDINGS
from cmcgns.phantom.hard.language import HARD_WORDING
from cmcgns.phantom.study import plan_study
from cmcgns.phantom.truth import _templates

LEVELS = {
    "plain": lambda index: plan_study(21, index),
    "hard": lambda index: plan_hard_study(21, index),
    "hard, test split": lambda index: plan_hard_study(21, index, held_out=True),
}


def sentences(plan):
    return [*split_sentences(plan.findings_text), *split_sentences(plan.impression)]


@pytest.mark.parametrize("level", LEVELS)
def test_every_sentence_is_known_and_true_of_its_study(level):
    stated = denied = sided = 0
    for index in range(3000):
        plan = LEVELS[level](index)
        here = {(finding.label, finding.side) for finding in plan.findings}
        labels = {label for label, _ in here}
        for sentence in sentences(plan):
            truth = sentence_truth(sentence)
            assert truth is not None, sentence
            assert truth.stated <= labels, sentence
            sides = {"both": ["right", "left"], "none": []}.get(truth.side, [truth.side])
            assert all((label, side) in here for label in truth.stated for side in sides), sentence
            if sides:
                assert not any((label, side) in here for label in truth.denied for side in sides), sentence
            else:
                assert not truth.denied & labels, sentence
            stated += bool(truth.stated)
            denied += bool(truth.denied)
            sided += bool(sides)
    assert min(stated, denied, sided) > 500


def test_a_plain_report_states_all_findings():
    for index in range(500):
        plan = plan_study(21, index)
        said = set().union(*(sentence_truth(sentence).stated for sentence in sentences(plan)))
        assert said == {finding.label for finding in plan.findings}


def test_templates_that_fit_one_sentence_say_the_same():
    found = {sentence for level in LEVELS.values() for index in range(400) for sentence in sentences(level(index))}
    for sentence in found:
        text = sentence.lower().rstrip(".")
        truths = {truth for pattern, truth in _templates() if pattern.fullmatch(text)}
        assert len({(truth.stated, truth.denied) for truth in truths}) == 1, (sentence, truths)


@pytest.mark.parametrize(
    ("sentence", "truth"),
    [
        ("Small left pleural effusion.", ({"Effusion"}, set(), "left", "small")),
        ("no left pleural  effusion", (set(), {"Effusion"}, "left", "")),
        ("No pleural effusion.", (set(), {"Effusion"}, "none", "")),
        ("There are small bilateral pleural effusions.", ({"Effusion"}, set(), "both", "small")),
        ("No right pleural effusion or pneumothorax.", (set(), {"Effusion", "Pneumothorax"}, "right", "")),
        ("A moderate cavity is seen in the right upper zone.", ({"Lung Cavity"}, set(), "right", "moderate")),
        ("The trachea is midline.", (set(), set(), "none", "")),
    ],
)
def test_labels_polarity_side_and_degree(sentence, truth):
    assert sentence_truth(sentence) == truth


@pytest.mark.parametrize("sentence", ["", "Small left knee effusion.", "No pleural effusion. No pneumothorax."])
def test_what_no_level_writes_is_unknown(sentence):
    assert sentence_truth(sentence) is None


def test_there_are_eight_wordings_and_more_of_which_some_are_held_out_and_near_denials():
    for label in HARD_FINDINGS:
        kinds = HARD_WORDING[label]
        assert len(kinds["stated"]) >= 8
        assert len(kinds["held_out"]) >= 2
        assert len(kinds["denied"]) >= 5
        every = [*kinds["stated"], *kinds["held_out"], *kinds["denied"]]
        assert len(set(every)) == len(every)
        # At least one denial is a statement with another opening.
        bare = {text.replace("{degree} ", "").replace("A ", "").lower() for text in kinds["stated"]}
        opened = {text.removeprefix(start).lower() for text in kinds["denied"] for start in ("No ", "There is no ")}
        assert any(text in bare or f"there is {text}" in bare for text in opened), label
