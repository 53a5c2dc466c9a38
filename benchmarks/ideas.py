"""Ideas that were tried beside the method and are not part of it (docs/rivals.md), each an objective of its own.

    PYTHONPATH=src python benchmarks/ideas.py --out DIR            # what is missing of the study ideas.yaml
    PYTHONPATH=src python benchmarks/ideas.py --out DIR --cells single --seeds 0

All are the method with something more; the settings are its own.
"""

import argparse
from abc import abstractmethod
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.collective import gather
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, MapKind, Reader, register
from cmcgns.objectives.query_matched import Stated, Statements
from cmcgns.objectives.report_matching import matching_contrast
from cmcgns.objectives.rivals.gloria import GLoRIAOptions, match
from cmcgns.objectives.rivals.radzero import CosineReader, multi_positive_contrast

STUDY = Path(__file__).with_suffix(".yaml")
_MAP_TEMPERATURE = 0.2  # the best of RadZero's trials


class _Encoded:
    """A model that has encoded its batch already."""

    def __init__(self, model: ImageReportModel, features: Features) -> None:
        self._model, self._features = model, features

    def __call__(self, batch: Batch) -> Features:  # noqa: ARG002
        return self._features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class OneMoreTerm(CMCGNS):
    """The method and a term `idea` of weight 1."""

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch."""
        features = model(batch)
        losses, metrics = super().forward(cast("ImageReportModel", _Encoded(model, features)), batch, seed)
        with full_precision(features.patches):
            idea = self.idea(model, features, batch)
        return losses | {"loss": losses["loss"] + idea, "idea": idea}, metrics

    @abstractmethod
    def idea(self, model: ImageReportModel, features: Features, batch: Batch) -> Tensor:
        """The term."""


@register("idea-single")
class SingleSentences(OneMoreTerm):
    """Every sentence alone, embedded as a report of its own, is contrasted with every whole image.

    Prompts are single sentences, reports are not: does it help zero-shot to train with what is asked later?
    """

    def idea(self, model: ImageReportModel, features: Features, batch: Batch) -> Tensor:
        """RadZero's contrast of scores that are cosines of global embeddings."""
        alone = model.embed_sentences(features.sentences.float()).flatten(0, 1)
        rows = Statements.of(alone, batch.sentence_mask, batch.sentence_text, batch.sentence_places)
        everyone = rows.of_all_ranks(len(batch))
        stated = Stated.of(rows, everyone, batch.report_sentences, None)
        scores = features.image_global.float() @ everyone.z1.T * self.logit_scale()
        return multi_positive_contrast(scores, rows, everyone, stated, duplicates=True)


@register("idea-words")
class Words(OneMoreTerm):
    """GLoRIA's word-to-region contrast beside that of sentences."""

    def words(self, features: Features) -> Tensor:
        """(B, L, D) that look at the images."""
        return features.words.float()

    def idea(self, model: ImageReportModel, features: Features, batch: Batch) -> Tensor:  # noqa: ARG002
        """GLoRIA's local term, with its settings."""
        options, word_mask = GLoRIAOptions(), gather(features.word_mask)
        matching = match(features.patches.float(), gather(self.words(features)), word_mask, options)
        return matching_contrast(matching, word_mask.any(1), options.local_temperature)


@register("idea-fixed-words")
class FixedWords(Words):
    """The same with words as fixed targets, as the method takes its sentences."""

    def words(self, features: Features) -> Tensor:
        """Without a gradient."""
        return features.words.detach().float()


@register("idea-cosine")
class CosineAttention(CMCGNS):
    """Sentences look at patches by their cosines with them, without learned maps, as in RadZero."""

    @property
    def reader(self) -> Reader:
        """RadZero's attention."""
        return CosineReader(_MAP_TEMPERATURE)

    def lacks_map(self, kind: MapKind) -> str:
        """As the method; the map `patches` is trained too."""
        return "" if kind == "patches" else super().lacks_map(kind)


def main() -> None:
    """Run the study, or a part of it."""
    from cmcgns.study.load import load_plan
    from cmcgns.study.run import StudyOptions, run_study

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[])
    asked = parser.parse_args()
    run_study(load_plan(str(STUDY)), asked.out, StudyOptions(tuple(asked.cells), tuple(asked.seeds)))


if __name__ == "__main__":
    main()
