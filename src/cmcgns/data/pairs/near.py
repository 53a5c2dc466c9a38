"""Batches in which near reports meet: pairs of a study and one of the nearest other reports.

Nearness is what is known without labels before the first step: how many distinct sentences two reports share. The
bank's clusters would be another one, but they move: every epoch would need one more pass over all studies, and the
order would no longer follow from seed and epoch alone: a resumed run would have to find it stored.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcgns.data.reports.tokens import ReportTokens

logger = logging.getLogger(__name__)

Integers = NDArray[np.int64]
NEIGHBOURS = 20
_PROPOSED = 500  # reports that one sentence proposes at most
_MOST_ENTRIES = 2**21  # pairs of reports that are looked at together
_STEPS = 2**20  # scores are compared as whole multiples of its inverse: rounding decides nothing


@dataclass(frozen=True)
class _Held:
    """E pairs of a report and a sentence that it holds, by sentence and then by report.

    Attributes:
        report: (E,) place of the report.
        weight: (E,) of the sentence in it; those of a report have length 1.
        first: (E,) where the sentence's own pairs begin.
        others: (E,) other reports that hold the sentence.
        sentences: (n,) of each report a number that stands for all its sentences: those with the same ones are equal.
    """

    report: Integers
    weight: NDArray[np.float64]
    first: Integers
    others: Integers
    sentences: NDArray[np.uint64]

    @classmethod
    def of(cls, tokens: ReportTokens, rows: Integers) -> "_Held":
        _, counts = tokens.counts(rows)
        report = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(report)) - np.repeat(np.cumsum(counts) - counts, counts)
        text = tokens.sentence_text[tokens.sentence_offsets[rows][report] + within]
        _, sentence = np.unique(text, return_inverse=True)
        sentence, report = np.unique(np.stack([sentence, report]), axis=1)  # a sentence counts once a report
        held = np.bincount(sentence)
        weight = np.log(len(rows) / held)[sentence]
        length = np.sqrt(np.bincount(report, weight**2, minlength=len(rows)))
        first = np.cumsum(held) - held
        drawn = np.random.default_rng(0).integers(2**64, size=len(held), dtype=np.uint64)
        together = np.zeros(len(rows), dtype=np.uint64)  # sums of 64 random bits a sentence: no two sets share one
        np.add.at(together, report, drawn[sentence])
        weight = weight / np.maximum(length, 1e-12)[report]
        return cls(report, weight, first[sentence], held[sentence] - 1, together)

    def shared(self, own: Integers) -> tuple[Integers, Integers, NDArray[np.float64]]:
        """Pairs of reports that share a sentence, and what it adds to their score.

        Args:
            own: which of the E pairs stand for the first report.
        """
        counts = np.minimum(self.others[own], _PROPOSED)
        pair = np.repeat(own, counts)
        ahead = 1 + np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        first = self.first[pair]
        other = first + (pair - first + ahead) % (self.others[pair] + 1)
        return self.report[pair], self.report[other], self.weight[pair] * self.weight[other]


def nearest_reports(tokens: ReportTokens, rows: Integers, count: int = NEIGHBOURS) -> Integers:
    """Reports that share most with each report, without those of the same sentences.

    The score is the cosine of two reports' distinct normalised sentences, each weighed by log(n / reports that hold
    it), so that what every normal report says counts little. Of a sentence that more than 500 other reports hold
    only the next 500 of them, counted round, are looked at: work and memory grow with n, not with n².

    Args:
        tokens: of all reports.
        rows: (n,) of the reports to compare.
        count: neighbours wanted, k.

    Returns:
        (n, k) places in `rows`, the nearest first, and of equally near ones the next in order; -1 where fewer reports
        share a sentence.
    """
    held, studies = _Held.of(tokens, rows), len(rows)
    by_report = np.argsort(held.report, kind="stable")
    entries = np.bincount(held.report, np.minimum(held.others, _PROPOSED), minlength=studies).cumsum()
    ends = np.bincount(held.report, minlength=studies).cumsum()
    found = np.full((studies, count), -1, dtype=np.int64)
    first = 0
    while first < studies:  # so many reports at a time as fit
        before = entries[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(entries, before + _MOST_ENTRIES, side="right")))
        own = by_report[ends[first - 1] if first else 0 : ends[last - 1]]
        one, other, added = held.shared(own)
        unlike = held.sentences[one] != held.sentences[other]  # else nothing in their text tells them apart
        _keep_nearest(found, one[unlike], other[unlike], added[unlike])
        first = last
    if (alone := found[:, 0] < 0).any():
        logger.info("batches of near reports: %d of %d reports have no near one", alone.sum(), studies)
    return found


def _keep_nearest(found: Integers, one: Integers, other: Integers, added: NDArray[np.float64]) -> None:
    """Write the nearest of some reports into (n, k) `found`, given what each shared sentence adds."""
    studies, count = found.shape
    pairs, place = np.unique(one * studies + other, return_inverse=True)
    steps = np.rint(np.bincount(place, added) * _STEPS).astype(np.int64) if len(pairs) else pairs
    near = steps > 0
    (one, other), steps = np.divmod(pairs[near], studies), steps[near]
    # Of equally near ones those that follow come first, so that not all reports choose the same.
    order = np.lexsort(((other - one) % studies, -steps, one))
    one, other = one[order], other[order]
    rank = np.arange(len(one)) - np.searchsorted(one, one)
    kept = rank < count
    found[one[kept], rank[kept]] = other[kept]


def order_of_near_pairs(nearest: Integers, epoch_seed: int) -> Integers:
    """An order of all studies in which every two belong together: a study and one of its nearest, both not yet taken.

    Studies come up at random, and each takes one of its free neighbours at random. Those that find none are paired
    with each other. With an even number of studies in a step, of all ranks together, no pair is parted.

    Args:
        nearest: (n, k) of `nearest_reports`.
        epoch_seed: everything follows from it.

    Returns:
        (n,) every study once.
    """
    studies = len(nearest)
    random = np.random.default_rng(epoch_seed)
    turns, free = random.permutation(studies).tolist(), [True] * studies
    draws = random.random(studies).tolist()
    pairs: list[tuple[int, int]] = []
    alone: list[int] = []
    for study in turns:
        if not free[study]:
            continue
        free[study] = False
        near = [each for each in nearest[study].tolist() if each >= 0 and free[each]]
        if near:
            partner = near[int(draws[study] * len(near))]
            free[partner] = False
            pairs.append((study, partner))
        else:
            alone.append(study)
    odd = [alone.pop()] if len(alone) % 2 else []
    pairs += zip(alone[::2], alone[1::2], strict=True)
    shuffled = np.array(pairs, dtype=np.int64).reshape(-1, 2)[random.permutation(len(pairs))]
    return np.concatenate([shuffled.ravel(), np.array(odd, dtype=np.int64)])
