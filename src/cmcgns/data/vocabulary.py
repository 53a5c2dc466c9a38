"""Words of tables and DICOM tags as the manifest has them: view, split, sex, age, what stands for nothing."""

import re

import pandas as pd

VIEWS = ("AP", "PA", "FRONTAL", "LATERAL", "OTHER", "")  # FRONTAL: AP or PA, which of them is not known
MISSING = ("", "nan", "na", "n/a", "none", "null", "<na>")
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
_AGE = re.compile(r"(\d{1,3})(?:\.\d*)?\s*([YMWD]?)")
_A_YEAR = {"Y": 1, "M": 12, "W": 52, "D": 365}
_OLDEST = 120

CHEXPERT_FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)


def is_missing(cells: pd.Series) -> pd.Series:
    """(n,) Boolean: the cell is empty, or says so ("nan", "None")."""
    return cells.str.strip().str.lower().isin(MISSING)


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
    return ~cells.map({cell: parse_view(str(cell)) for cell in cells.unique()}).isin(("LATERAL", "OTHER"))


def parse_splits(cells: pd.Series) -> pd.Series:
    """(n,) train, val, test or empty; missing where the word is not known."""
    return cells.str.strip().str.lower().mask(is_missing(cells), "").map(_SPLITS)


def parse_sex(text: str) -> str:
    """F, M or empty."""
    return _SEXES.get(text.strip().lower(), "")


def parse_sexes(cells: pd.Series) -> pd.Series:
    """(n,) F, M or empty."""
    return cells.map({cell: parse_sex(cell) for cell in cells.unique()}).astype("str")


def parse_age(text: str) -> int | None:
    """Years from "58", "58.0", "058Y", "011M" (months, weeks, days); None where unreadable or above 120."""
    match = _AGE.fullmatch(text.strip().upper())
    if match is None:
        return None
    years = int(match[1]) // _A_YEAR[match[2] or "Y"]
    return years if years <= _OLDEST else None


def parse_ages(cells: pd.Series) -> pd.Series:
    """(n,) Int32 years; missing where unreadable or above 120."""
    return cells.map({cell: parse_age(cell) for cell in cells.unique()}).astype("Int32")
