"""Projections as the manifest names them."""

import pandas as pd

_UNKNOWN = {"", "?", "NAN", "NONE", "NA", "N/A", "UNK", "UNKNOWN"}
_NAMES = {
    "ANTEROPOSTERIOR": "AP",
    "POSTEROANTERIOR": "PA",
    "F": "FRONTAL",
    "FRONTAL": "FRONTAL",
    "L": "LATERAL",
    "LL": "LATERAL",
    "RL": "LATERAL",
    "LAT": "LATERAL",
    "LATERAL": "LATERAL",
    "LEFT LATERAL": "LATERAL",
    "RIGHT LATERAL": "LATERAL",
    "OTHER": "OTHER",
    "OBLIQUE": "OTHER",
    "LORDOTIC": "OTHER",
    "SWIMMERS": "OTHER",
    "XTABLE LATERAL": "OTHER",
    "LAO": "OTHER",
    "RAO": "OTHER",
    "LPO": "OTHER",
    "RPO": "OTHER",
    "LLO": "OTHER",
}
# Frontal beams whose pictures do not look like a frontal view.
_UNUSUAL = {"LLD", "RLD", "AXIAL", "LORDOTIC", "DECUBITUS", "OBLIQUE"}


def normalise_views(cells: pd.Series) -> tuple[pd.Series, list[str]]:
    """AP, PA, FRONTAL, LATERAL, OTHER or empty for what datasets write ("AP Supine", "LL", "?").

    Args:
        cells: (n,) text.

    Returns:
        (n,) views, and the words that are not known (their view is OTHER).
    """
    names = {cell: normalise_view(str(cell)) for cell in cells.unique()}
    unknown = sorted(str(cell) for cell, name in names.items() if name is None)
    return cells.map({cell: name or ("OTHER" if name is None else "") for cell, name in names.items()}), unknown


def normalise_view(text: str) -> str | None:
    """One view; None if the words are not known."""
    words = text.upper().replace("_", " ").replace("-", " ").split()
    name = " ".join(words)
    if name in _UNKNOWN:
        return ""
    if words[0] in ("AP", "PA"):
        return "OTHER" if _UNUSUAL & set(words) else words[0]
    return _NAMES.get(name)


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
