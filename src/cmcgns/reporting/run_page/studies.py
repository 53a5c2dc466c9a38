"""Studies that a run did not train on, as its encoders see them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256
from cmcgns.data.boxes import parse_boxes, picture_size
from cmcgns.data.images.place import place_boxes
from cmcgns.data.images.read import read_image
from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.dataset import PairDataset, pair_dataset
from cmcgns.data.pairs.rows import PairTable, read_pairs
from cmcgns.data.pairs.table import TABLE_NAMES
from cmcgns.data.reports.text import split_sentences
from cmcgns.data.shards.index import open_shards
from cmcgns.data.tables import find_table
from cmcgns.pretrained import Pretrained
from cmcgns.reporting.style import Box
from cmcgns.settings.config import DataSettings
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import SeenFile, open_seen

Floats = NDArray[np.float32]
_STUDIES = 1000  # enough to look at; features of all of them are kept in memory


@dataclass(frozen=True)
class EncodedStudies:
    """Studies with their features; entry i of everything belongs to study i.

    Attributes:
        model: the pretrained encoders and the objective.
        split: where the studies come from; empty: rows of a table without such splits.
        unseen: whether the run is known not to have trained on them.
        frame: n rows of the table, numbered from 0.
        dataset: the studies as batches.
        sentences: the sentences that the model reads of each report.
        boxes: findings with a place; empty where the table has none.
        image: (n, D) unit image embeddings.
        report: (n, D) unit report embeddings.
        patches: (n, P, D) f_I.
        sentence_features: per study (m, D) f_R.
        grid: (h, w) of the patches.
    """

    model: Pretrained
    split: str
    unseen: bool
    frame: pd.DataFrame
    dataset: PairDataset
    sentences: list[list[str]]
    boxes: list[list[Box]]
    image: Tensor
    report: Tensor
    patches: Tensor
    sentence_features: list[Tensor]
    grid: tuple[int, int]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def report_text(self) -> NDArray[np.int64]:
        """(n,) equal numbers mean equal reports."""
        return self.dataset.tokens.report_text

    @property
    def shown(self) -> str:
        """The studies in words."""
        return f"{len(self)} studies of the {f'split “{self.split}”' if self.split else 'table'}"

    def fine_pixels(self, row: int) -> Floats:
        """(S, S) what the encoder sees, in [-1, 1], in more pixels than it gets."""
        settings = self.dataset.settings
        times = max(1, min(4, 320 // settings.image_size))
        return _crop(read_image(Path(self.frame["image_path"][row]), settings.resize * times), settings, times)


def encode_studies(model: Pretrained, manifest: Path, images: Path | None = None) -> EncodedStudies:
    """Studies that a run did not train on: of the test split, else of validation, else any.

    Args:
        model: the run.
        manifest: table or folder of pairs.
        images: folder where its image paths start; by default the table's own, and of the table that the run was
            trained on the run's (`data.images`).

    Raises:
        UserError: a manifest or image that cannot be read, or no study that is new to the run.
    """
    if open_shards(manifest) is not None:
        raise UserError(f"{manifest} holds shards, which the page cannot read: give the folder that they come from")
    data = table_settings(model, manifest, images)
    seen = open_seen(RunFolder(model.folder).seen) if model.folder is not None else None
    pairs = read_pairs(manifest, data)
    pairs.frame, split = _choose_rows(pairs, data, seen)
    fine: Literal["read"] | None = "read" if model.recipe.objective.target_scale == 2 else None
    dataset = pair_dataset(pairs, model.tokenizer, data, fine=fine)
    frame = pairs.frame.reset_index(drop=True)
    return EncodedStudies(
        model=model,
        split=split,
        unseen=seen is not None or split not in ("", data.train_split),
        frame=frame,
        dataset=dataset,
        sentences=sentences_read(frame["text"], dataset),
        boxes=_read_boxes(frame, data),
        **_encode(model, dataset),
    )


def sentences_read(texts: Iterable[str], dataset: PairDataset) -> list[list[str]]:
    """Of each report the sentences that the model reads: long reports are cut."""
    kept = np.diff(dataset.tokens.sentence_offsets)
    return [split_sentences(text)[:count] for text, count in zip(texts, kept, strict=True)]


def table_settings(model: Pretrained, manifest: Path, images: Path | None) -> DataSettings:
    """The run's settings, with a folder of images that belongs to this table."""
    data = model.recipe.data
    if images is None and data.images and model.folder is not None:
        trained_on = RunFolder(model.folder).read_provenance().get("manifest_sha256")
        if trained_on == sha256(find_table(manifest, TABLE_NAMES)):
            if not Path(data.images).expanduser().is_dir():
                raise UserError(
                    f"{data.images}, where the run found its images (data.images), is no folder here: "
                    "say with --images DIR where they are now"
                )
            return data
    if images is not None and not images.expanduser().is_dir():
        raise UserError(f"--images {images}: no such folder")
    return data.model_copy(update={"images": str(images) if images else None})


def _choose_rows(pairs: PairTable, data: DataSettings, seen: SeenFile | None) -> tuple[pd.DataFrame, str]:
    """The first rows that were not trained on, and their split."""
    frame = pairs.frame if seen is None else pairs.frame[~trained_on(pairs, seen.frame)]
    for split in ("test", data.val_split):
        rows = frame[frame["split"] == split]
        if len(rows):
            return rows.head(_STUDIES).reset_index(drop=True), str(split)
    if len(frame) == 0:
        raise UserError(f"{pairs.source}: the run was trained on all of its studies; give --data with other ones")
    return frame.head(_STUDIES).reset_index(drop=True), ""


def trained_on(pairs: PairTable, seen: pd.DataFrame) -> pd.Series:
    """Rows whose patient, study or file is a training one; ids count within a data set, missing ones are no ids."""
    frame, trained = pairs.frame, seen[seen["part"] == "train"]
    below = frame["study_id"].str.removeprefix(f"{pairs.source.parent.resolve()}/")  # a path stands for a missing id
    found = (frame["dataset"] + "\n" + below).isin(trained["dataset"] + "\n" + trained["study_id"])
    known = trained[trained["patient_id"] != ""]
    found |= (frame["dataset"] + "\n" + frame["patient_id"]).isin(known["dataset"] + "\n" + known["patient_id"])
    if "sha256" in frame:
        found |= frame["sha256"].isin(set(trained["sha256"]) - {""})
    return found


@torch.no_grad()
def _encode(model: Pretrained, dataset: PairDataset) -> dict[str, Any]:
    image, report, patches, sentences = [], [], [], []
    for request in evaluation_order(len(dataset), 64):
        batch = dataset[request]
        features = model.task.model(batch)
        image.append(features.image_global)
        report.append(features.report_global)
        patches.append(features.patches)
        for rows, mask in zip(features.sentences, batch.sentence_mask, strict=True):
            sentences.append(rows[mask])
    return {
        "image": F.normalize(torch.cat(image), dim=-1),
        "report": F.normalize(torch.cat(report), dim=-1),
        "patches": torch.cat(patches),
        "sentence_features": sentences,
        "grid": model.task.model.image_encoder.grid,
    }


def _read_boxes(frame: pd.DataFrame, data: DataSettings) -> list[list[Box]]:
    """Boxes are in pixels of the file, which was resized by its long side, padded and cropped at the centre."""
    if not {"boxes", "width", "height"} <= set(frame.columns):
        return [[] for _ in range(len(frame))]
    columns = (frame["boxes"], frame["width"], frame["height"], frame["image_path"])
    return [_boxes_of_row(*about, data) for about in zip(*columns, strict=True)]


def _boxes_of_row(text: object, width: object, height: object, name: object, data: DataSettings) -> list[Box]:
    stated = parse_boxes(text, str(name)) if isinstance(text, str) else []
    if not stated:
        return []
    boxes, size = list[Box](), picture_size(width, height, str(name))
    placed = place_boxes(stated, *size, data.resize, data.image_size)
    for box, corners in zip(stated, placed.tolist(), strict=True):
        x0, y0, x1, y1 = (min(max(corner / data.image_size, 0.0), 1.0) for corner in corners)
        if x1 > x0 and y1 > y0:
            label, side, degree = (str(box.get(name, "")) for name in ("label", "side", "degree"))
            boxes.append(Box(x0, y0, x1, y1, label, side, degree))
    return boxes


def _crop(pixels: NDArray[np.uint8], data: DataSettings, times: int) -> Floats:
    first, size = (data.resize - data.image_size) // 2 * times, data.image_size * times
    inside = slice(first, first + size)
    return pixels[inside, inside].astype(np.float32) / 127.5 - 1
