"""Studies that a run did not train on, as its encoders see them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import placed_boxes
from cmcgns.data.images.read import read_image
from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.rows import PairTable
from cmcgns.evaluation.study_set import StudySet, as_studies, read_table, trained_on
from cmcgns.pretrained import BATCH, Pretrained
from cmcgns.pretrained.prompts import PromptBook, load_prompts, speaks_of_side
from cmcgns.reporting.clusters.bank import lacks_bank
from cmcgns.reporting.clusters.sentences import ClusteredSentences, clustered
from cmcgns.reporting.style import Box
from cmcgns.settings.config import DataSettings

Floats = NDArray[np.float32]
_STUDIES = 1000  # enough to look at; embeddings of all of them are kept in memory


@dataclass(frozen=True)
class Statement:
    """A sentence that states a finding, and the boxes of what it names."""

    row: int
    sentence: int
    label: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class EncodedStudies(StudySet):
    """Studies with their features; entry i of everything belongs to study i.

    Attributes:
        model: the pretrained encoders and the objective.
        split: where the studies come from; empty: rows of a table without such splits.
        unseen: whether the run is known not to have trained on them.
        boxes: findings with a place; empty where the table has none.
        image: (n, D) unit image embeddings.
        report: (n, D) unit report embeddings.
        clustered: all sentences with their clusters; None without a bank that has started.
    """

    model: Pretrained
    split: str
    unseen: bool
    boxes: list[list[Box]]
    image: Tensor
    report: Tensor
    clustered: ClusteredSentences | None

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the patches."""
        return self.model.task.model.image_encoder.grid

    @property
    def report_text(self) -> NDArray[np.int64]:
        """(n,) equal numbers mean equal reports."""
        return self.dataset.tokens.report_text

    @property
    def shown(self) -> str:
        """The studies in words."""
        return f"{len(self)} studies of the {f'split “{self.split}”' if self.split else 'table'}"

    @cached_property
    def book(self) -> PromptBook:
        """The words that tell what a sentence of these studies is about."""
        return load_prompts("phantom" if self.is_synthetic else "built-in")

    @cached_property
    def statements(self) -> list[Statement]:
        """All sentences that state a finding with a box, in order; one of two findings counts once for each."""
        found = []
        for row, boxes in enumerate(self.boxes):
            for label in dict.fromkeys(box.label for box in boxes):
                for number, sentence in enumerate(self.sentences[row]):
                    named = tuple(box for box in boxes if box.label == label and speaks_of_side(sentence, box.side))
                    if named and self.book.states(sentence, label):
                        found.append(Statement(row, number, label, named))
        return found

    def fine_pixels(self, row: int) -> Floats:
        """(S, S) what the encoder sees, in [-1, 1], in more pixels than it gets."""
        settings = self.dataset.settings
        times = max(1, min(4, 320 // settings.image_size))
        return _crop(read_image(str(self.frame["image_path"][row]), settings.resize * times), settings, times)


def encode_studies(model: Pretrained, manifest: Path, images: Path | None = None) -> EncodedStudies:
    """Studies that a run did not train on: of the test split, else of validation, else any.

    Args:
        model: the run.
        manifest: table or folder of pairs.
        images: folder where its image paths start, as for :func:`read_table`.

    Raises:
        UserError: a manifest or image that cannot be read, or no study that is new to the run.
    """
    pairs, data = read_table(model, manifest, images)
    trained = trained_on(model, pairs)
    pairs.frame, split = _choose_rows(pairs, data, trained)
    studies = as_studies(model, pairs, data)
    return EncodedStudies(
        source=studies.source,
        frame=studies.frame,
        dataset=studies.dataset,
        model=model,
        split=split,
        unseen=trained is not None or split not in ("", data.train_split),
        boxes=_read_boxes(studies.frame, data),
        **_encode(model, studies),
    )


def _choose_rows(pairs: PairTable, data: DataSettings, trained: pd.Series | None) -> tuple[pd.DataFrame, str]:
    """The first rows that were not trained on, and their split."""
    frame = pairs.frame if trained is None else pairs.frame[~trained]
    for split in ("test", data.val_split):
        rows = frame[frame["split"] == split]
        if len(rows):
            return rows.head(_STUDIES), str(split)
    if len(frame) == 0:
        raise UserError(f"{pairs.source}: the run was trained on all of its studies; give --data with other ones")
    return frame.head(_STUDIES), ""


@torch.no_grad()
def _encode(model: Pretrained, studies: StudySet) -> dict[str, Any]:
    image, report, clusters = [], [], []
    bank = model.method if lacks_bank(model) is None else None
    for request in evaluation_order(len(studies), BATCH):
        batch = studies.dataset[request]
        features = model.task.model(batch)
        image.append(features.image_global)
        report.append(features.report_global)
        if bank is not None:
            clusters.append((*bank.assign(features, batch), batch.sentence_mask))
    return {
        "image": F.normalize(torch.cat(image), dim=-1),
        "report": F.normalize(torch.cat(report), dim=-1),
        "clustered": clustered(studies.sentences, clusters) if clusters else None,
    }


def _read_boxes(frame: pd.DataFrame, data: DataSettings) -> list[list[Box]]:
    """Boxes are in pixels of the file, which was resized by its long side, padded and cropped at the centre."""
    if not {"boxes", "width", "height"} <= set(frame.columns):
        return [[] for _ in range(len(frame))]
    columns = (frame["boxes"], frame["width"], frame["height"], frame["image_path"])
    return [_boxes_of_row(*about, data) for about in zip(*columns, strict=True)]


def _boxes_of_row(text: object, width: object, height: object, name: object, data: DataSettings) -> list[Box]:
    boxes, listed = list[Box](), text if isinstance(text, str) else ""
    stated, placed = placed_boxes(listed, width, height, str(name), data.resize, data.image_size)
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
