"""Studies of a table of pairs, read as a pretrained pair of encoders wants them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.common.files import expanded, sha256
from cmcgns.data.boxes import placed_boxes
from cmcgns.data.manifest import SYNTHETIC
from cmcgns.data.pairs.dataset import PairDataset, pair_dataset
from cmcgns.data.pairs.rows import PairTable, read_pairs, rows_of_split
from cmcgns.data.pairs.table import TABLE_NAMES
from cmcgns.data.reports.text import split_sentences
from cmcgns.data.shards.index import open_shards
from cmcgns.data.tables import find_table
from cmcgns.metrics.overlap import box_masks
from cmcgns.pretrained import Pretrained
from cmcgns.settings.config import DataSettings
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import open_seen


@dataclass(frozen=True)
class StudySet:
    """Some rows of a table.

    Attributes:
        source: the table.
        frame: n rows of it, numbered from 0.
        dataset: the same as batches.
    """

    source: Path
    frame: pd.DataFrame
    dataset: PairDataset

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def patients(self) -> NDArray[np.object_]:
        """(n,) patient ids."""
        return self.frame["patient_id"].to_numpy(dtype=object)

    @property
    def is_synthetic(self) -> bool:
        """Whether all of them are drawings of the built-in kind."""
        return bool((self.frame["dataset"] == SYNTHETIC).all())

    @cached_property
    def sentences(self) -> list[list[str]]:
        """Of each report the sentences that the model reads: long reports are cut."""
        kept = np.diff(self.dataset.tokens.sentence_offsets)
        return [split_sentences(text)[:count] for text, count in zip(self.frame["text"], kept, strict=True)]

    def box_masks(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """(b, 1, H, W) true inside any box of some rows (b,), in the pixels of the encoder's input.

        Boxes are in pixels of the file; the image was resized by its long side, padded and cropped at the centre.
        """
        resize, size = self.dataset.settings.resize, self.dataset.settings.image_size
        about = self.frame[["boxes", "width", "height", "image_path"]].iloc[rows].itertuples(index=False)
        placed = [placed_boxes(text, width, height, name, resize, size)[1] for text, width, height, name in about]
        return box_masks(placed, size)[:, None]


def read_study_set(manifest: Path, split: str, model: Pretrained) -> StudySet:
    """Read a split.

    Raises:
        UserError: as :func:`read_table`; no row of this split.
    """
    pairs, data = read_table(model, manifest)
    pairs.frame = rows_of_split(pairs, split)
    return as_studies(model, pairs, data)


def read_table(model: Pretrained, manifest: Path, images: Path | None = None) -> tuple[PairTable, DataSettings]:
    """All rows that a run could be trained on, and the settings to read them with.

    Args:
        model: the run.
        manifest: table or folder of pairs.
        images: folder where its image paths start; by default the table's own, and of the table that the run was
            trained on the run's (`data.images`).

    Raises:
        UserError: shards, a table that cannot be read or has no reports, or no such folder.
    """
    if open_shards(manifest) is not None:
        raise UserError(f"{manifest} holds shards, which cannot be read here: give the folder that they come from")
    data = _settings_for(model, manifest, images)
    return read_pairs(manifest, data), data


def as_studies(model: Pretrained, pairs: PairTable, data: DataSettings, rebuilds: bool = True) -> StudySet:
    """Rows of a table with their images.

    Args:
        model: the run.
        pairs: the rows.
        data: of :func:`read_table`.
        rebuilds: whether images are to be rebuilt too, for which some runs read them in twice the side.
    """
    pairs.frame = pairs.frame.reset_index(drop=True)
    fine: Literal["read"] | None = "read" if rebuilds and model.recipe.needs_fine_images else None
    dataset = pair_dataset(pairs, model.tokenizer, data, fine=fine)
    return StudySet(pairs.source, pairs.frame, dataset)  # the frame is now without unreadable images


def _settings_for(model: Pretrained, manifest: Path, images: Path | None) -> DataSettings:
    """The run's settings, with a folder of images that belongs to this table."""
    data = model.recipe.data
    if images is None and data.images and model.folder is not None:
        before = RunFolder(model.folder).read_provenance().get("manifest_sha256")
        if before == sha256(find_table(manifest, TABLE_NAMES)):
            if not expanded(data.images).is_dir():
                raise UserError(
                    f"{data.images}, where the run found its images (data.images), is no folder here: "
                    "say with --images DIR where they are now"
                )
            return data
    if images is not None and not expanded(images).is_dir():
        raise UserError(f"--images {images}: no such folder")
    return data.model_copy(update={"images": str(images) if images else None})


def trained_on(model: Pretrained, pairs: PairTable | StudySet) -> pd.Series | None:
    """Rows whose patient, study or file is a training one; ids count within a data set, missing ones are no ids.

    Args:
        model: the run.
        pairs: the rows.

    Returns:
        True or False a row; None where the run has no list of what it has seen.

    Raises:
        UserError: that list is damaged.
    """
    seen = open_seen(RunFolder(model.folder).seen) if model.folder is not None else None
    if seen is None:
        return None
    frame, trained = pairs.frame, seen.frame[seen.frame["part"] == "train"]
    below = frame["study_id"].str.removeprefix(f"{pairs.source.parent.resolve()}/")  # a path stands for a missing id
    found = (frame["dataset"] + "\n" + below).isin(trained["dataset"] + "\n" + trained["study_id"])
    known = trained[trained["patient_id"] != ""]
    found |= (frame["dataset"] + "\n" + frame["patient_id"]).isin(known["dataset"] + "\n" + known["patient_id"])
    if "sha256" in frame:
        found |= frame["sha256"].str.strip().str.lower().isin(set(trained["sha256"]) - {""})
    return found
