"""Present against absent: is the largest value of a finding's map higher where the finding is?

Grounding asks where a map is large in images that have the finding; a map that is as large without it passes there.
No box takes part, so every labelled test image does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast, get_args

import numpy as np
import torch

from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.presence import MAP_AUROC, PresenceSettings
from cmcgns.evaluation.tokens import token_batches
from cmcgns.metrics.classes import left_out_classes
from cmcgns.metrics.classification import area_measures
from cmcgns.metrics.measure import Array, Measures, joined
from cmcgns.objectives.phrase_maps import MapKind
from cmcgns.pretrained import Pretrained
from cmcgns.pretrained.prompts import load_prompts

_LARGEST = "largest_"


class Presence:
    """Area under the ROC curve of the largest value of each kind of map, with a label against without it.

    `map_auroc` is that of the map which the run's validation chose, `map_auroc_pooled` and so on of each that was
    trained. A label's map is the mean over its positive prompts; nothing is subtracted.
    """

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        if reason := data.lacks_labels(("test",)) or encoder.lacks_report_encoder():
            return reason
        reasons = [encoder.run.lacks_map(kind) for kind in get_args(MapKind)]
        return reasons[0] if all(reasons) else ""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Largest values of every test image, label and kind of map."""
        settings, names, test = cast(PresenceSettings, job.settings), job.data.label_names, job.data.test
        book, model = load_prompts(settings.prompts), job.encoder.run
        prompts = [book.of(name).positive[: None if settings.ensemble else 1] for name in names]
        kinds = [kind for kind in get_args(MapKind) if not model.lacks_map(kind)]
        found: dict[MapKind, list[torch.Tensor]] = {kind: [] for kind in kinds}
        texts = list(dict.fromkeys(text for each in prompts for text in each))
        phrases, owners = model.encode_texts(texts), [list(map(texts.index, each)) for each in prompts]
        rows = np.arange(len(test))
        for _, tokens in token_batches(job.encoder, test, rows, lambda share: job.progress("maps", share)):
            for kind, largest in largest_values(model, tokens, phrases, owners, kinds).items():
                found[kind].append(largest)
        arrays: dict[str, Array] = {_LARGEST + kind: torch.cat(each).numpy() for kind, each in found.items()}
        arrays |= {"labels": test.labels, "label_names": np.array(names)}
        arrays |= {"counted": np.ones(len(names), dtype=bool), "default": np.array(model.map)}
        said = dict(zip(names, map(list, prompts), strict=True))
        facts = {"prompts": book.name, "sentences": said, "labels_from_template": book.unknown(names)}
        for cell in job.cells:
            yield cell, job.predictions(arrays, facts | {"default_map": model.map})

    def measures(self, predictions: Predictions) -> Measures:
        """Figures: the default map first, then each kind."""
        arrays = predictions.arrays
        labels, names, left_out = arrays["labels"], arrays["label_names"].tolist(), left_out_classes(arrays)
        kinds = [name.removeprefix(_LARGEST) for name in arrays if name.startswith(_LARGEST)]
        named = {MAP_AUROC: str(arrays["default"])} | {f"{MAP_AUROC}_{kind}": kind for kind in kinds}
        return joined(
            [area_measures(arrays[_LARGEST + of], labels, names, left_out, metric) for metric, of in named.items()]
        )


def largest_values(
    model: Pretrained,
    tokens: torch.Tensor,
    phrases: tuple[torch.Tensor, torch.Tensor],
    owners: Sequence[Sequence[int]],
    kinds: Sequence[MapKind],
) -> dict[MapKind, torch.Tensor]:
    """(B, C) largest value over the patches of each label's map, the mean over its prompts, by kind.

    Args:
        model: the run.
        tokens: (B, P, C') of its image encoder.
        phrases: K of :meth:`cmcgns.pretrained.Pretrained.encode_texts`.
        owners: of C labels the numbers of their phrases.
        kinds: of map.
    """
    found = {}
    for kind in kinds:
        maps = model.patch_maps(tokens, phrases, kind).float()
        found[kind] = torch.stack([maps[:, each].mean(1) for each in owners], 1).amax(2).cpu()
    return found


TASK = Presence()
