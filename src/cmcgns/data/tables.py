"""Tables on disk: csv as text, parquet in its own types; what is wrong with one is said with its name."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from cmcgns.common.errors import UserError

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def find_table(path: Path, preferred: tuple[str, ...] = ()) -> Path:
    """The table meant by a path.

    Args:
        path: a table, or a folder with a table of a preferred name or a single one.
        preferred: file names, the first that is there wins.

    Raises:
        UserError: there is none, or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    for name in preferred:
        if (path / name).is_file():
            return path / name
    tables = sorted(file for file in path.iterdir() if file.name.lower().endswith(SUFFIXES))
    if len(tables) != 1:
        found = ", ".join(file.name for file in tables) or "none"
        kinds = f"*{', *'.join(SUFFIXES)}"
        raise UserError(f"{path}: one table ({kinds}) is expected there (found: {found}); name the file")
    return tables[0]


def read_table(
    path: Path, required: Iterable[str] = (), columns: list[str] | None = None, strip_names: bool = True
) -> pd.DataFrame:
    """A table with its columns in order.

    Args:
        path: a parquet file, or a csv file (or .csv.gz): every cell text, missing ones empty; byte order marks, CRLF
            and rows shorter than the header are fine.
        required: columns that must be there.
        columns: those to read of a parquet file; by default all.
        strip_names: remove blanks around the column names of a csv file.

    Raises:
        UserError: missing file, no header, repeated or missing columns, rows longer than the header, not text.
    """
    if is_parquet(path):
        frame = _read_parquet(path, columns)
    else:
        cells = read_cells(path)
        frame = cells.iloc[1:].reset_index(drop=True)
        frame.columns = pd.Index([name.strip() if strip_names else name for name in cells.iloc[0]])
    names = [str(name) for name in frame.columns]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise UserError(f"{path}: columns are separated by semicolons, tabs or bars; save it with commas")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"{path}: column {repeated[0]!r} stands there twice")
    missing = [name for name in required if name not in names]
    if missing:
        raise UserError(f"{path}: missing column {missing[0]} (found: {', '.join(names)})")
    return frame


def read_cells(path: Path) -> pd.DataFrame:
    """All lines of a csv file as text, its header among them.

    Raises:
        UserError: missing file, empty, rows longer than the header, not text.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        # Without a header pandas takes rows longer than the column names for rows with an index, and shifts them.
        return pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig", compression="infer",
            low_memory=False,
        ).fillna("")  # fmt: skip
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as csv: {str(error).strip()}") from error


def is_parquet(path: Path) -> bool:
    """Whether the file's name says so."""
    return path.name.lower().endswith(".parquet")


def parquet_columns(path: Path) -> list[str]:
    """Names of all columns of a parquet file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return list(map(str, pyarrow.parquet.read_schema(path).names))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error


def _read_parquet(path: Path, columns: list[str] | None) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path, columns=columns)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error
    pyarrow.default_memory_pool().release_unused()
    return frame


def as_text(values: pd.Series) -> pd.Series:
    """Stripped strings; missing values of any spelling are empty, and 12.0 in a column with gaps is 12 again."""
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    if not isinstance(values.dtype, pd.StringDtype):  # else no detour over Python objects: a million take 0.1 GB
        values = values.astype(object).where(values.notna(), "").astype(str)
    text = values.fillna("").astype("str").str.strip()
    return text.mask(text.str.lower() == "nan", "")
