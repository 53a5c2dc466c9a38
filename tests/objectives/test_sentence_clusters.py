"""The table of clusters by text, beside a dictionary."""

import random

import pytest
import torch
from torch import Tensor

from cmcgns.objectives.report_clusters import SentenceClusters, newest_places


def padded(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def test_clusters_are_those_of_the_last_time_a_text_was_seen() -> None:
    rng, table, known = random.Random(3), SentenceClusters(), dict[int, int]()
    for _ in range(30):
        texts = [rng.choice([1, 2, 3, 2**61 + 5, 7 * 2**16 + 2]) for _ in range(6)]  # the last shares a place with 2
        clusters, mask = [rng.randrange(4) for _ in texts], [rng.random() < 0.8 for _ in texts]
        table.keep(torch.tensor(texts), torch.tensor(clusters), torch.tensor(mask))
        for text, cluster, real in zip(texts, clusters, mask, strict=True):
            if real:
                known = {each: old for each, old in known.items() if each % 2**16 != text % 2**16}
                known[text] = cluster
        reports = [[rng.choice([1, 2, 3, 4, 2**61 + 5]) for _ in range(rng.randrange(1, 4))] for _ in range(5)]
        shown = [[text for text in report if rng.random() < 0.5] for report in reports]
        found = table.of_left_out(padded(reports), padded([*shown, [0]])[:5], 4)
        for report, seen, row in zip(reports, shown, found, strict=True):
            expected = {known[text] for text in report if text not in seen and text in known}
            assert set(row.nonzero()[:, 0].tolist()) == expected


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_newest_row_of_a_place_gets_it(size: int) -> None:
    text = torch.tensor([5, 9, 5, 0, 9, 1])
    mask = torch.tensor([True, True, True, False, False, True])
    expected, taken = [], set()
    for number, real in reversed(list(zip(text.tolist(), mask.tolist(), strict=True))):
        free = real and number % size not in taken
        expected.append(number % size if free else size)
        taken |= {number % size} if free else set()
    assert newest_places(text, mask, size).tolist() == expected[::-1]


def test_padding_is_no_sentence() -> None:
    table = SentenceClusters(4)
    table.keep(torch.tensor([0, 3]), torch.tensor([2, 1]), torch.tensor([False, True]))
    assert not table.rows[-1].any()
    assert not table.of_left_out(torch.tensor([[0, 0]]), torch.tensor([[3, 0]]), 4).any()
