"""Cells of tables and DICOM tags as the manifest has them: ids, view, split, sex, age, what stands for nothing."""

import re
from collections.abc import Callable

import pandas as pd

from cmcgns.data.tables import MISSING, as_text, is_missing, map_once

VIEWS = ("AP", "PA", "FRONTAL", "LATERAL", "OTHER", "")  # FRONTAL: AP or PA, which of them is not known
_UNKNOWN = {*MISSING, "?", "unk", "unknown"}  # views that say of themselves that nobody knows
_VIEW_NAMES = {"ANTEROPOSTERIOR": "AP", "POSTEROANTERIOR": "PA", "F": "FRONTAL", "FRONTAL": "FRONTAL"}
_VIEW_NAMES |= dict.fromkeys(("L", "LL", "RL", "LAT", "LATERAL", "LEFT LATERAL", "RIGHT LATERAL"), "LATERAL")
_VIEW_NAMES |= dict.fromkeys(("OTHER", "OBLIQUE", "LORDOTIC", "SWIMMERS", "XTABLE LATERAL"), "OTHER")
_VIEW_NAMES |= dict.fromkeys(("LAO", "RAO", "LPO", "RPO", "LLO"), "OTHER")
# Frontal beams whose pictures do not look like a frontal view.
_UNUSUAL = {"LLD", "RLD", "AXIAL", "LORDOTIC", "DECUBITUS", "OBLIQUE"}
_SPLITS = {"": "", "train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val")
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}
_AGE = re.compile(r"(\d{1,3})(?:[.,]\d*)?\s*([YMWD]?)")
_A_YEAR = {"Y": 1, "M": 12, "W": 52, "D": 365}
_OLDEST = 120
_WHOLE = r"^((?:[^:]*:)?-?\d+)(?:\.0+|,0)$"  # an id that was a whole number

CHEXPERT_FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip


def parse_view(text: str) -> str | None:
    """AP, PA, FRONTAL, LATERAL, OTHER or empty for "AP Supine", "LL", "?"; None if the words are not known."""
    words = text.upper().replace("_", " ").replace("-", " ").split()
    name = " ".join(words)
    if name.lower() in _UNKNOWN:
        return ""
    if words[0] in ("AP", "PA"):
        return "OTHER" if _UNUSUAL & set(words) else words[0]
    return _VIEW_NAMES.get(name)


def parse_views(cells: pd.Series) -> tuple[pd.Series, list[str]]:
    """Views of a column.

    Args:
        cells: (n,) text.

    Returns:
        (n,) views, and the words that are not known (their view is OTHER).
    """
    names = {cell: parse_view(str(cell)) for cell in cells.unique()}
    unknown = sorted(str(cell) for cell, name in names.items() if name is None)
    return cells.map({cell: name or ("OTHER" if name is None else "") for cell, name in names.items()}), unknown


def is_frontal(cells: pd.Series) -> pd.Series:
    """(n,) Boolean: the view is AP, PA, FRONTAL, empty or not known; that is, not known to be another one."""
    return ~map_once(cells, lambda cell: parse_view(str(cell))).isin(("LATERAL", "OTHER"))


def parse_splits(cells: pd.Series) -> pd.Series:
    """(n,) train, val, test or empty; missing where the word is not known."""
    return cells.str.strip().str.lower().mask(is_missing(cells), "").map(_SPLITS)


def parse_sex(text: str) -> str:
    """F, M or empty."""
    return _SEXES.get(text.strip().lower(), "")


def parse_sexes(cells: pd.Series) -> pd.Series:
    """(n,) F, M or empty."""
    return map_once(cells, parse_sex).astype("str")


def parse_age(text: str) -> int | None:
    """Years from "58", "58.0", "58,0", "058Y", "011M" (months, weeks, days); None where unreadable or above 120."""
    match = _AGE.fullmatch(text.strip().upper())
    if match is None:
        return None
    years = int(match[1]) // _A_YEAR[match[2] or "Y"]
    return years if years <= _OLDEST else None


def parse_ages(cells: pd.Series) -> pd.Series:
    """(n,) Int32 years; missing where unreadable or above 120."""
    return map_once(cells, parse_age).astype("Int32")


def canonical_ids(values: pd.Series) -> pd.Series:
    """Ids as text: "101" for 101, 101.0, "101.0", "101,0" and " 101 ", with or without a name before a colon.

    One gap makes a column of whole numbers one of floats, in a parquet file and in what pandas writes as csv. Leading
    zeros, case and blanks inside stay as they are, because they may tell two patients apart: see `twin_keys`.

    Args:
        values: (n,) numbers or text; missing ones may be words for nothing ("nan", "None").

    Returns:
        (n,) text; empty where the id is missing.
    """
    ids = as_text(values)
    return ids.str.replace(_WHOLE, r"\1", regex=True) if ids.str.contains(r"[.,]0+$").any() else ids


def column_reader(name: str) -> Callable[[pd.Series], pd.Series]:
    """What makes text of a column of that name: ids have a spelling of their own."""
    return canonical_ids if name in ("patient_id", "study_id") else as_text


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
