"""The manifest: one row per image, one schema for every dataset, checked when written and when read."""

import io
from pathlib import Path

import pandas as pd

from cmcgns.common.errors import UserError, shortened
from cmcgns.common.files import write_bytes
from cmcgns.common.remote import not_here
from cmcgns.data.tables import SUFFIXES, is_parquet, read_table
from cmcgns.data.vocabulary import column_reader

LABEL = "label_"
SYNTHETIC = "phantom"
"""Dataset of drawings, which resemble each other more than radiographs do."""
SPLITS = ("train", "val", "test", "")
REPORT_COLUMNS = ("findings", "impression", "report")

# Text columns; missing values are empty strings.
TEXT = {
    "image_path": "image file, relative to the manifest's folder (or a URL)",
    "study_id": "`dataset:study`; images of one visit share it",
    "patient_id": "`dataset:patient`; datasets that share patients share the prefix (RSNA's are `nih:`)",
    "dataset": "name of the source",
    "view": "AP, PA, FRONTAL (AP or PA), LATERAL, OTHER or empty",
    "split": "train, val, test or empty",
    "split_rule": "v1 or legacy: what `prepare --split` was told; empty: the table's own splits",
    "findings": "section of the report",
    "impression": "section of the report",
    "report": "the whole report, where it has no sections",
    "sex": "F, M or empty",
    "boxes": "JSON list of {label, x, y, width, height, …} in pixels of the stored image; empty: not annotated",
    "mask_path": "PNG of the stored image's size, 255 inside; empty: none",
    "source": "the file that the row was made from, relative to the dataset's folder",
    "sha256": "of the source file",
}
# Whole numbers; may be missing.
NUMBERS = {
    "age": "years",
    "width": "of the stored image, pixels",
    "height": "of the stored image, pixels",
    "original_width": "of the source image, pixels",
    "original_height": "of the source image, pixels",
}
REQUIRED = ("image_path", "study_id", "patient_id", "dataset", "view", "split")


def label_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the columns that hold labels: `label_Edema` has 1, 0, -1 (uncertain) or nothing."""
    return [str(column) for column in frame.columns if str(column).startswith(LABEL)]


def conform(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The same rows with the manifest's columns and types.

    Args:
        frame: must have the required columns; others of the schema are added empty; unknown ones stay.
        where: named in messages.

    Raises:
        UserError: a missing column, or values of another type; names column and row.
    """
    missing = [name for name in REQUIRED if name not in frame]
    if missing:
        raise UserError(f"{where}: missing column {missing[0]} (a manifest needs {', '.join(REQUIRED)})")
    columns: dict[str, pd.Series] = {}
    for name in TEXT:
        read = column_reader(name)
        columns[name] = read(frame[name]) if name in frame else pd.Series("", index=frame.index, dtype="str")
    for name in NUMBERS:
        values = frame[name] if name in frame else pd.Series(pd.NA, index=frame.index)
        columns[name] = _as_integers(values, 2**31 - 1, name, where).astype("Int32")
    for name in label_columns(frame):
        columns[name] = _as_integers(frame[name], 127, name, where).astype("Int8")
    columns |= {str(name): frame[name] for name in frame.columns if str(name) not in columns}
    return pd.DataFrame(columns)


def _as_integers(values: pd.Series, bound: int, name: str, where: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype("Float64")
    stated = values.notna() & (values.astype("str").str.strip() != "")
    fits = (numbers % 1 == 0) & (numbers.abs() <= bound)
    wrong = stated & ~fits.fillna(False).astype(bool)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        cell = repr(shortened(values.iloc[row]))
        raise UserError(f"{where}: {name} in row {row + 1} is {cell}; a whole number is expected")
    return numbers


def write_manifest(frame: pd.DataFrame, path: Path) -> Path:
    """Check and write a manifest; a reader never sees half of it.

    Raises:
        UserError: the rows do not fit the schema.
    """
    buffer = io.BytesIO()
    conform(frame, path.name).to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())
    return path


def read_manifest(path: Path) -> pd.DataFrame:
    """Rows of a manifest, or of `manifest.parquet` in a folder, in the schema's types.

    Raises:
        UserError: there is none, it is unreadable, or it does not fit the schema.
    """
    file = path / "manifest.parquet" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such manifest; `cmcgns prepare` writes one{not_here(file)}")
    if not is_parquet(file) and file.name.lower().endswith(SUFFIXES):
        raise UserError(f"{file} is no manifest but a table; `cmcgns prepare table --root {file}` makes one of it")
    return conform(read_table(file), str(file))
