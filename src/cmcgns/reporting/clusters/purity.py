"""Clusters against labels: how often an image whose report holds a sentence of a cluster has a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from cmcgns.common.errors import UserError, shortened
from cmcgns.data.manifest import LABEL, label_columns
from cmcgns.data.tables import as_text
from cmcgns.reporting.clusters.sentences import ClusteredSentences

ENOUGH = 5  # images: a share of fewer is not spoken of


@dataclass(frozen=True)
class LabelShare:
    """A label among the images of a cluster.

    Attributes:
        label: its name.
        images: how many of the cluster's images have a known label.
        positives: how many of these are positive.
        prevalence: positives / images.
        lift: prevalence over that of all images of which the label is known.
        recall: share of all positive images that the cluster holds.
    """

    label: str
    images: int
    positives: int
    prevalence: float
    lift: float
    recall: float


@dataclass(frozen=True)
class Labels:
    """Labels of n images.

    Attributes:
        names: C labels.
        values: (n, C) 1, 0 or not a number: uncertain or unknown.
    """

    names: list[str]
    values: NDArray[np.float64]

    @property
    def base(self) -> dict[str, float]:
        """Prevalence among the images of which a label is known; labels without a positive image are left out."""
        found = {}
        for name, column in zip(self.names, self.values.T, strict=True):
            if np.nansum(column) > 0:
                found[name] = float(np.nanmean(column))
        return found


def read_labels(frame: pd.DataFrame, source: Path) -> Labels:
    """Labels of the manifest's columns `label_…`.

    Args:
        frame: rows, with `row` as it counts in the table.
        source: the table, for messages.

    Raises:
        UserError: a cell that is none of 1, 0, -1 (uncertain) and nothing; names row and column.
    """
    columns = label_columns(frame)
    values = np.full((len(frame), len(columns)), np.nan)
    for place, column in enumerate(columns):
        cells = frame[column]
        if not is_numeric_dtype(cells):
            cells = cells.mask(as_text(cells).str.strip() == "")
        numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
        wrong = (cells.notna() & ~numbers.isin([1, 0, -1])).to_numpy(dtype=bool)
        if wrong.any():
            row, cell = frame["row"][wrong].iloc[0], shortened(cells[wrong].iloc[0])
            raise UserError(f"{source}, row {row}: {column} is {cell}; 1, 0, -1 (uncertain) or nothing is expected")
        values[:, place] = numbers.where(numbers >= 0).to_numpy(dtype=float)
    return Labels([column.removeprefix(LABEL) for column in columns], values)


def label_shares(found: ClusteredSentences, cluster: int, labels: Labels) -> list[LabelShare]:
    """Every label that some image has, among the images that a cluster holds a sentence of.

    Args:
        found: the sentences.
        cluster: from 0.
        labels: of the same images.

    Returns:
        Labels of which an image of the cluster is known, the largest lift first.
    """
    images = np.unique(found.image[found.cluster == cluster])
    shares = []
    for name, base in labels.base.items():
        column = labels.values[:, labels.names.index(name)]
        known = column[images][~np.isnan(column[images])]
        if len(known):
            positives, every = int(known.sum()), float(np.nansum(column))
            prevalence = positives / len(known)
            shares.append(LabelShare(name, len(known), positives, prevalence, prevalence / base, positives / every))
    return sorted(shares, key=lambda share: (-share.lift, share.label))


@dataclass(frozen=True)
class LabelExtremes:
    """The clusters in which a label is most and least frequent.

    Attributes:
        label, base: its name and prevalence.
        most, least: number of the cluster (from 1) and the label's share in it; None where no cluster has enough.
    """

    label: str
    base: float
    most: tuple[int, LabelShare] | None
    least: tuple[int, LabelShare] | None


def label_extremes(shares: Sequence[Sequence[LabelShare]], labels: Labels) -> list[LabelExtremes]:
    """Of every label the clusters, of at least `ENOUGH` images each, where it is most and least frequent.

    Args:
        shares: of each of the K clusters.
        labels: of the images.
    """
    result = []
    for name, base in labels.base.items():
        known = [
            (number, share)
            for number, cluster in enumerate(shares, 1)
            for share in cluster
            if share.label == name and share.images >= ENOUGH
        ]
        most = max(known, key=lambda each: (each[1].prevalence, each[1].images), default=None)
        least = min(known, key=lambda each: (each[1].prevalence, -each[1].images), default=None)
        result.append(LabelExtremes(name, base, most, least))
    return result
