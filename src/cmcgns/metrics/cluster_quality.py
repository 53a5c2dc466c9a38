"""How good clusters of sentences are, where it is known what every sentence claims.

Clusters say which pairs of a sentence and another study are false negatives (one of the study's sentences lies in the
sentence's cluster), and which are hard negatives (one lies in its second nearest cluster, none in its own). Here both
are compared with what the sentences say. Pairs count that a loss could treat by cluster alone: the sentence speaks of
a finding, and neither it nor equal text stands in the report.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcgns.metrics.claims import Claims, Flags, meet

Integers = NDArray[np.int64]
_MOST_PAIRS = 2**22  # of sentences and reports that are looked at together


def cluster_quality(
    claims: Claims, report: Integers, text: Integers, own: Integers, second: Integers, reports: int
) -> dict[str, float]:
    """How good the clusters of all N sentences of some reports are.

    Args:
        claims: of C distinct sentences.
        report: (N,) which report a sentence stands in.
        text: (N,) which distinct sentence it is.
        own: (N,) its nearest cluster.
        second: (N,) its second nearest.
        reports: R, how many there are.

    Returns:
        Of the pairs of different sentences in one cluster: `cluster_same_finding`, the share that speaks of one
        finding, and `cluster_contradict`, where one states what the other denies. Of the pairs of a sentence and a
        report: `false_negative_precision`, `…_recall`, `false_negative_contradict` (share of what the clusters call
        false negatives where report and sentence contradict), `hard_negative_precision`, `…_recall`. A figure
        without any pair to rest on is left out.
    """
    holds = _membership(report, text, reports, len(claims.stated))
    clusters = _membership(report, own, reports, int(max(own.max(initial=0), second.max(initial=0))) + 1)
    table = _Assigned.of(text, own, second)
    return _purity(claims, table) | _of_negatives(claims, table, holds, clusters)


def _membership(row: Integers, column: Integers, rows: int, columns: int) -> Flags:
    found = np.zeros((rows, columns), dtype=bool)
    found[row, column] = True
    return found


@dataclass(frozen=True)
class _Assigned:
    """A table of sentences with their clusters; a sentence stands in it once for every assignment.

    Attributes:
        text: (n,) row of `claims`.
        own: (n,) nearest cluster.
        second: (n,) second nearest.
        count: (n,) how often the sentence occurs with these.
    """

    text: Integers
    own: Integers
    second: Integers
    count: Integers

    @classmethod
    def of(cls, text: Integers, own: Integers, second: Integers) -> "_Assigned":
        """Of (N,) occurrences, equal ones counted together."""
        rows, count = np.unique(np.stack([text, own, second], axis=1), axis=0, return_counts=True)
        return cls(rows[:, 0], rows[:, 1], rows[:, 2], count)


def _purity(claims: Claims, table: _Assigned) -> dict[str, float]:
    """Shares of the pairs of different sentences in one cluster, each pair as often as both occur."""
    clusters = np.zeros((int(table.own.max(initial=-1)) + 1, len(claims.stated)))
    np.add.at(clusters, (table.own, table.text), table.count)
    pairs = float((clusters.sum(1) ** 2).sum() - (clusters**2).sum())
    if pairs == 0:
        return {}
    alike = {"cluster_same_finding": claims.share_finding(claims), "cluster_contradict": claims.contradict(claims)}
    found = {}
    for name, relation in alike.items():
        np.fill_diagonal(relation, False)
        found[name] = float(((clusters @ relation) * clusters).sum()) / pairs
    return found


def _of_negatives(claims: Claims, table: _Assigned, holds: Flags, clusters: Flags) -> dict[str, float]:
    """Precision and recall of false and of hard negatives by cluster, over pairs of a sentence and a report.

    A false negative is true where all that the sentence claims, of findings and sides, follows from what the report
    says. A hard negative is true where a sentence of the report speaks of the same finding and contradicts it, or
    names another side or another degree; a pair that differs in degree alone is both.

    Args:
        claims: of C distinct sentences.
        table: n sentences and their clusters.
        holds: (R, C) which sentences a report holds.
        clusters: (R, K) which clusters its sentences lie in.
    """
    reports = claims.together(holds)
    true_false = claims.follow_from(reports)
    true_hard = meet(claims.differ(claims), holds)
    contradicts, speaks = claims.contradict(reports), claims.speak.sum(1) > 0
    tally = np.zeros(7)
    for rows in np.array_split(np.arange(len(table.text)), -(-len(table.text) * len(holds) // _MOST_PAIRS) or 1):
        text, weights = table.text[rows], table.count[rows].astype(float)
        counted = ~holds.T[text] & speaks[text][:, None]
        false = clusters.T[table.own[rows]] & counted
        hard = clusters.T[table.second[rows]] & counted & ~false
        right, wanted = true_false[text] & counted, true_hard[text] & counted
        parts = (false, right, false & right, false & contradicts[text], hard, wanted, hard & wanted)
        tally += [weights @ part.sum(1) for part in parts]
    false_, right_, both, contradict, hard_, wanted_, hit = tally.tolist()
    ratios = {
        "false_negative_precision": (both, false_),
        "false_negative_recall": (both, right_),
        "false_negative_contradict": (contradict, false_),
        "hard_negative_precision": (hit, hard_),
        "hard_negative_recall": (hit, wanted_),
    }
    return {name: part / whole for name, (part, whole) in ratios.items() if whole}
