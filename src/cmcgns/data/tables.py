"""Tables on disk: csv as text, parquet in its own types; what is wrong with one is said with its name."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from cmcgns.common.errors import UserError, did_you_mean, one_line, shortened
from cmcgns.common.files import sha256
from cmcgns.data.delimited import MAX_ROWS, TextFormat, read_cells

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
MISSING = ("", "nan", "na", "n/a", "none", "null", "<na>")
_ROWS = 10_000  # written as text at once
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
_SAY_SEPARATOR = (
    "; if that is one column, its separator is none that is found by itself: `prepare table --separator MARK`, "
    "`pretrain --set data.separator=MARK`"
)


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
        found = shortened(", ".join(file.name for file in tables)) or "none"
        sheets = sorted(file.name for file in path.iterdir() if file.name.lower().endswith(_SHEETS))
        hint = f"; {shortened(sheets[0])} is a spreadsheet: save it as CSV (UTF-8)" if sheets and not tables else ""
        kinds = f"*{', *'.join(SUFFIXES)}"
        raise UserError(f"{path}: one table ({kinds}) is expected there (found: {found}); name the file{hint}")
    return tables[0]


def read_table(
    path: Path,
    required: Iterable[str] = (),
    columns: list[str] | None = None,
    form: TextFormat | None = None,
) -> pd.DataFrame:
    """A table with its columns in order.

    Args:
        path: a parquet file, or a csv file (or .csv.gz, .tsv): every cell text, missing ones empty; byte order marks,
            blanks round names, any line ends, commas, semicolons, tabs or bars, and rows shorter than the header are
            fine.
        required: columns that must be there.
        columns: those to read of a parquet file; by default all.
        form: separator and encoding of a csv file, where they are not found by themselves.

    Raises:
        UserError: missing file, no header, repeated or missing columns, rows longer than the header, open quotes, not
            text.
    """
    frame = _read_parquet(path, columns) if is_parquet(path) else _read_text(path, form)
    names = list(frame.columns)
    repeated = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    if repeated:
        raise UserError(f"{path}: column {shortened(repeated[0])!r} stands there twice: take one away, or rename it")
    missing = [name for name in required if name not in names]
    if missing:
        raise UserError(f"{path}: missing column {missing[0]} {describe_columns(missing[0], names)}")
    return frame


def table_sha256(path: Path, without: Sequence[str] = ()) -> str:
    """Hash of what a parquet table says: how it is packed, and by what, does not matter; of other files the bytes.

    Args:
        path: the table.
        without: columns of a parquet table that do not count; they may be missing.

    Raises:
        UserError: as :func:`read_table`.
    """
    if not is_parquet(path):
        return sha256(path)
    frame, digest = read_table(path).drop(columns=[*without], errors="ignore"), hashlib.sha256()
    for start in range(0, max(1, len(frame)), _ROWS):
        rows = frame.iloc[start : start + _ROWS]
        digest.update(rows.to_csv(index=False, header=start == 0, lineterminator="\n").encode())
    return digest.hexdigest()


def plain_name(column: str) -> str:
    """A column's name without case, blanks and marks; `Patient ID` and `patient_id` are one name to a reader."""
    return "".join(filter(str.isalnum, column.casefold()))


def refuse_twins(
    names: Sequence[str], known: Sequence[str], mapping: Mapping[str, str], option: Callable[[str], str], path: Path
) -> None:
    """Stop at columns of one name but for case, blanks and marks, one of which would be used unasked.

    Args:
        names: of the table's columns.
        known: names that are used.
        mapping: known name -> the table's column, as the user says.
        option: how the user says it: spells an `OURS=THEIRS` as the command line takes it.
        path: the table, for the message.
    """
    plain = {plain_name(name): name for name in names if name not in known and name not in mapping.values()}
    for name in known:
        twin = plain.get(plain_name(name))
        if twin is not None and name in names and name not in mapping:
            raise UserError(
                f"{path}: the columns {name} and {twin} are both there; say which one is meant with "
                f"{option(f'{name}={twin}')} (or {option(f'{name}={name}')})"
            )


def describe_columns(wanted: str, names: list[str], hint: str = "") -> str:
    """What a message says of the columns of a table that lacks one: "(found: a, b); HINT. Did you mean a?"."""
    near = did_you_mean(wanted, names)
    if len(names) == 1 and not names[0].isidentifier():
        hint += _SAY_SEPARATOR
    return f"(found: {shortened(', '.join(map(shortened, names)))}){hint}" + (f".{near}" if near else "")


def _read_text(path: Path, form: TextFormat | None) -> pd.DataFrame:
    header, frame = read_cells(path, form)
    names = [name.strip() for name in header]
    frame.columns = pd.Index(names)
    nameless = [place for place, name in enumerate(names) if not name]
    if len(nameless) > 1 or (nameless and (frame.iloc[:, nameless[0]] == "").all()):
        # Separators at the end of every line: columns without name and content.
        empty = [place for place in nameless if (frame.iloc[:, place] == "").all()]
        frame = frame.iloc[:, [place for place in range(len(names)) if place not in set(empty)]]
    return frame


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
        raise UserError(f"{path} cannot be read as parquet: {one_line(error)}") from error


def _read_parquet(path: Path, columns: list[str] | None) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        rows = pyarrow.parquet.read_metadata(path).num_rows
        if rows > MAX_ROWS:
            raise UserError(f"{path}: {rows:,} rows are more than the bound {MAX_ROWS:,}")
        frame = pd.read_parquet(path, columns=columns)
    except UserError:
        raise
    except (ValueError, OSError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as parquet: {one_line(error)}") from error
    pyarrow.default_memory_pool().release_unused()
    named = [name for name in frame.index.names if name is not None]  # columns that pandas had made its index
    frame = frame.reset_index(level=named) if named else frame.reset_index(drop=True)
    frame.columns = pd.Index(list(map(str, frame.columns)))
    for name in frame.select_dtypes("object"):
        frame[name] = _without_bytes(frame[name], path)
    return frame


def _without_bytes(cells: pd.Series, path: Path) -> pd.Series:
    """Bytes, as some writers of parquet store text, are UTF-8."""
    stored = [isinstance(cell, bytes) for cell in cells]
    if not any(stored):
        return cells
    text = cells.astype(object).to_list()
    for row in np.flatnonzero(stored):
        try:
            text[row] = text[row].decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, row {row + 1}: column {cells.name} holds bytes that are no UTF-8 text ({error.reason}): "
                "write the table again with text in it, or as csv with --encoding"
            ) from error
    return pd.Series(text, index=cells.index, name=cells.name)


def is_missing(cells: pd.Series) -> pd.Series:
    """(n,) Boolean: the cell is empty, or says so ("nan", "None")."""
    return cells.str.strip().str.lower().isin(MISSING)


def map_once(cells: pd.Series, change: Callable[[Any], object]) -> pd.Series:
    """(n,) The changed cells; each distinct one is changed once, because most of them repeat."""
    return cells.map({cell: change(cell) for cell in cells.unique()})


def has_nul(frame: pd.DataFrame) -> pd.Series:
    """(n,) Boolean: a cell of text has a NUL byte, the mark of a damaged file."""
    found = pd.Series(False, index=frame.index)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype):
            found |= frame[name].str.contains("\0", regex=False).fillna(False)
    return found


def refuse_nested(frame: pd.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Stop at columns of a parquet file whose cells are lists or records: their text would be brackets and marks."""
    for name in columns:
        cells = frame[name]
        if cells.dtype == object and any(isinstance(cell, list | dict | tuple | np.ndarray) for cell in cells):
            raise UserError(f"{path}: the cells of column {name} are lists or records; text or numbers are expected")


def as_text(values: pd.Series) -> pd.Series:
    """Stripped strings; missing values of any spelling are empty, and 12.0 in a column with gaps is 12 again."""
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    if not isinstance(values.dtype, pd.StringDtype):  # else no detour over Python objects: a million take 0.1 GB
        values = values.astype(object).where(values.notna(), "").astype(str)
    text = values.fillna("").astype("str").str.strip()
    return text.mask(is_missing(text), "")
