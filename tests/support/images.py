"""Prepared datasets as the protocols' tasks see them."""

from collections.abc import Mapping
from pathlib import Path

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import LABEL, label_columns, read_manifest
from cmcgns.evaluation.image_set import ImageSet, image_set_of


def read_image_set(folder: Path, split: str, size: int, uncertain: Mapping[str, float] | None = None) -> ImageSet:
    """Read a split of a prepared dataset.

    Args:
        folder: with `manifest.parquet`, or the manifest.
        split: train, val or test.
        size: S, side of the squares.
        uncertain: what -1 means, by label; -1 of other labels becomes NaN (not used).

    Raises:
        UserError: no such manifest, no row of the split, or unreadable images; names them.
    """
    frame = read_manifest(folder)
    base = folder if folder.is_dir() else folder.parent
    found = ", ".join(sorted({str(name) or "none" for name in frame["split"]}))
    frame = frame[frame["split"] == split].reset_index(drop=True)
    if len(frame) == 0:
        raise UserError(f"{folder}: no row has split {split} (found: {found})")
    names = [name.removeprefix(LABEL) for name in label_columns(frame)]
    return image_set_of(frame, base, size, names, uncertain or {})
