"""Result rows: one line of `results.jsonl` for every figure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cmcgns.common.files import write_text


@dataclass(frozen=True)
class ReliabilityCurve:
    """Predicted probabilities in bins, beside what was observed.

    Attributes:
        protocol: name in tables.
        encoder: its name.
        label: class; empty for all classes together.
        fraction: per cent of the labels; None for what learns nothing.
        predicted: (K,) mean predicted probability of each bin that is not empty.
        observed: (K,) share of positives in it.
        count: (K,) predictions in it.
    """

    protocol: str
    encoder: str
    label: str
    fraction: float | None
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]


@dataclass(frozen=True)
class ResultRow:
    """A figure with its interval and everything needed to know what it is.

    Attributes:
        protocol: id, with `@dataset` where the protocol does not name one.
        task: linear, detection, …
        dataset: name in the manifest.
        split: hash of who is in which split.
        encoder: its name.
        encoder_sha256: of its weights and preprocessing.
        metric: for example `auroc`.
        label: class; empty for the mean over classes.
        group: subgroup, for example `sex=F`; empty for everyone.
        primary: whether tables show this figure.
        value: the figure; None where it is undefined.
        low: lower end of its 95 % interval (patient-clustered bootstrap); None where there is none (see `note`).
        high: upper end.
        n: test rows; of the subgroup, if it is one; of a class only those that it is judged on (that have its label).
        patients: test patients of these rows.
        positives: rows of a class that have it; None for figures over all classes, and where no label says so.
        fraction: per cent of the training patients; None for tasks that learn nothing.
        seed: of this cell; None: the mean over seeds.
        seeds: how many seeds are behind the value.
        sd: standard deviation over seeds; None for a single one.
        resamples: behind the interval.
        leakage: empty, or what `--allow-leakage` allowed.
        note: what a reader must know, e.g. skipped classes, or why there is no interval.
    """

    protocol: str
    task: str
    dataset: str
    split: str
    encoder: str
    encoder_sha256: str
    metric: str
    label: str = ""
    group: str = ""
    primary: bool = False
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    patients: int = 0
    positives: int | None = None
    fraction: float | None = None
    seed: int | None = None
    seeds: int = 1
    sd: float | None = None
    resamples: int = 0
    leakage: str = ""
    note: str = ""


def write_results(folder: Path, rows: Iterable[ResultRow]) -> Path:
    """Write `results.jsonl`; a reader never sees half of it."""
    path = folder / "results.jsonl"
    write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
    return path
