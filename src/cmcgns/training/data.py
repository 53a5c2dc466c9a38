"""From a table on disk to the data sets and the tokenizer of a run."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import Progress

from cmcgns.common.errors import UserError
from cmcgns.common.safe_text import write_spreadsheet
from cmcgns.data.pairs.batch import steps_per_epoch
from cmcgns.data.pairs.dataset import PairDataset, pair_dataset
from cmcgns.data.pairs.images import StoredImages, count_small, read_images, twice_the_side
from cmcgns.data.pairs.rows import PairTable, assign_splits, read_pairs
from cmcgns.data.reports.text import split_sentences
from cmcgns.data.reports.tokenizer import load_saved_tokenizer, load_tokenizer, train_tokenizer
from cmcgns.data.shards.index import AGAIN, ShardFolder, open_shards
from cmcgns.data.shards.stream import NO_NEAR_BATCHES, ShardImages
from cmcgns.models.report_encoder import SCRATCH
from cmcgns.objectives.objective import find_objective
from cmcgns.settings.config import Recipe
from cmcgns.training.resumed_rows import ResumedRows

logger = logging.getLogger(__name__)
Images = TypeVar("Images")


@dataclass
class PreparedData:
    """Everything a run reads."""

    pairs: PairTable
    train: PairDataset
    validation: PairDataset
    tokenizer: Any


def prepare_data(
    recipe: Recipe,
    data: Path | str,
    tokenizer_folder: Path | None = None,
    fixed_shapes: bool = False,
    resumed: ResumedRows | None = None,
) -> PreparedData:
    """Read table and images, tokenize, split. Of shards only the validation images are read now.

    Args:
        recipe: the settings.
        data: table or folder; or a folder of shards, as path or URL.
        tokenizer_folder: a saved tokenizer; None loads the encoder's own or trains one on the training rows.
        fixed_shapes: pad to few shapes on which all ranks agree.
        resumed: rows and splits that a resumed run goes on with; None takes what the table has now.
    """
    pairs, images, fine = _read(recipe, data, resumed)
    train, validation = resumed.split(pairs) if resumed else assign_splits(pairs, recipe.data, recipe.training.seed)
    tokenizer = _tokenizer(recipe, pairs.frame["text"].loc[train], tokenizer_folder)
    studies = pair_dataset(pairs, tokenizer, recipe.data, images, fixed_shapes, fine)
    if len(train) > 1 and len(np.unique(studies.tokens.report_text[train])) == 1:
        raise UserError(
            f"{pairs.source.name}: all {len(train)} training reports are equal, so nothing tells one radiograph from "
            "another: look at the columns of the reports, and at data.text"
        )
    if (np.diff(studies.tokens.sentence_offsets) == 1).all():
        logger.warning("%s: every report is a single sentence", pairs.source.name)
    if len(validation) < 2:
        logger.warning(
            "%s: a single validation study: its L_global is always 0 and cannot choose among epochs, so the last "
            "one is taken; give more rows the validation split, or raise data.val_fraction",
            pairs.source.name,
        )
    rows = validation.to_numpy()
    held = (_hold(each, rows) for each in (images, fine))
    return PreparedData(pairs, studies.subset(train.to_numpy()), studies.subset(rows, *held), tokenizer)


def _hold(images: StoredImages | None, rows: NDArray[np.int64]) -> StoredImages | None:
    """Validation images of shards are read now."""
    if isinstance(images, ShardImages):
        return _with_bar("reading validation images", len(rows), partial(images.load, rows))
    return images


def _read(
    recipe: Recipe, data: Path | str, resumed: ResumedRows | None
) -> tuple[PairTable, StoredImages, StoredImages | None]:
    """The rows that can be used, their images, and these of twice the side where the objective rebuilds such."""
    shards, twice = open_shards(data), recipe.needs_fine_images
    size = recipe.data.resize
    if shards is not None:
        if recipe.training.batches == "near":
            raise UserError(NO_NEAR_BATCHES)
        pairs = read_shard_pairs(shards, recipe)
        if resumed:
            resumed.keep(pairs)
        return pairs, shard_images(shards, pairs, size), shard_images(shards, pairs, 2 * size) if twice else None
    read: Callable[[Callable[[int], None]], StoredImages]
    read_fine: Callable[[Callable[[int], None]], StoredImages]
    if resumed is None:
        pairs = read_pairs(Path(data), recipe.data, everything=False, for_training=True)
        read = partial(read_images, pairs, recipe.data)
        read_fine = partial(read_images, pairs, twice_the_side(recipe.data))
    else:  # what `data.bad_images` says held at the start
        pairs = read_pairs(Path(data), recipe.data, look_for_files=False, everything=False, for_training=True)
        resumed.keep(pairs)
        read, read_fine = (partial(resumed.read_images, pairs, side) for side in (size, 2 * size))
    images = _with_bar("reading images", len(pairs.frame), read)
    if not twice:
        return pairs, images, None
    small, known = count_small(pairs.frame["image_path"].tolist(), 2 * size)
    if small:
        logger.warning(
            "objective.target_scale=2: of %d images looked at, %d are smaller than %d px (twice data.resize): "
            "to be rebuilt they are enlarged, without more detail",
            known, small, 2 * size,
        )  # fmt: skip
    return pairs, images, _with_bar("reading images of twice the side", len(pairs.frame), read_fine)


def read_shard_pairs(shards: ShardFolder, recipe: Recipe) -> PairTable:
    """Rows of the shards' manifest; their source is the index, whose content changes with every shard's."""
    pairs = read_pairs(shards.manifest, recipe.data, look_for_files=False, for_training=True)
    pairs.source = shards.index
    return pairs


def shard_images(shards: ShardFolder, pairs: PairTable, size: int) -> ShardImages:
    """The images of the rows, still in their shards, long side to `size`.

    Raises:
        UserError: the manifest is not that of shards.
    """
    if "shard" not in pairs.frame:
        raise UserError(f"{shards.manifest}: missing column shard; {AGAIN}")
    members = np.array([path.rsplit("/", 1)[1] for path in pairs.frame["image_path"]])
    return ShardImages(shards, pairs.frame["shard"].to_numpy(dtype=object), members, size)


def _with_bar(text: str, total: int, read: Callable[[Callable[[int], None]], Images]) -> Images:
    with Progress(transient=True) as progress:
        bar = progress.add_task(text, total=total)
        return read(partial(progress.advance, bar))


def write_left_out(pairs: PairTable, path: Path) -> None:
    """Write the rows that are not used, with their reasons."""
    names = ("row", "image_path", "reason")
    write_spreadsheet(path, names, ([left[name] for name in names] for left in pairs.left_out))


def summary(prepared: PreparedData) -> dict[str, Any]:
    """Counts for provenance and console."""
    reasons = pd.Series([row["reason"] for row in prepared.pairs.left_out], dtype=str).value_counts()
    tokens = prepared.train.tokens
    return {
        "train": len(prepared.train),
        "validation": len(prepared.validation),
        "left_out": json.loads(reasons.to_json()),
        "shortened_reports": tokens.shortened,
        "unknown_word_pieces": round(tokens.unknown, 5),
        "sentences": int(tokens.sentence_offsets[-1]),
        "distinct_sentences": len(np.unique(tokens.sentence_text)),
    }


def describe_counts(counts: dict[str, Any]) -> str:
    """The counts of `summary` as two or three lines for a person."""
    lines = [
        f"{counts['train']} training and {counts['validation']} validation studies, "
        f"{counts['sentences']} sentences ({counts['distinct_sentences']} distinct)"
    ]
    lines += [f"  left out: {number} rows, {reason}" for reason, number in counts["left_out"].items()]
    lines += [
        f"  shortened: {number} reports (too many {kind})"
        for kind, number in counts["shortened_reports"].items()
        if number
    ]
    lines += [f"  word pieces unknown to the tokenizer: {counts['unknown_word_pieces']:.2%}"]
    return "\n".join(lines)


def describe_batches(recipe: Recipe, studies: int, ranks: int) -> str:
    """How an epoch is cut into batches, and how many studies it does not see.

    Raises:
        UserError: not one batch, or a single study, in all or in a batch, where the objective contrasts; batches of
            hard negatives where it has none.
    """
    training, objective = recipe.training, recipe.objective
    contrasts = find_objective(objective).contrasts(objective)
    if training.batches == "near" and not contrasts and objective.name != "cm-cgns":
        raise UserError(
            "training.batches=near brings hard negatives together, of which "
            f"objective.name={objective.name} has none: set training.batches=shuffled"
        )
    together = training.batch_size * ranks
    if studies < 2 and contrasts:
        raise UserError(
            f"usable training studies: {studies}; its image would have no other report to be told apart from, "
            "whatever training.batch_size is: give at least 2 (what was left out or held out stands above)"
        )
    if together == 1 and contrasts:
        raise UserError(
            "training.batch_size is 1: an image would have no other report to be told apart from; set at least 2"
        )
    steps = steps_per_epoch(studies, training.batch_size, ranks)
    text = f"an epoch: {steps} batches of {together}"
    left = studies - steps * together
    return f"{text}; {left} of {studies} studies sit out, others every time" if left else text


def _tokenizer(recipe: Recipe, texts: Iterable[str], folder: Path | None) -> Any:
    if folder is not None:
        return load_saved_tokenizer(folder)
    name = recipe.report_encoder.name
    if name == SCRATCH:
        sentences = {sentence for text in texts for sentence in split_sentences(text)}
        return train_tokenizer(sentences, recipe.report_encoder.vocabulary)
    return load_tokenizer(name)
