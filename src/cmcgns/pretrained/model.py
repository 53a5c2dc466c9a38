"""A finished run in use: what its encoders say together, as scores of images with texts and as maps of phrases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.images.read import Picture, read_with_size
from cmcgns.data.pairs.dataset import normalise_pixels
from cmcgns.metrics.ranking import FloatArray
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.objective import By, MapKind
from cmcgns.objectives.phrase_maps import patch_maps, unpad
from cmcgns.pretrained.arguments import as_list, check_texts
from cmcgns.pretrained.embed import BATCH, Embedder, Floats
from cmcgns.pretrained.prompts import Ensembles
from cmcgns.pretrained.zero_shot import Prompts, label_prompts, probability, prototype_cosines
from cmcgns.training.joint_scores import JointScores

if TYPE_CHECKING:
    import pandas as pd

Prompted = Sequence[Sequence[str]]
"""Ensembles of prompts, one a label."""


class Pretrained(Embedder):
    """A pretrained pair of encoders: what :class:`Embedder` has, and scores, findings and places by name.

    Attributes:
        folder: of the run; None for weights that are no run's.
        scores: what the run's validation said of its maps and scores (:mod:`cmcgns.training.joint_scores`).
    """

    folder: Path | None = None
    scores = JointScores("pooled")

    @property
    def method(self) -> CMCGNS | None:
        """The objective with its bank, attention and decoder; None if the run was made with another than CM-CGNS."""
        objective = self.task.objective
        return objective if isinstance(objective, CMCGNS) else None

    @property
    def rebuilds(self) -> bool:
        """Whether the run can rebuild what is hidden of an image: it has a decoder, and Stage II trained it."""
        return self.recipe.rebuilds and self.method is not None

    @property
    def temperature(self) -> float:
        """That divides the cosines of images and reports: what L_global ended with."""
        return self.task.objective.temperature

    @torch.no_grad()
    def local_scores(self, images: Tensor, sentences: Tensor) -> Floats:
        """(B, channels, H, W) as :meth:`images` gives them and (K, D) f_R -> (B, K) cosines s in float32.

        What each sentence sees in each image, with its own query, beside the sentence itself. Only for runs of which
        :meth:`lacks` says nothing.
        """
        net, objective = self.task.model, self.task.objective
        assert objective.reader is not None
        patches = net.project_patches(net.image_encoder.tokens(images.to(self.device))).float()
        found: Floats = objective.reader.score(patches, objective.queries(sentences)).cpu().numpy()
        return found

    def lacks(self, by: By) -> str:
        """Why images and sentences cannot be scored so; empty if they can."""
        if reason := self.task.objective.lacks_score(by):
            return reason
        if by == "sum" and not {"global", "local"} <= self.scores.deviation.keys():
            return "the run folder has no scores.json, which says how wide the two scores spread"
        return ""

    def lacks_map(self, kind: MapKind) -> str:
        """Why the run cannot give this map: the loss that would have trained it was off, or none; empty if it can."""
        return self.task.objective.lacks_map(kind)

    def patch_maps(self, tokens: Tensor, phrases: tuple[Tensor, Tensor], kind: MapKind) -> Tensor:
        """One map for every image and phrase, (B, K, P): cosines, attention weights, or products.

        Args:
            tokens: (B, P, C) of the image encoder.
            phrases: (K, D) local and (K, D) global embeddings, of :meth:`encode_texts`.
            kind: one that the run does not lack.
        """
        return patch_maps(self.task.model, self.task.objective, tokens, phrases, kind)

    @property
    def map(self) -> MapKind:
        """The map of phrases that told best, in the run's validation, where a sentence is true."""
        kinds: tuple[MapKind, ...] = (self.scores.map, *get_args(MapKind))
        return next((kind for kind in kinds if not self.lacks_map(kind)), self.scores.map)

    @property
    def map_range(self) -> tuple[float, float] | None:
        """Values of :attr:`map` at which a picture begins and ends to be coloured; None of a run that kept none."""
        found = self.scores.shown.get(self.map)
        return None if found is None else (found[0], found[1])

    def spread(self, by: By) -> float:
        """What a difference of two scores is divided by before it becomes a probability: the run's temperature."""
        objective = self.task.objective
        return {"global": objective.temperature, "local": objective.local_temperature, "sum": 1.0}[by]

    def text_scores(self, images: Tensor, texts: tuple[Tensor, Tensor], by: By) -> FloatArray:
        """(B, K) scores of one batch.

        Args:
            images: (B, channels, H, W) as :meth:`images` gives them.
            texts: (K, D) mean f_R and (K, D) global embeddings, of :meth:`encode_texts`.
            by: `global`: cosine of global embeddings; `local`: s of f_R; `sum`: half of each over its standard
                deviation in the run's validation. Not one that the run :meth:`lacks`.
        """
        local, pooled = texts
        if by == "local":
            return np.asarray(self.local_scores(images, local), dtype=np.float64)
        cosines = np.asarray(self.embed_tensors(images) @ pooled.cpu().numpy().T, dtype=np.float64)
        return cosines if by == "global" else self._both(self.local_scores(images, local), cosines)

    def report_scores(self, batches: Iterable[Tensor], reports: Sequence[str], by: By) -> Floats:
        """(n, m) scores of images with reports: the local one is the mean of s over the sentences of a report.

        Args:
            batches: of n images, (B, channels, H, W) each.
            reports: m texts; a sentence is encoded within its report.
            by: as of :meth:`text_scores`, `local` or `sum`.

        Raises:
            UserError: a report without a word.
        """
        sentences, counts = self.encode_sentences(reports)
        pooled = self.embed_text(reports) if by != "local" else None
        starts = np.cumsum(counts) - counts
        found: list[Floats] = []
        for images in batches:
            each = self.local_scores(images, sentences).astype(np.float64)
            scores: NDArray[np.float64] = np.add.reduceat(each, starts, axis=1) / counts
            if pooled is not None:
                scores = self._both(scores, self.embed_tensors(images) @ pooled.T)
            found.append(scores.astype(np.float32))
        return np.concatenate(found)

    def _both(self, local: NDArray[np.floating], cosines: NDArray[np.floating]) -> FloatArray:
        spread = self.scores.deviation
        return np.asarray(0.5 * (local / spread["local"] + cosines / spread["global"]), dtype=np.float64)

    def prompt_scores(
        self, batches: Iterable[Tensor], states: Prompted, denies: Prompted, by: By
    ) -> tuple[FloatArray, FloatArray]:
        """Scores of images with what states each of C labels, and with what denies it.

        Args:
            batches: of n images, (B, channels, H, W) as :meth:`images` gives them.
            states: C ensembles of prompts.
            denies: as many.
            by: `global`: cosine with the mean direction of an ensemble; else the mean over its prompts of what
                :meth:`text_scores` gives. A single image can be scored either way.

        Returns:
            (n, C) twice.

        Raises:
            UserError: embeddings that are not finite.
        """
        ensembles = Ensembles([*states, *denies])
        texts = self.encode_texts(ensembles.texts)
        if by == "global":
            images = np.concatenate([self.embed_tensors(each) for each in batches])
            scores = prototype_cosines(images, texts[1].cpu().numpy(), ensembles.places)
        else:
            each_text = np.concatenate([self.text_scores(each, texts, by) for each in batches])
            scores = ensembles.mean(torch.from_numpy(each_text)).numpy()
        return scores[:, : len(states)], scores[:, len(states) :]

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
            UserError: no picture, an unreadable one, no label, or a prompt without a word.
        """
        import pandas as pd  # which embedding does not need

        if by not in get_args(By):
            raise UserError(f"zero_shot: by is {by!r}; choose {', '.join(get_args(By))}")
        if reason := self.lacks(by):
            raise UserError(f"zero_shot: no score by {by}: {reason}")
        states, denies = zip(*label_prompts(labels), strict=True)
        pictures = as_list(paths if isinstance(paths, list | tuple) else [paths], "zero_shot", BATCH)
        scores = self.prompt_scores(self.batches(pictures), states, denies, by)
        found = probability(scores[0] - scores[1], self.spread(by))
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
        if reason := self.lacks_map(kind):
            raise UserError(f"ground: no map of kind {kind}: {reason}")
        pixels, size = read_with_size(path, self.recipe.data.image_size)
        with torch.no_grad():
            tokens = self.task.model.image_encoder.tokens(normalise_pixels(pixels[None])[:, None].to(self.device))
        maps = self.patch_maps(tokens, self.encode_texts([phrase, *([against] if against else [])]), kind)[0]
        return unpad(maps[0] - maps[1] if against else maps[0], *size)
