"""What sentences say, where that is known, and how good the clusters' false and hard negatives are by it."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmcgns.metrics.claims import Claims
from cmcgns.metrics.cluster_quality import cluster_quality
from cmcgns.reporting.clusters.sentences import ClusteredSentences
from cmcgns.training.cluster_log import SentenceOracle

Polarity = Literal["states", "denies", "neither", ""]

MEANINGS = {
    "false_negative_precision": (
        "False negatives, precision",
        "of the pairs of a sentence and another report that the clusters take for false negatives: the report says "
        "the same",
    ),
    "false_negative_recall": ("False negatives, recall", "of the pairs where it does: the clusters find them"),
    "false_negative_contradict": (
        "False negatives, contradicting",
        "of what the clusters take for false negatives: report and sentence contradict each other",
    ),
    "hard_negative_precision": (
        "Hard negatives, precision",
        "of the pairs that the second nearest cluster gives: the report has a sentence of the same finding that "
        "contradicts, or names another side or degree",
    ),
    "hard_negative_recall": ("Hard negatives, recall", "of the pairs where it has: the clusters find them"),
    "cluster_same_finding": ("In one cluster, same finding", "of the pairs of different sentences in one cluster"),
    "cluster_contradict": ("In one cluster, contradicting", "of the same pairs: one states what the other denies"),
}
"""Of every figure its name and what it is a share of, in the order of the page."""


_SHUFFLES = 5


def measure_quality(found: ClusteredSentences, oracle: SentenceOracle | None) -> dict[str, tuple[float, float]]:
    """The figures that validation logs (:mod:`cmcgns.metrics.cluster_quality`), of the sentences shown.

    Args:
        found: all sentences.
        oracle: what a sentence says; None where nobody knows.

    Returns:
        Of `MEANINGS` each figure, and what clusters of the same sizes give whose sentences are dealt at random (mean
        of some shuffles); none if the oracle does not know all sentences.
    """
    told = [truth for text in found.texts if oracle is not None and (truth := oracle(text)) is not None]
    if len(told) < len(found.texts):
        return {}
    claims, images = Claims.of(told), int(found.image.max()) + 1

    def figures(order: NDArray[np.int64]) -> dict[str, float]:
        own, second = found.cluster[order], found.second[order]
        return cluster_quality(claims, found.image, found.text, own, second, images)

    random, rows = np.random.default_rng(0), np.arange(len(found))
    measured, dealt = figures(rows), [figures(random.permutation(rows)) for _ in range(_SHUFFLES)]
    chance = {name: [each[name] for each in dealt if name in each] or [math.nan] for name in measured}
    return {name: (measured[name], float(np.mean(chance[name]))) for name in MEANINGS if name in measured}


def polarity(sentence: str, oracle: SentenceOracle | None) -> Polarity:
    """Whether a sentence states or denies a finding; empty where that is not known."""
    said = oracle(sentence) if oracle is not None else None
    if said is None:
        return ""
    return "states" if said.stated else "denies" if said.denied else "neither"
