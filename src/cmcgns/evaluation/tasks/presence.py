"""Present against absent: is the largest value of a finding's map higher where the finding is?

Grounding asks where a map is large in images that have the finding; a map that is as large without it passes there.
No box takes part, so every labelled test image does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np
import torch

from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import token_batches
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.of_texts import MAP_AUROC, PresenceSettings
from cmcgns.metrics.classes import left_out_classes
from cmcgns.metrics.classification import area_measures
from cmcgns.metrics.measure import Array, Measures, joined
from cmcgns.objectives.objective import MapKind
from cmcgns.pretrained.prompts import Ensembles, load_prompts

_LARGEST = "largest_"


class Presence:
    """Area under the ROC curve of the largest value of each kind of map, with a label against without it.

    `map_auroc` is that of the map which the run's validation chose, `map_auroc_pooled` and so on of each that was
    trained. A label's map is the mean over its positive prompts; nothing is subtracted.
    """

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        return data.lacks_labels(("test",)) or data.protocol.settings_as(PresenceSettings).lacked_by(encoder)

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Largest values of every test image, label and kind of map."""
        settings, names, test = job.protocol.settings_as(PresenceSettings), job.data.label_names, job.data.test
        book, model = load_prompts(settings.prompts, settings.ensemble), job.encoder.run
        ensembles = Ensembles(book.of(name).positive for name in names)
        kinds = [kind for kind in get_args(MapKind) if not model.lacks_map(kind)]
        found: dict[MapKind, list[torch.Tensor]] = {kind: [] for kind in kinds}
        phrases, rows = model.encode_texts(ensembles.texts), np.arange(len(test))
        for _, tokens in token_batches(job.encoder, test, rows, lambda share: job.progress("maps", share)):
            for kind in kinds:
                maps = ensembles.mean(model.patch_maps(tokens, phrases, kind).float())
                found[kind].append(maps.amax(2).cpu())
        arrays: dict[str, Array] = {_LARGEST + kind: torch.cat(each).numpy() for kind, each in found.items()}
        arrays |= {"labels": test.labels, "label_names": np.array(names)}
        arrays |= {"counted": np.ones(len(names), dtype=bool), "default": np.array(model.map)}
        facts = book.facts(names, "positive")
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


TASK = Presence()
