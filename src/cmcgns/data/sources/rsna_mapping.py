"""RSNA's mapping: which NIH ChestX-ray14 image every image of its challenge was made from."""

import json
from pathlib import Path

import pandas as pd

from cmcgns.data.sources.base import read_table
from cmcgns.errors import UserError

MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_PATTERNS = (MAPPING, "*mapping*.json", "*mapping*.csv", "*mapping*.csv.gz")


def find_mapping(root: Path) -> Path | None:
    """The mapping in the dataset's folder under its own name, else the first file that is called a mapping."""
    return next((path for pattern in _PATTERNS for path in sorted(root.glob(pattern))), None)


def read_mapping(file: Path) -> pd.Series:
    """Challenge image -> NIH image, e.g. "00001280_003.png"; images that a file maps twice are not in it.

    Args:
        file: RSNA's json (a list of records with `subset_img_id` and `img_id`), or a csv file with the columns
            `rsna_patientId` and `nih_index`.

    Raises:
        UserError: unreadable, or of another structure; names the missing key.
    """
    if ".csv" in file.name:
        pairs = read_table(file, ("rsna_patientId", "nih_index"))[["rsna_patientId", "nih_index"]]
        pairs = pairs.set_axis(["subset_img_id", "img_id"], axis=1)
    else:
        pairs = _mapping_records(file)
    pairs = pairs.astype("str").apply(lambda column: column.str.strip()).drop_duplicates()
    unique = pairs.drop_duplicates("subset_img_id", keep=False)
    return pd.Series(unique["img_id"].to_numpy(), index=unique["subset_img_id"])


def _mapping_records(file: Path) -> pd.DataFrame:
    try:
        records = json.loads(file.read_text("utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as json: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{file}: a list of records is expected, each with `subset_img_id` and `img_id`")
    for key in ("subset_img_id", "img_id"):
        number = next((number for number, record in enumerate(records, 1) if key not in record), None)
        if number:
            found = ", ".join(map(str, records[number - 1]))
            raise UserError(f"{file}: record {number} has no key {key} (found: {found[:200]})")
    return pd.DataFrame(records, columns=["subset_img_id", "img_id"])
