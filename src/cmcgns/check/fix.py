"""A cleaned copy of a manifest, and an account of what it leaves out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmcgns.check.box_table import parse_boxes, sticks_out
from cmcgns.check.rule import positions
from cmcgns.check.run import Report
from cmcgns.common.errors import UserError
from cmcgns.common.files import write_json
from cmcgns.data.manifest import boxes_text, read_manifest, write_manifest


@dataclass(frozen=True)
class Cleaned:
    """What was written.

    Attributes:
        path: the cleaned manifest.
        account: JSON file that says, row by row, what was left out or changed and why.
        rows: of the cleaned manifest.
        left_out: rows left out, by the first rule that was against them.
        clipped: rows whose boxes were clipped.
    """

    path: Path
    account: Path
    rows: int
    left_out: dict[str, int]
    clipped: int


def fix(folder: Path, report: Report, out_name: str = "manifest.cleaned.parquet") -> Cleaned:
    """Write a manifest without the rows that findings of this report are against; the original stays.

    Rows with errors are left out. Of duplicates the first row stays; of a patient or picture in several splits the
    rows of test stay, else those of val. Boxes that stick out of the image are clipped.

    Args:
        folder: one of the folders (or manifests) that were checked.
        report: of a check that has seen this manifest as it is now.
        out_name: name of the file, put beside the manifest.

    Raises:
        UserError: the report is about other manifests or another state of this one, or the name is the original's.
    """
    file = folder / "manifest.parquet" if folder.is_dir() else folder
    summary = [item for item in report.manifests if item.file.resolve() == file.resolve()]
    if not summary:
        checked = ", ".join(str(item.file) for item in report.manifests)
        raise UserError(f"{file} was not checked (checked: {checked}); run the check on it first")
    if Path(out_name).name != out_name or out_name in ("", ".", "..", "manifest.parquet", file.name):
        raise UserError(
            f"{out_name!r} is no name for a cleaned manifest beside {file}; the original is never touched"
        )
    frame = read_manifest(file).reset_index(drop=True)
    if len(frame) != summary[0].rows:
        raise UserError(f"{file} has {len(frame):,} rows, {summary[0].rows:,} when it was checked; check it again")
    reasons = _reasons(report, summary[0].file)
    out = file.with_name(out_name)
    kept = np.ones(len(frame), dtype=bool)
    kept[list(reasons)] = False
    clipped = _clip_boxes(frame)
    clipped = {row: count for row, count in clipped.items() if kept[row]}
    write_manifest(frame[kept], out)
    account = out.with_suffix(".json")
    write_json(account, _account(file, frame, kept, reasons, clipped))
    first = [texts[0].split(":")[0] for texts in reasons.values()]
    left_out = {name: first.count(name) for name in dict.fromkeys(first)}
    return Cleaned(out, account, int(kept.sum()), left_out, len(clipped))


def _reasons(report: Report, file: Path) -> dict[int, list[str]]:
    """Row -> "rule: message" of every finding that leaves it out."""
    reasons: dict[int, list[str]] = {}
    for finding in report.findings:
        if finding.manifest == file:
            for row in finding.drop:
                reasons.setdefault(row, []).append(f"{finding.rule}: {finding.message}")
    return dict(sorted(reasons.items()))


def _clip_boxes(frame: pd.DataFrame) -> dict[int, int]:
    """Clip boxes in place; returns row -> number of boxes that were clipped."""
    boxes, _ = parse_boxes(frame)
    texts = frame["boxes"].tolist()
    rows = boxes["row"].to_numpy()
    clipped: dict[int, int] = {}
    for position in positions(sticks_out(boxes)):
        row = int(rows[position])
        listed = json.loads(texts[row])
        _clip(listed[position - int(np.searchsorted(rows, row))], boxes.iloc[position])  # rows are in order
        texts[row] = boxes_text(listed)
        clipped[row] = clipped.get(row, 0) + 1
    frame["boxes"] = texts
    return clipped


def _clip(box: dict[str, Any], measured: "pd.Series[float]") -> None:
    for start, length, end in (("x", "width", "image_width"), ("y", "height", "image_height")):
        low = max(0.0, measured[start])
        high = measured[start] + measured[length]
        bound = measured[end]
        box[start], box[length] = low, (high if np.isnan(bound) else min(high, bound)) - low


def _account(
    file: Path,
    frame: pd.DataFrame,
    kept: "np.ndarray[Any, Any]",
    reasons: dict[int, list[str]],
    clipped: dict[int, int],
) -> dict[str, Any]:
    return {
        "made_from": file.name,
        "rows_count_from": 1,
        "rows": len(frame),
        "rows_kept": int(kept.sum()),
        "left_out": [
            {"row": row + 1, "image_path": str(frame["image_path"].iloc[row]), "reasons": texts}
            for row, texts in reasons.items()
        ],
        "boxes_clipped": [
            {"row": row + 1, "image_path": str(frame["image_path"].iloc[row]), "boxes": count}
            for row, count in clipped.items()
        ],
    }
