"""Near reports meet in batches: nearness beside a slow loop, and an order that follows from seed and epoch."""

import math
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.pairs import near
from cmcgns.data.pairs.batch import TrainingOrder, mix
from cmcgns.data.pairs.near import nearest_reports, order_of_near_pairs
from cmcgns.data.reports.tokens import ReportTokens
from cmcgns.settings.recipe import load_recipe


def reports_of(*reports: list[int]) -> ReportTokens:
    """Reports that consist of numbered sentences."""
    nothing = np.zeros(0, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(report) for report in reports])]).astype(np.int64)
    text = np.array(list(chain(*reports)), dtype=np.int64)
    return ReportTokens(
        nothing.astype(np.int32), nothing.astype(np.int16), offsets, text, offsets, nothing, 0, 8, {}, 0.0
    )  # fmt: skip


def random_reports(studies: int, sentences: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(sentences, size=random.integers(6)).tolist() for _ in range(studies)]


def slow_nearest(reports: list[list[int]], count: int) -> list[list[int]]:
    """Every report with every other one."""
    n = len(reports)
    held = Counter(chain(*(set(report) for report in reports)))
    vectors = [{each: math.log(n / held[each]) for each in set(report)} for report in reports]
    lengths = [math.sqrt(sum(w * w for w in vector.values())) for vector in vectors]
    found = []
    for i in range(n):
        scores = []
        for j in range(n):
            shared = sum(vectors[i][each] * vectors[j][each] for each in vectors[i].keys() & vectors[j].keys())
            score = shared / (lengths[i] * lengths[j]) if shared else 0.0
            if j != i and 1e-6 < score < 0.9999:
                scores.append((-round(score, 5), (j - i) % n, j))
        found.append([j for _, _, j in sorted(scores)][:count])
    return found


def listed(nearest: np.ndarray) -> list[list[int]]:
    return [[each for each in row if each >= 0] for row in nearest.tolist()]


@pytest.mark.parametrize(("studies", "sentences"), [(1, 3), (2, 2), (30, 8), (60, 40)])
def test_nearest_reports_are_those_of_the_loop(studies: int, sentences: int) -> None:
    reports = random_reports(studies, sentences)
    assert listed(nearest_reports(reports_of(*reports), np.arange(studies), 5)) == slow_nearest(reports, 5)


def test_known_neighbours() -> None:
    """Of two that share a sentence the one with the rarer sentence is nearer; equal reports are no neighbours."""
    reports = reports_of([1, 2, 3], [3, 4, 5], [1, 6, 7], [3, 8, 9], [2, 3, 1, 1], [10], [3, 11])
    nearest = listed(nearest_reports(reports, np.arange(7), 3))
    assert nearest[0][0] == 2
    assert 4 not in nearest[0]
    assert nearest[5] == []
    assert 5 not in chain(*nearest)


def test_only_the_rows_of_the_split_are_compared_and_places_count_within_them() -> None:
    reports = random_reports(40, 9)
    rows = np.random.default_rng(1).permutation(40)[:25]
    part = nearest_reports(reports_of(*(reports[row] for row in rows)), np.arange(25), 4)
    np.testing.assert_array_equal(nearest_reports(reports_of(*reports), rows, 4), part)


def test_reports_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = reports_of(*random_reports(50, 9))
    whole = nearest_reports(reports, np.arange(50))
    monkeypatch.setattr(near, "_MOST_ENTRIES", 30)
    np.testing.assert_array_equal(nearest_reports(reports, np.arange(50)), whole)


def test_a_sentence_of_very_many_reports_proposes_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_PROPOSED", 3)
    reports = [[1, 100 + number] for number in range(20)] + [[2]] * 5
    nearest = nearest_reports(reports_of(*reports), np.arange(25), 8)
    assert listed(nearest)[:20] == [[(place + ahead) % 20 for ahead in (1, 2, 3)] for place in range(20)]


def test_equal_reports_are_no_neighbours_however_common_their_sentences_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a common sentence only some reports are looked at, so that the score of equal ones is less than 1."""
    monkeypatch.setattr(near, "_PROPOSED", 5)
    random = np.random.default_rng(0)
    reports = [[*np.flatnonzero(random.random(4) < 0.8).tolist(), 4 + number % 20] for number in range(200)]
    nearest = nearest_reports(reports_of(*reports), np.arange(200))
    assert len({tuple(report) for report in reports}) < 150
    assert (nearest >= 0).any(axis=1).all()
    assert not any(reports[row] == reports[each] for row, found in enumerate(listed(nearest)) for each in found)


def test_every_study_comes_once_and_most_beside_a_near_one() -> None:
    nearest = nearest_reports(reports_of(*random_reports(301, 30)), np.arange(301))
    for seed in range(5):
        order = order_of_near_pairs(nearest, seed)
        assert sorted(order.tolist()) == list(range(301))
        pairs = order[:300].reshape(-1, 2).tolist()
        assert np.mean([b in nearest[a] or a in nearest[b] for a, b in pairs]) > 0.8
        assert order.tolist() == order_of_near_pairs(nearest, seed).tolist()
    assert order.tolist() != order_of_near_pairs(nearest, 99).tolist()


def test_partners_and_places_of_lonely_studies_vary() -> None:
    nearest = np.full((50, 3), -1)
    nearest[0] = 1, 2, 3  # the only one with neighbours, and the only neighbours
    orders = [order_of_near_pairs(nearest, seed).tolist() for seed in range(60)]
    partners = set()
    for order in orders:
        place = order.index(0)
        partners.add(order[place + 1 - 2 * (place % 2)])
    assert {1, 2, 3} <= partners
    assert len({order.index(0) // 2 for order in orders}) > 10  # its pair stands anywhere
    assert len({frozenset(order[-10:]) for order in orders}) > 50  # and others sit out of a last, incomplete batch


@pytest.mark.parametrize("studies", [1, 2, 7])
def test_without_any_neighbour_it_is_a_plain_shuffle(studies: int) -> None:
    nearest = np.full((studies, 4), -1)
    assert sorted(order_of_near_pairs(nearest, 3).tolist()) == list(range(studies))


def test_batches_hold_pairs_and_ranks_partition_those_of_one_rank() -> None:
    nearest = nearest_reports(reports_of(*random_reports(100, 12)), np.arange(100))
    seed = mix(4, 1, 0)
    whole = list(TrainingOrder(100, 12, seed, nearest=nearest))
    halves = [list(TrainingOrder(100, 6, seed, rank=rank, ranks=2, nearest=nearest)) for rank in range(2)]
    for step, request in enumerate(whole):
        found = np.concatenate([half[step].rows for half in halves])
        np.testing.assert_array_equal(found, request.rows)
        np.testing.assert_array_equal(halves[0][step].of_all_ranks, request.rows)
    pairs = [pair for request in whole for pair in request.rows.reshape(-1, 2).tolist()]
    assert np.mean([b in nearest[a] or a in nearest[b] for a, b in pairs]) > 0.6
    tail = list(TrainingOrder(100, 12, seed, start=5, nearest=nearest))
    assert [each.rows.tolist() for each in tail] == [each.rows.tolist() for each in whole[5:]]


def test_equal_numbers_of_sentences_that_a_table_repeats_count_once() -> None:
    once, twice = ([[1, 2], [1, 3], [4]], [[1, 2, 1, 2], [3, 1, 3], [4, 4]])
    first, second = (nearest_reports(reports_of(*each), np.arange(3)) for each in (once, twice))
    np.testing.assert_array_equal(first, second)


def test_near_batches_without_any_negatives_are_refused() -> None:
    changes = ["training.batches=near", "objective.weight_global=0", "objective.weight_report=0",
               "objective.weight_image=1", "objective.sentence_gradient=1"]  # fmt: skip
    with pytest.raises(UserError, match=r"training\.batches=near .* set training\.batches=shuffled"):
        load_recipe("demo", changes)
