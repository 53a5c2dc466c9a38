"""Which images an epoch shows, in which order."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cmcgns.evaluation.metrics import BoolArray, IntArray

Balance = Literal["each_epoch", "once", "none"]


def epoch_rows(
    rows: IntArray, positive: BoolArray, balance: Balance, seed: int, epoch: int, at_least: int = 1
) -> IntArray:
    """Rows of one epoch in random order.

    Balanced: all images with a mask and as many without, or all of those where there are fewer. With 10 images an
    epoch would be a single step: early stopping would end before the decoder's batch statistics have settled, so
    passes over few images are repeated until the epoch is long enough.

    Args:
        rows: (m,) what may be learned from.
        positive: (n,) by row number, whether it has a mask.
        balance: `once` shows the same images without a mask in every pass, `each_epoch` others each time.
        seed: of the draw.
        epoch: from 0; equal seeds and epochs give equal rows.
        at_least: how many rows an epoch has; reached by whole passes.

    Returns:
        (k,) row numbers.
    """
    size = len(rows)
    if balance != "none":
        having = int(positive[rows].sum())
        size = having + min(having, len(rows) - having)
    passes = -(-at_least // size)
    return np.concatenate([_one_pass(rows, positive, balance, seed, epoch * passes + turn) for turn in range(passes)])


def _one_pass(rows: IntArray, positive: BoolArray, balance: Balance, seed: int, number: int) -> IntArray:
    if balance != "none":
        having, lacking = rows[positive[rows]], rows[~positive[rows]]
        drawn = np.random.default_rng([seed, 1, number if balance == "each_epoch" else 0]).permutation(lacking)
        rows = np.concatenate([having, drawn[: len(having)]])
    return np.random.default_rng([seed, 2, number]).permutation(rows)


def batches(rows: IntArray, batch_size: int) -> list[IntArray]:
    """As few batches as possible, of sizes that differ by at most one: no tiny batch upsets batch statistics."""
    return np.array_split(rows, max(1, -(-len(rows) // batch_size)))
