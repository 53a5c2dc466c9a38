"""Quality of clusters where it is known what sentences claim: known answers, and a slow reference."""

from collections.abc import Set
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from cmcgns.metrics import cluster_quality as module
from cmcgns.metrics.claims import Claims
from cmcgns.metrics.cluster_quality import cluster_quality

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Said:
    """A sentence of one finding or several."""

    stated: Set[str] = NOTHING
    denied: Set[str] = NOTHING
    side: str = "none"
    degree: str = ""


def states(label: str, side: str = "none", degree: str = "") -> Said:
    return Said(stated={label}, side=side, degree=degree)


def denies(*labels: str, side: str = "none") -> Said:
    return Said(denied=set(labels), side=side)


EFFUSION, RIGHT, LEFT = states("Effusion"), states("Effusion", "right"), states("Effusion", "left")
BOTH, NONE, NOT_RIGHT = states("Effusion", "both"), denies("Effusion"), denies("Effusion", side="right")
SENTENCES = (EFFUSION, RIGHT, LEFT, BOTH, NONE, NOT_RIGHT, denies("Effusion", "Edema"), states("Edema"), Said())


@pytest.mark.parametrize(
    ("sentence", "report", "follows", "contradicts"),
    [
        (RIGHT, [RIGHT], True, False),
        (EFFUSION, [RIGHT], True, False),
        (RIGHT, [EFFUSION], False, False),
        (RIGHT, [BOTH], True, False),
        (BOTH, [RIGHT], False, False),
        (BOTH, [RIGHT, LEFT], True, False),
        (RIGHT, [LEFT], False, False),
        (NONE, [NOT_RIGHT], False, False),
        (NOT_RIGHT, [NONE], True, False),
        (NONE, [NOT_RIGHT, denies("Effusion", side="left")], True, False),
        (NONE, [RIGHT], False, True),
        (EFFUSION, [NONE], False, True),
        (EFFUSION, [NOT_RIGHT], False, False),
        (EFFUSION, [NOT_RIGHT, denies("Effusion", side="left")], False, True),
        (RIGHT, [NOT_RIGHT], False, True),
        (LEFT, [NOT_RIGHT], False, False),
        (denies("Effusion", "Edema"), [NONE], False, False),
        (denies("Effusion", "Edema"), [NONE, denies("Edema")], True, False),
        (denies("Effusion", "Edema"), [NONE, states("Edema")], False, True),
        (states("Effusion", "right", "small"), [states("Effusion", "right", "large")], True, False),
        (Said(), [RIGHT], False, False),
        (RIGHT, [], False, False),
    ],
)
def test_what_follows_from_a_report_and_what_contradicts_it(
    sentence: Said, report: list[Said], follows: bool, contradicts: bool
) -> None:
    claims = Claims.of([sentence, *report])
    holds = np.ones((1, 1 + len(report)), dtype=bool)
    holds[0, 0] = False
    reports = claims.together(holds)
    assert claims.follow_from(reports)[0, 0] == follows
    assert claims.contradict(reports)[0, 0] == contradicts


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        (RIGHT, LEFT, True),
        (RIGHT, BOTH, True),
        (RIGHT, EFFUSION, False),
        (RIGHT, RIGHT, False),
        (RIGHT, NONE, True),
        (RIGHT, denies("Effusion", side="left"), False),
        (NONE, NOT_RIGHT, False),
        (denies("Effusion", side="left"), NOT_RIGHT, True),
        (states("Edema", degree="mild"), states("Edema", degree="severe"), True),
        (states("Edema", degree="mild"), states("Edema"), False),
        (states("Edema", degree="mild"), states("Effusion", degree="severe"), False),
        (denies("Edema"), denies("Effusion", "Edema"), False),
        (Said(), Said(), False),
    ],
)
def test_sentences_of_one_finding_that_differ(first: Said, second: Said, differ: bool) -> None:
    claims = Claims.of([first, second])
    found = claims.differ(claims)
    assert found[0, 1] == found[1, 0] == differ


def test_relations_between_sentences_are_symmetric_and_none_is_with_itself_at_odds() -> None:
    claims = Claims.of(SENTENCES)
    for relation in (claims.contradict(claims), claims.differ(claims), claims.share_finding(claims)):
        assert (relation == relation.T).all()
    assert not claims.contradict(claims).diagonal().any()
    assert not claims.differ(claims).diagonal().any()


def quality(claims: Claims, own: np.ndarray, second: np.ndarray, count: np.ndarray) -> dict[str, float]:
    """All figures of distinct sentences, each of which is a report of its own as often as it occurs."""
    text = np.repeat(np.arange(len(own)), count)
    return cluster_quality(claims, np.arange(len(text)), text, own[text], second[text], len(text))


def purity(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name.startswith("cluster_")}


def test_purity_of_known_clusters() -> None:
    """Two of one finding that contradict beside one of another; each sentence as often as it occurs."""
    claims = Claims.of([RIGHT, NONE, states("Edema"), Said()])
    own, count = np.array([0, 0, 0, 1]), np.array([2, 3, 5, 7])
    figures = purity(quality(claims, own, own, count))
    pairs = 2 * 3 + 2 * 5 + 3 * 5
    assert figures == {
        "cluster_same_finding": pytest.approx(6 / pairs),
        "cluster_contradict": pytest.approx(6 / pairs),
    }
    assert purity(quality(claims, np.arange(4), own, count)) == {}


def test_clusters_that_are_the_findings_sides_and_polarities_are_perfect_and_random_ones_are_not() -> None:
    kinds = [RIGHT, LEFT, NONE, states("Edema"), denies("Edema")]
    claims = Claims.of([kinds[number // 3] for number in range(15)])  # three wordings of each
    own, count = np.arange(15) // 3, np.ones(15, dtype=np.int64)
    figures = quality(claims, own, np.array([2, 2, 0, 4, 3])[own], count)
    assert figures["cluster_same_finding"] == figures["false_negative_precision"] == 1
    assert figures["false_negative_recall"] == figures["hard_negative_precision"] == 1
    assert figures["cluster_contradict"] == figures["false_negative_contradict"] == 0
    assert 0.5 < figures["hard_negative_recall"] < 1  # a sentence has one second cluster, and may differ from two
    mixed = quality(claims, np.arange(15) % 3, (np.arange(15) + 1) % 3, count)
    assert mixed["false_negative_contradict"] > 0.2
    assert mixed["false_negative_precision"] < 0.5


def random_world(seed: int) -> tuple[Claims, list[Said], list[list[tuple[int, int, int]]]]:
    """Sentences, and reports of (sentence, own cluster, second cluster)."""
    random = np.random.default_rng(seed)
    labels, sides, degrees = (
        ("Effusion", "Edema", "Nodule"),
        ("none", "right", "left", "both"),
        ("", "mild", "severe"),
    )
    said = []
    for _ in range(25):
        chosen = {labels[i] for i in random.integers(3, size=random.integers(3))}
        side = sides[random.integers(4)]
        said.append(
            Said(stated=chosen, side=side, degree=degrees[random.integers(3)])
            if random.random() < 0.5
            else Said(denied=chosen, side=side)
        )
    reports = []
    for _ in range(12):
        texts = random.permutation(25)[: random.integers(6)]
        pairs = [random.permutation(5)[:2] for _ in texts]
        reports.append([(int(t), int(a), int(b)) for t, (a, b) in zip(texts, pairs, strict=True)])
    return Claims.of(said), said, reports


def atoms(said: Said) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What is there, and what is not, as (finding, place)."""
    sides = {"both": ["right", "left"], "none": []}.get(said.side, [said.side])
    there = {(label, place) for label in said.stated for place in [*sides, "anywhere"]}
    return there, {(label, place) for label in said.denied for place in (sides or ["right", "left"])}


def slow_figures(said: list[Said], reports: list[list[tuple[int, int, int]]]) -> dict[str, float]:
    """One sentence and one report after the other."""

    def closed(denied: set[tuple[str, str]]) -> set[tuple[str, str]]:
        nowhere = {(label, "anywhere") for label, place in denied if (label, "right") in denied}
        return denied | {each for each in nowhere if (each[0], "left") in denied}

    def at_odds(n: int, m: int) -> bool:
        (there, away), (other, other_away) = atoms(said[n]), atoms(said[m])
        if there & closed(other_away) or closed(away) & other:
            return True
        for label in said[n].stated & said[m].stated:
            sides, others = ({p for each, p in x if each == label and p != "anywhere"} for x in (there, other))
            if sides and others and sides != others:
                return True
            if said[n].degree and said[m].degree and said[n].degree != said[m].degree:
                return True
        for label in said[n].denied & said[m].denied:
            sides, others = ({p for each, p in x if each == label} for x in (away, other_away))
            if len(sides) == len(others) == 1 and sides != others:
                return True
        return False

    tally = dict.fromkeys(("false", "right", "both", "contradict", "hard", "wanted", "hit"), 0)
    for i, j in product(range(len(reports)), repeat=2):
        texts = {text for text, _, _ in reports[j]}
        there, away = set(), set()
        for text in texts:
            there, away = there | atoms(said[text])[0], away | atoms(said[text])[1]
        for text, own, second in reports[i]:
            if text in texts or not said[text].stated | said[text].denied:
                continue
            mine, not_mine = atoms(said[text])
            false = any(each == own for _, each, _ in reports[j])
            hard = not false and any(each == second for _, each, _ in reports[j])
            follows = mine <= there and not_mine <= away
            wanted = any(at_odds(text, other) for other in texts)
            contradicts = bool(mine & closed(away) or closed(not_mine) & there)
            flags = (false, follows, false and follows, false and contradicts, hard, wanted, hard and wanted)
            for name, flag in zip(tally, flags, strict=True):
                tally[name] += flag
    return {
        "false_negative_precision": tally["both"] / tally["false"],
        "false_negative_recall": tally["both"] / tally["right"],
        "false_negative_contradict": tally["contradict"] / tally["false"],
        "hard_negative_precision": tally["hit"] / tally["hard"],
        "hard_negative_recall": tally["hit"] / tally["wanted"],
    }


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_the_loop_whatever_fits_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    claims, said, reports = random_world(seed)
    rows = np.array([(number, *each) for number, report in enumerate(reports) for each in report])
    found, slow = cluster_quality(claims, *rows.T, len(reports)), slow_figures(said, reports)
    assert {name: found[name] for name in slow} == pytest.approx(slow)
    assert found.keys() - slow.keys() == purity(found).keys()
    monkeypatch.setattr(module, "_MOST_PAIRS", 40)
    assert cluster_quality(claims, *rows.T, len(reports)) == pytest.approx(found)


def test_a_table_of_sentences_is_judged_as_reports_of_one_sentence_each_as_often_as_it_occurs() -> None:
    claims, said, _ = random_world(7)
    random = np.random.default_rng(7)
    own = random.integers(4, size=25)
    second, count = (own + random.integers(1, 4, size=25)) % 4, random.integers(1, 4, size=25)
    reports = [[(text, int(own[text]), int(second[text]))] for text in range(25) for _ in range(count[text])]
    figures = quality(claims, own, second, count)
    slow = slow_figures(said, reports)
    assert {name: figures[name] for name in slow} == pytest.approx(slow)


def test_what_has_nothing_to_rest_on_is_left_out() -> None:
    claims = Claims.of([Said(), Said()])
    both = np.array([0, 1])
    assert quality(claims, both, both[::-1], both + 1) == {}
