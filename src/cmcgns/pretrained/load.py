"""A finished run in use: `cmcgns.load(run)`, and the same encoders with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from cmcgns.common.errors import UserError, one_line
from cmcgns.data.images.read import Picture, read_with_size
from cmcgns.data.pairs.dataset import normalise_pixels
from cmcgns.data.reports.tokenizer import load_saved_tokenizer
from cmcgns.objectives.phrase_maps import MapKind
from cmcgns.pretrained.arguments import check_texts
from cmcgns.pretrained.embed import BATCH, By, Embedder, Floats
from cmcgns.pretrained.phrase_maps import patch_maps, unpad, untrained
from cmcgns.pretrained.zero_shot import Prompts, label_prompts, prompt_scores, zero_shot_scores
from cmcgns.training.checkpoint import load_weights
from cmcgns.training.joint_scores import JointScores
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.task import build_task

if TYPE_CHECKING:
    import pandas as pd


class Pretrained(Embedder):
    """A pretrained pair of encoders: what :class:`Embedder` has, and findings and places by name."""

    def zero_shot(
        self, paths: Picture | Sequence[Picture], labels: Sequence[str] | Prompts, by: By = "global"
    ) -> pd.DataFrame:
        """How much more each radiograph resembles "{finding}" than "no {finding}", without any training on labels.

        Args:
            paths: one picture, or several.
            labels: names, whose sentences are built in (`cmcgns/pretrained/prompts.yaml`; for others "{label}." and
                "No {label}."), or label -> (sentences that state it, sentences that deny it).
            by: `global`: cosine of the two embeddings; `local`: what each sentence sees in the image beside the
                sentence itself; `sum`: both, each over its spread in the run's validation.

        Returns:
            One row a picture, one column a label: softmax over the two at the run's own temperature. That ranks
            pictures; it is calibrated for nothing.

        Raises:
            UserError: unreadable picture, no label, or a prompt without a word.
        """
        import pandas as pd  # which embedding does not need

        if by not in get_args(By):
            raise UserError(f"zero_shot: by is {by!r}; choose {', '.join(get_args(By))}")
        if reason := self.lacks(by):
            raise UserError(f"zero_shot: no score by {by}: {reason}")
        pictures: Sequence[Picture] = paths if isinstance(paths, list | tuple) else [paths]  # type: ignore[list-item]
        sides = list(zip(*label_prompts(labels), strict=True))
        if by == "global":
            positive, negative = ([self.embed_text(list(texts)) for texts in side] for side in sides)
            found = zero_shot_scores(self.embed_image(pictures), positive, negative, self.temperature)
        else:
            starts = range(0, len(pictures), BATCH)
            batches = (self.images(pictures[start : start + BATCH], start) for start in starts)
            states, denies = prompt_scores(self, batches, sides, by)
            found = 1 / (1 + np.exp((denies - states) / self.spread(by)))
        names = [str(picture) if isinstance(picture, str | Path) else n for n, picture in enumerate(pictures)]
        return pd.DataFrame(found, index=names, columns=list(labels))

    def ground(self, path: Picture, phrase: str, against: str = "", kind: MapKind | None = None) -> Floats:
        """Where in a radiograph a phrase belongs.

        The encoder sees the whole picture, squeezed to its input size, nothing cropped away.

        Args:
            path: the picture.
            phrase: for example "Small left pleural effusion."
            against: a sentence whose map is subtracted, for example "No pleural effusion."; leaves what speaks for
                the phrase rather than for its subject.
            kind: `pooled` or `patches` (cosines), `attention` (weights), `gated` (weights times products), `joint`
                (the latter times the cosines): :mod:`cmcgns.objectives.phrase_maps`. By default the one that told
                best, in the run's validation, where a sentence is true (:attr:`map`).

        Returns:
            (H, W), one value for every pixel of the picture, interpolated between the patches.

        Raises:
            UserError: unreadable picture, phrase without a word, or a map that this run did not train.
        """
        check_texts([phrase], "ground: the phrase")
        check_texts([against], "ground: against")
        kind = self.map if kind is None else kind
        if kind not in get_args(MapKind):
            raise UserError(f"ground: there is no map of kind {kind}; choose {', '.join(get_args(MapKind))}")
        if reason := untrained(self, kind):
            raise UserError(f"ground: no map of kind {kind}: {reason}")
        pixels, size = read_with_size(path, self.recipe.data.image_size)
        with torch.no_grad():
            tokens = self.task.model.image_encoder.tokens(normalise_pixels(pixels[None])[:, None].to(self.device))
        maps = patch_maps(self, tokens, self.encode_texts([phrase, *([against] if against else [])]), kind)[0]
        return unpad(maps[0] - maps[1] if against else maps[0], *size)


def load(run: str | Path, device: str = "cpu") -> Pretrained:
    """A finished run in use, frozen and in eval mode; :meth:`Embedder.trainable_image_encoder` gives a copy to train.

    Args:
        run: run folder.
        device: where to put the weights.

    Raises:
        UserError: no run folder, not finished, weights that do not fit its settings, or no such device.
    """
    if not isinstance(run, str | Path):
        raise UserError(f"load takes the path of a run folder, not {type(run).__name__}")
    folder = RunFolder(Path(run))
    recipe = folder.read_recipe()
    if not folder.model.is_file():
        raise UserError(f"{folder.path}: model.safetensors is missing; finish the run with --resume")
    tokenizer = load_saved_tokenizer(folder.tokenizer)
    config = folder.read_report_config()
    task = build_task(recipe, len(tokenizer), config, load_weights=False, for_training=False)
    try:
        load_weights(folder.model, task)
    except UserError as error:
        raise UserError(f"{error}{folder.other_version()}") from None
    try:
        task.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch says of devices that are not there
        raise UserError(f"load: the device {device} cannot be used: {one_line(error)}") from None
    model = Pretrained(task, tokenizer, recipe)
    model.folder, model.scores = folder.path, JointScores.read(folder)
    return model


def random_twin(model: Pretrained, seed: int | None = None) -> Pretrained:
    """The same architecture and tokenizer with random weights.

    Args:
        model: the run.
        seed: of the weights; by default another one than the run's.
    """
    torch.manual_seed(model.recipe.training.seed + 1 if seed is None else seed)
    settings = model.recipe.image_encoder.model_copy(update={"weights": None})
    recipe = model.recipe.model_copy(update={"image_encoder": settings})
    config = model.task.model.report_encoder.config
    task = build_task(recipe, len(model.tokenizer), config, for_training=False)
    return Pretrained(task, model.tokenizer, recipe)
