"""Ids of patients and studies: one form for every reader, and which ones are likely to mean the same."""

import pandas as pd

from cmcgns.data.tables import as_text
from cmcgns.data.vocabulary import is_missing

_WHOLE = r"^((?:[^:]*:)?\d+)\.0+$"


def canonical_ids(values: pd.Series) -> pd.Series:
    """Ids as text: "101" for 101, 101.0, "101.0" and " 101 ", with a dataset's name before a colon or without.

    One gap makes a column of whole numbers one of floats, in a parquet file and in what pandas writes as csv. Leading
    zeros, case and blanks inside stay as they are, because they may tell two patients apart: see `twin_keys`.

    Args:
        values: (n,) numbers or text; missing ones may be words for nothing ("nan", "None").

    Returns:
        (n,) text; empty where the id is missing.
    """
    ids = as_text(values)
    ids = ids.mask(is_missing(ids), "")
    return ids.str.replace(_WHOLE, r"\1", regex=True) if ids.str.contains(r"\.0+$").any() else ids


def twin_keys(ids: pd.Series) -> pd.Series:
    """(n,) what is common to ids that differ in leading zeros, case or blanks alone: "nih:p007" and "NIH:P 7"."""
    return ids.str.lower().str.replace(r"\s+", "", regex=True).str.replace(r"0*(\d+)", r"\1", regex=True)


def twins_between(ids: pd.Series, others: pd.Series) -> pd.DataFrame:
    """Pairs of different ids that are likely to mean the same patient.

    Args:
        ids: (n,) canonical ids.
        others: (m,) those that they are compared with.

    Returns:
        Columns `id` and `other`, in the order of `ids`; every pair once.
    """
    sides = [side[side != ""].drop_duplicates() for side in (ids, others)]
    keyed = [
        pd.DataFrame({"key": twin_keys(side).to_numpy(), name: side.to_numpy()})
        for name, side in zip(("id", "other"), sides, strict=True)
    ]
    pairs = keyed[0].merge(keyed[1], on="key")
    return pairs.loc[pairs["id"] != pairs["other"], ["id", "other"]].reset_index(drop=True)
