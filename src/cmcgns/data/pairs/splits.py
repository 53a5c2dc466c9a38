"""Which rows are trained on, and which validate."""

import logging

import numpy as np
import pandas as pd

from cmcgns.config import DataSettings
from cmcgns.data.pairs.rows import Pairs
from cmcgns.errors import UserError

logger = logging.getLogger(__name__)


def assign_splits(pairs: Pairs, settings: DataSettings, seed: int) -> tuple[pd.Index, pd.Index]:
    """Training and validation rows.

    Without rows of the validation split (or with `val_split: null`) a fraction of the training patients is held
    out, drawn by the seed.

    Args:
        pairs: rows with split and patient.
        settings: names of the splits, and the fraction.
        seed: of the draw.

    Returns:
        Two row indices of `pairs.frame`.

    Raises:
        UserError: no training row, or no second patient to hold out.
    """
    frame, name = pairs.frame, pairs.source.name
    train = frame.index[frame["split"] == settings.train_split]
    if len(train) == 0:
        found = ", ".join(sorted(frame["split"].unique()))
        raise UserError(f"{pairs.source}: no row has split {settings.train_split} (found: {found})")
    others = frame.loc[~frame["split"].isin([settings.train_split, settings.val_split]), "split"].value_counts()
    for split, number in others.items():
        logger.info("%s: %d rows of split %s are not used", name, number, split)
    if settings.val_split is not None:
        val = frame.index[frame["split"] == settings.val_split]
        if len(val):
            _warn_about_shared_patients(pairs, train, val, settings)
            return train, val
        logger.warning("%s: no row has split %s", name, settings.val_split)
    return _hold_out(pairs, train, settings.val_fraction, seed)


def _warn_about_shared_patients(pairs: Pairs, train: pd.Index, val: pd.Index, settings: DataSettings) -> None:
    patients = pairs.frame["patient_id"]
    shared = set(patients.loc[train]) & set(patients.loc[val])
    if shared:
        logger.warning(
            "%s: %d patients are in both %s and %s, for example %s: the validation losses are too good",
            pairs.source.name, len(shared), settings.train_split, settings.val_split, min(shared),
        )  # fmt: skip


def _hold_out(pairs: Pairs, train: pd.Index, fraction: float, seed: int) -> tuple[pd.Index, pd.Index]:
    """The training rows without those of some patients, and the rows of these."""
    rows = pairs.frame.loc[train, "patient_id"]
    patients = pd.Series(sorted(rows.unique()))  # sorted: the order of the table must not matter
    if len(patients) < 2:
        raise UserError(f"{pairs.source}: all training rows belong to one patient; none can be held out")
    fewest = 2 if len(patients) > 3 else 1  # with a single study L_global is 0 and cannot choose among epochs
    wanted = min(max(fewest, round(fraction * len(patients))), len(patients) - 1)
    held_out = patients.sample(wanted, random_state=np.random.default_rng(seed))
    is_val = rows.isin(held_out)
    logger.info("%s: %d of %d training patients held out", pairs.source.name, len(held_out), len(patients))
    return train[~is_val], train[is_val]
