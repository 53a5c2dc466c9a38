"""The log of how good the bank's clusters are, where it is known what every validation sentence says."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from cmcgns.data.pairs.batch import Batch
from cmcgns.data.reports.text import normalise_sentence, split_sentences, text_number
from cmcgns.metrics.claims import Claims, Told
from cmcgns.metrics.cluster_quality import cluster_quality

SentenceOracle = Callable[[str], Told | None]
"""What a sentence says; None of one that it does not know."""

_STUDIES = 1000  # the first ones of a validation


class KnownSentences:
    """What every sentence of the validation studies claims.

    Attributes:
        numbers: (C,) numbers of the distinct texts, ascending, as a batch has them.
        claims: of these sentences, in the same order.
    """

    def __init__(self, told: dict[int, Told]) -> None:
        self.numbers = np.array(sorted(told), dtype=np.int64)
        self.claims = Claims.of([told[number] for number in self.numbers.tolist()])

    @classmethod
    def of(cls, reports: Iterable[str], oracle: SentenceOracle) -> "KnownSentences | None":
        """Those of some reports; None, at the first sentence that the oracle does not know, or without any."""
        told: dict[int, Told] = {}
        for report in reports:
            for sentence in split_sentences(report):
                if (truth := oracle(sentence)) is None:
                    return None
                told[text_number(normalise_sentence(sentence))] = truth
        return cls(told) if told else None


class ClusterLog:
    """Collects the clusters of a validation's sentences, batch by batch.

    Args:
        known: what they claim.
    """

    def __init__(self, known: KnownSentences) -> None:
        self.known = known
        self._parts: list[Tensor] = []  # (3, M) text, own, second of one study; the device is not waited for
        self._masks: list[Tensor] = []

    def note(self, batch: Batch, clusters: tuple[Tensor, Tensor] | None) -> None:
        """Take in a batch and the clusters of its sentences, as `Objective.clusters_of` gives them."""
        if clusters is None:
            return
        room = _STUDIES - len(self._masks)
        rows = torch.stack([batch.sentence_text, *clusters], dim=1)[:room]
        self._parts += rows.unbind(0)
        self._masks += batch.sentence_mask[:room].unbind(0)

    def figures(self) -> dict[str, float]:
        """Those of :func:`cluster_quality`; none where there were no clusters."""
        if not self._masks:
            return {}
        studies = [part[:, mask].cpu().numpy() for part, mask in zip(self._parts, self._masks, strict=True)]
        number, own, second = np.concatenate(studies, axis=1)
        report = np.repeat(np.arange(len(studies)), [study.shape[1] for study in studies])
        text = np.searchsorted(self.known.numbers, number)
        return cluster_quality(self.known.claims, report, text, own, second, len(studies))
