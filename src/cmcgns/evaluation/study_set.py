"""Rows of a manifest with labels and boxes, ready for an encoder to be judged on."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cmcgns.config import Recipe
from cmcgns.data.dataset import PairDataset, make_loader
from cmcgns.data.images import load_images, place_in_square
from cmcgns.data.order import evaluation_order
from cmcgns.data.pairs import read_pairs
from cmcgns.data.report_tokens import tokenize_reports
from cmcgns.errors import UserError
from cmcgns.evaluation.embed import Embeddings, embed
from cmcgns.pretrained import Pretrained

LABEL = "label_"


@dataclass(frozen=True)
class StudySet:
    """One split of a manifest.

    Attributes:
        frame: its rows, with everything the manifest says.
        dataset: the same rows as batches.
        label_names: C names.
        labels: (n, C) 1, 0 or NaN.
        patients: (n,) patient ids.
    """

    frame: pd.DataFrame
    dataset: PairDataset
    label_names: list[str]
    labels: NDArray[np.float64]
    patients: NDArray[np.object_]

    def embed(self, model: Pretrained, batch_size: int = 64) -> Embeddings:
        """Embeddings of all rows, in order."""
        order = evaluation_order(len(self.dataset), batch_size)
        return embed(model.task.model, make_loader(self.dataset, order), model.device)

    def box_masks(self) -> torch.Tensor:
        """(n, 1, H, W) true inside any box of the row, in the pixels of the encoder's input.

        Boxes are in pixels of the file; the image was resized by its long side, padded and cropped at the centre.
        """
        settings = self.dataset.settings
        size, slack = settings.image_size, (settings.resize - settings.image_size) // 2
        masks = torch.zeros(len(self.frame), 1, size, size, dtype=torch.bool)
        columns = (self.frame["boxes"], self.frame["width"], self.frame["height"])
        for row, (text, width, height) in enumerate(zip(*columns, strict=True)):
            scale, left, top = place_in_square(int(width), int(height), settings.resize)
            for box in json.loads(text or "[]"):
                x0, y0 = box["x"] * scale + left - slack, box["y"] * scale + top - slack
                x1, y1 = x0 + box["width"] * scale, y0 + box["height"] * scale
                rows, columns_ = (slice(max(0, int(a)), max(0, round(b))) for a, b in ((y0, y1), (x0, x1)))
                masks[row, 0, rows, columns_] = True
        return masks


def read_study_set(manifest: Path, split: str, model: Pretrained) -> StudySet:
    """Read a split as a pretrained pair of encoders wants it.

    Raises:
        UserError: no row of this split, or no label column.
    """
    recipe: Recipe = model.recipe
    pairs = read_pairs(manifest, recipe.data)
    frame = pairs.frame[pairs.frame["split"] == split].reset_index(drop=True)
    names = [column for column in frame if str(column).startswith(LABEL)]
    if len(frame) == 0 or not names:
        found = ", ".join(sorted(pairs.frame["split"].unique()))
        raise UserError(f"{pairs.source}: no labelled rows of split {split} (splits: {found})")
    images, errors = load_images(frame["image_path"].tolist(), recipe.data.resize)
    if errors:
        raise UserError(f"{pairs.source}: {len(errors)} images cannot be read, first: {next(iter(errors.values()))}")
    tokens = tokenize_reports(
        frame["text"].tolist(), model.tokenizer, recipe.data.max_tokens, recipe.data.max_sentences
    )
    dataset = PairDataset(images, tokens, frame["study_id"].tolist(), np.arange(len(frame)), recipe.data)
    return StudySet(
        frame=frame,
        dataset=dataset,
        label_names=[str(name).removeprefix(LABEL) for name in names],
        labels=frame[names].astype(float).to_numpy(),
        patients=frame["patient_id"].to_numpy(dtype=object),
    )
