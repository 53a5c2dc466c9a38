"""What a protocol may set for what compares images with texts; nothing is learnt."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Protocol, get_args

from pydantic import Field

from cmcgns.evaluation.task_settings.base import (
    CALIBRATION,
    MIN_POSITIVES,
    MULTICLASS,
    RANKING,
    RARE_MEAN,
    LabelKind,
    MinPositives,
    Target,
    TaskSettings,
    register,
)
from cmcgns.metrics.overlap import THRESHOLDS
from cmcgns.objectives.objective import By, MapKind
from cmcgns.pretrained.prompts import PromptSource
from cmcgns.settings.config import TextKind

Ks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
PhraseKind = Literal["label", "sentence"]
MAP_AUROC = "map_auroc"
SIDE_ACCURACY = "side_accuracy"


class Gives(Protocol):
    """An objective, or an encoder made with one: which scores and maps it has trained."""

    def lacks_score(self, by: By) -> str:
        """Why images and texts cannot be scored so; empty if they can."""

    def lacks_map(self, kind: MapKind) -> str:
        """Why there is no such map of phrases; empty if there is."""


class TextSettings(TaskSettings):
    """Of a task that compares images with texts, by scores or by maps."""

    @property
    def scores(self) -> tuple[By, ...]:
        """Scores of which a run must have one, unless it has one of the maps."""
        return ()

    @property
    def maps(self) -> tuple[MapKind, ...]:
        """Maps of which a run must have one, unless it has one of the scores."""
        return ()

    def lacked_by(self, of: Gives) -> str:
        """Why the task cannot be done with it; empty if it can, as far as the settings tell."""
        reasons = [*map(of.lacks_score, self.scores), *map(of.lacks_map, self.maps)]
        return reasons[0] if all(reasons) else ""


@register("zero_shot")
class ZeroShotSettings(TextSettings):
    """What an image is compared with."""

    min_positives: MinPositives = MIN_POSITIVES
    prompts: PromptSource = "built-in"
    """built-in (pretrained/prompts.yaml), phantom (wording of the synthetic studies), template (`{label}.` and
    `No {label}.`), a YAML file of the same form, or such a mapping itself"""
    ensemble: bool = True
    """false: only the first sentence of each kind"""
    outcome: LabelKind = "binary"
    """binary: each label by positive minus negative cosine; multiclass: the labels exclude each other and the
    largest positive cosine wins"""
    by: By = "global"
    """global: cosine of the global embeddings; local: a sentence beside what it sees in the image with its own
    query; sum: both, each over its spread in the run's validation"""

    @property
    def scores(self) -> tuple[By, ...]:
        """The one that is asked for."""
        return (self.by,)

    @property
    def figures(self) -> list[str]:
        """Areas and calibration, and agreement of labels that exclude each other."""
        return [*(MULTICLASS if self.outcome == "multiclass" else []), *RANKING, *CALIBRATION, RARE_MEAN]


@register("retrieval")
class RetrievalSettings(TextSettings):
    """What counts as right, and how far to look."""

    by: By = "global"
    """of recall; global: cosine of the global embeddings; local: mean over a report's sentences, each beside
    what it sees in the image with its own query; sum: both, each over its spread in the run's validation.
    Precision by class stays global"""
    ks: Ks = (1, 5, 10)
    """of recall: is a right item among the k nearest?"""
    text: TextKind | Literal["recipe"] = "recipe"
    """which text is the report; recipe: as in pretraining"""
    classes: bool = False
    """also precision at k by class (CheXpert-5x200, MIMIC-5x200): images with one of the labels"""
    class_ks: Ks = (1, 5, 10)
    """of precision by class"""
    prompts: PromptSource = "built-in"
    """positive sentences of the labels, found by their images"""
    limit: Annotated[int, Field(ge=2)] | None = None
    """at most so many images, whole studies drawn by `seed`; recall depends on the gallery's size"""
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def scores(self) -> tuple[By, ...]:
        """The one that is asked for."""
        return (self.by,)

    @property
    def figures(self) -> list[str]:
        """Recall both ways, and precision by class where it is asked for."""
        pairs = ("report_to_image", "image_to_report")
        by_class = (*pairs, "image_to_prompt", "image_to_image") if self.classes else ()
        recall = [f"{way}_r@{k}" for way in pairs for k in sorted(self.ks, reverse=True)]
        return [*recall, *(f"{way}_p@{k}" for way in by_class for k in self.class_ks)]


@register("grounding")
class GroundingSettings(TextSettings):
    """What is said, and how maps are made and judged."""

    phrases: PhraseKind = "label"
    """label: prompts of the boxes' labels; sentence: the boxes' own text or report sentences"""
    prompts: PromptSource = "built-in"
    """as for zero-shot"""
    ensemble: bool = True
    """label: mean map of all positive prompts; false: of the first one"""
    similarity: Literal["pooled", "patches"] = "pooled"
    """pooled: patches in the space of the global embeddings; patches: f_I with f_R"""
    contrast: bool = True
    """similarity with the label's negative prompts is subtracted; attention stays as it is"""
    thresholds: Annotated[tuple[float, ...], Field(min_length=1)] = THRESHOLDS
    """of the overlap"""
    overlap: Literal["stretched", "raw"] = "stretched"
    """the thresholds apply to maps stretched to [0, 1], or as they are"""

    @property
    def maps(self) -> tuple[MapKind, ...]:
        """Any: without a similarity there are the figures of the run's other maps."""
        return get_args(MapKind)

    @property
    def figures(self) -> list[str]:
        """Those of all maps, although a run that has not trained all has fewer."""
        kinds = ("pointing", "cnr", "cnr_absolute", "miou")
        return [f"{kind}_{of}" for of in ("similarity", "attention", "default") for kind in kinds] + [
            "pointing_chance"
        ]


@register("presence")
class PresenceSettings(TextSettings):
    """What is said of a finding."""

    min_positives: MinPositives = MIN_POSITIVES
    prompts: PromptSource = "built-in"
    """as for zero-shot; positive sentences alone"""
    ensemble: bool = True
    """mean map of all positive prompts; false: of the first one"""

    @property
    def maps(self) -> tuple[MapKind, ...]:
        """Any."""
        return get_args(MapKind)

    @property
    def figures(self) -> list[str]:
        """The run's default map and each kind, although a run may not have trained all."""
        return [MAP_AUROC, *(f"{MAP_AUROC}_{kind}" for kind in get_args(MapKind))]


@register("sides")
class SidesSettings(TextSettings):
    """What tells that a sentence states a finding."""

    prompts: PromptSource = "built-in"
    """as for zero-shot; of it the words of each label"""

    @property
    def scores(self) -> tuple[By, ...]:
        """Any."""
        return get_args(By)

    @property
    def figures(self) -> list[str]:
        """By each score, although a run may not have all."""
        return [f"{SIDE_ACCURACY}_{by}" for by in get_args(By)]


@register("zero_shot_segmentation")
class MapSegmentationSettings(TextSettings):
    """What is said, which map is cut, and against what."""

    parts: ClassVar[tuple[str, ...]] = ("val", "test")

    min_positives: MinPositives = 5
    """test patients with the label that it needs to count in a mean"""
    target: Target = "boxes"
    """boxes by their labels, filled; or masks, where the protocol has one label, theirs"""
    prompts: PromptSource = "built-in"
    """as for zero-shot"""
    ensemble: bool = True
    """mean map of all prompts of a kind; false: of the first one"""
    kind: Literal["default"] | MapKind = "default"
    """of map; default: the one that the run's validation chose"""

    @property
    def maps(self) -> tuple[MapKind, ...]:
        """The one that is asked for; any, of which the run chose one."""
        return get_args(MapKind) if self.kind == "default" else (self.kind,)

    @property
    def figures(self) -> list[str]:
        """Overlap, and what drawing everything gets."""
        return ["dice", "iou", "dice_chance"]
