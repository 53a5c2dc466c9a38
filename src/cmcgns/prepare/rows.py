"""Rows of the manifest: what the dataset states, joined with what was seen in its images."""

import json
from collections.abc import Mapping

import pandas as pd

from cmcgns.data.vocabulary import parse_age, parse_sex, parse_view
from cmcgns.prepare.image import ImageResult
from cmcgns.prepare.sources.base import SourceTable

_SEEN = ("image_path", "mask_path", "width", "height", "original_width", "original_height", "sha256")


def manifest_rows(table: SourceTable, results: Mapping[str, ImageResult]) -> pd.DataFrame:
    """Join the table with the results; images that failed go to `table.left_out`.

    Boxes are scaled to the stored image. View, sex and age are filled from the file's own tags where the dataset's
    tables do not state them; FRONTAL, which leaves AP or PA open, gives way to the tag that says which.
    """
    if len(table.frame) == 0:
        return table.frame
    found = pd.DataFrame([_seen(results[source]) for source in table.frame["source"]])
    failed = found["error"] != ""
    table.leave_out(failed, found["error"], table.frame["source"])
    found = found[~failed].reset_index(drop=True)
    frame = table.frame.drop(columns="mask", errors="ignore").reset_index(drop=True)
    for name in _SEEN:
        frame[name] = found[name]
    for name in ("view", "sex", "age"):
        stated = frame[name] if name in frame else pd.Series("", index=frame.index)
        tag = found[f"tag_{name}"]
        text = stated.astype("str")
        unclear = stated.isna() | (text == "")
        if name == "view":
            unclear |= (text == "FRONTAL") & tag.isin(("AP", "PA"))
        frame[name] = stated.astype(object).where(~unclear, tag)
    for name in ("laterality", "identifying_tags"):  # columns of their own, where any file states them
        if (found[name] != "").any():
            frame[name] = found[name]
    if "boxes" in frame:
        columns = ("boxes", "width", "height", "original_width", "original_height")
        frame["boxes"] = [_scale_boxes(*row) for row in zip(*(frame[name] for name in columns), strict=True)]
    return frame


def _seen(result: ImageResult) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(result, name) for name in (*_SEEN, "error")}
    tags = result.tags
    row["tag_view"] = parse_view(tags.get("ViewPosition", "")) or ""
    row["tag_sex"] = parse_sex(tags.get("PatientSex", ""))
    age = parse_age(tags.get("PatientAge", ""))
    row["tag_age"] = "" if age is None else str(age)
    row["laterality"] = tags.get("ImageLaterality", "") or tags.get("Laterality", "")
    row["identifying_tags"] = tags.get("identifying", "")
    return row


def _scale_boxes(text: str, width: int, height: int, original_width: int, original_height: int) -> str:
    if text in ("", "[]"):
        return text
    scale = {"x": width / original_width, "y": height / original_height}
    boxes = json.loads(text)
    for box in boxes:
        for key, axis in (("x", "x"), ("y", "y"), ("width", "x"), ("height", "y")):
            box[key] = round(box[key] * scale[axis], 3)
        if box.get("points") is not None:
            box["points"] = [[round(x * scale["x"], 3), round(y * scale["y"], 3)] for x, y in box["points"]]
    return json.dumps(boxes, ensure_ascii=False)
