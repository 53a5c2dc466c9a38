"""What validation says of the ways to score a sentence against an image, kept with the run.

A finished run offers several maps and two scores. Which map tells best where a sentence is true and where not, and
how wide each score spreads, is measured here once, on validation studies without any box or label.
"""

import math
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.common.stored import naming_damage, read_json
from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.loader import make_loader
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.metrics.ranking import RankedScores
from cmcgns.models.freeze import eval_mode
from cmcgns.models.model import mean_and_global
from cmcgns.objectives.objective import MapKind
from cmcgns.objectives.phrase_maps import patch_maps
from cmcgns.settings.config import Recipe
from cmcgns.training.data import PreparedData
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.task import PretrainingTask

WAY_OUT = "take the file away: then ground uses the map `pooled`"
_STUDIES, _SENTENCES = 256, 256  # at most; a few megabytes of maps at a time
_BATCH = 32
_MOST, _RARE = 0.7, 0.1  # more would reach the images that state the same in other words


@dataclass(frozen=True)
class JointScores:
    """What is kept as `scores.json`.

    Attributes:
        map: the kind of map that `ground` gives by default.
        present: of every kind of map, the mean over sentences of the area under the ROC curve with which the largest
            value of a map tells images whose report states the sentence from the others.
        shown: of every kind of map, the values at which a picture of it begins and ends to be coloured. Of sentences
            that at most a tenth of the reports state, seven in ten largest values in images whose report does
            not state them lie below the first, and seven in ten in those whose report does below the second.
        deviation: standard deviation over images of the `global` and the `local` score of a sentence.
        studies, sentences: how many were looked at.
    """

    map: MapKind
    present: dict[str, float] = field(default_factory=dict)
    shown: dict[str, tuple[float, float]] = field(default_factory=dict)
    deviation: dict[str, float] = field(default_factory=dict)
    studies: int = 0
    sentences: int = 0

    @classmethod
    def read(cls, folder: RunFolder) -> "JointScores":
        """Those of a finished run; of one that is older than the file, the plain map and nothing else.

        Raises:
            UserError: the file is damaged.
        """
        if not folder.scores.is_file():
            return cls("pooled")
        content = read_json(folder.scores, WAY_OUT)
        with naming_damage(folder.scores, WAY_OUT):
            found = cls(**content)
            if found.map not in get_args(MapKind):
                raise ValueError(f"there is no map {found.map}")
            return found


def measure_scores(task: PretrainingTask, prepared: PreparedData, recipe: Recipe) -> JointScores:
    """Encode the first validation studies and their sentences, and compare the maps.

    Args:
        task: model and objective at the end of the run, on any device.
        prepared: the run's data.
        recipe: its settings.
    """
    objective = task.objective
    kinds = [kind for kind in get_args(MapKind) if not objective.lacks_map(kind)]
    rows = prepared.validation.rows[:_STUDIES]
    said, stated = _statements(prepared.pairs.frame["text"].iloc[rows].tolist())
    if not kinds or not said:
        return JointScores(kinds[0] if kinds else "pooled")
    with eval_mode(task), torch.no_grad():
        tokens = tokenize_reports(said, prepared.tokenizer, recipe.data.max_tokens, recipe.data.max_sentences)
        phrases = mean_and_global(task.model, tokens, _BATCH)
        largest: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
        scores: dict[str, list[Tensor]] = {"global": [], "local": []}
        device = phrases[0].device
        for batch in make_loader(prepared.validation, evaluation_order(len(rows), _BATCH)):
            patch_tokens = task.model.image_encoder.tokens(batch.images.to(device))
            for kind in kinds:
                maps = patch_maps(task.model, objective, patch_tokens, phrases, kind)
                largest[kind].append(maps.max(2).values.float().cpu())
            scores["global"].append((task.model.pool_image(patch_tokens) @ phrases[1].T).float().cpu())
            if objective.reader is not None and "gated" in kinds:  # else there is no local score
                patches = task.model.project_patches(patch_tokens).float()
                scores["local"].append(objective.reader.score(patches, objective.queries(phrases[0])).cpu())
    maxima = {kind: torch.cat(values).numpy() for kind, values in largest.items()}
    present = {kind: _mean_area(values, stated) for kind, values in maxima.items()}
    shown = {kind: _ends(values, stated) for kind, values in maxima.items()}
    deviation = {
        name: float(torch.cat(values).var(0, correction=0).mean().sqrt()) for name, values in scores.items() if values
    }
    present = {kind: value for kind, value in present.items() if not math.isnan(value)}
    best = max(kinds, key=lambda kind: present.get(kind, 0.0))
    return JointScores(best, present, shown, deviation, len(rows), len(said))


def _statements(texts: list[str]) -> tuple[list[str], NDArray[np.bool_]]:
    """K distinct sentences, the most frequent first, and (n, K) whether a report states them."""
    reports = [{normalise_sentence(each): each for each in split_sentences(text)} for text in texts]
    spelt = {key: each for report in reports for key, each in report.items() if key}
    counts = {key: sum(key in report for report in reports) for key in spelt}
    chosen = sorted(counts, key=lambda key: (-counts[key], key))[:_SENTENCES]
    stated = np.array([[key in report for key in chosen] for report in reports], dtype=bool)
    return [spelt[key] for key in chosen], stated


def _ends(largest: NDArray[np.float32], stated: NDArray[np.bool_]) -> tuple[float, float]:
    """Where colours begin and end, by rare sentences: a common one is true of many images that do not state it.

    By all sentences where none is rare, by all values where none is stated by some images only.
    """
    share = stated.mean(0)
    some = (share > 0) & (share < 1)
    rare = some & (share <= _RARE) if (some & (share <= _RARE)).any() else some
    absent, present = (largest[:, rare][is_so[:, rare]] for is_so in (~stated, stated))
    low, high = (float(np.quantile(each if rare.any() else largest, _MOST)) for each in (absent, present))
    return low, max(low, high)


def _mean_area(scores: NDArray[np.float32], stated: NDArray[np.bool_]) -> float:
    """Mean over the sentences that some reports state and some do not; NaN where there is none."""
    some = stated.any(0) & ~stated.all(0)
    if not some.any():
        return math.nan
    areas = RankedScores(scores[:, some], stated[:, some].astype(float)).auroc(np.ones((1, len(scores))))
    return float(areas.mean())
