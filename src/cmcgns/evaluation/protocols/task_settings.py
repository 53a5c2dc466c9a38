"""What a protocol may set for each kind of evaluation; the defaults are those of v1."""

from __future__ import annotations

from math import isclose
from typing import Annotated, Literal, get_args

from pydantic import Field

from cmcgns.metrics.overlap import THRESHOLDS
from cmcgns.objectives.phrase_maps import MapKind
from cmcgns.pretrained.embed import By
from cmcgns.pretrained.prompts import PromptSource
from cmcgns.settings.config import Positive, Settings, Weight

Overlap = Annotated[float, Field(gt=0, le=1)]
AP_NAMES = {0.4: "ap40", 0.5: "ap50", 0.75: "ap75"}
FREE_RESPONSE = 0.5  # intersection over union at which false alarms are counted
RANKING = ["auroc", "auprc"]
CALIBRATION = ["brier", "ece"]
RARE_MEAN = "auroc_rare"  # only where a label is rare in training and has enough test patients
MULTICLASS = ["accuracy", "macro_f1"]


class TaskSettings(Settings):
    """What every task has."""

    @property
    def figures(self) -> list[str]:
        """Figures over all rows that the task may make with these settings: what `primary` can name."""
        raise NotImplementedError


class DetectionSettings(TaskSettings):
    """How the head is trained and judged."""

    head_width: Annotated[int, Field(ge=8)] = Field(512, description="channels at the coarsest level, halved upwards")
    epochs: Positive = 50
    patience: Positive = Field(10, description="epochs without a better validation before training stops")
    choose_by: Literal["loss", "map"] = Field("loss", description="validation figure that chooses the epoch")
    batch: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Weight = 1e-6
    ious: list[Overlap] = Field([0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75], min_length=1)
    nms: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="a box overlapping a better one by more is left out"
    )
    max_detections: Positive = Field(100, description="of an image")
    confidence_floor: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="lower scores are left out")
    skip_empty: bool = Field(False, description="leave out images without a detection or without a box (legacy)")
    cache_gib: Weight = Field(
        64, description="maps of a split that take more are not kept on disk but computed for every batch"
    )

    @property
    def figures(self) -> list[str]:
        """Precision at overlaps that are asked for, recall, sensitivity."""
        named = [name for iou, name in AP_NAMES.items() if any(isclose(iou, asked) for asked in self.ious)]
        free = ["sensitivity@1fp"] if any(isclose(FREE_RESPONSE, asked) for asked in self.ious) else []
        return ["map", *named, f"recall@{self.max_detections}", *free]


Channels = Annotated[list[Positive], Field(min_length=1)]


class SegmentationSettings(TaskSettings):
    """What is drawn, by which decoder, and how that is trained; the defaults are those of v1."""

    target: Literal["masks", "boxes"] = Field("masks", description="boxes: filled, a pixel belongs if half covered")
    decoder: Literal["auto", "unet", "naive", "pup"] = Field(
        "auto", description="auto: unet over a pyramid of maps, pup (SETR) over a transformer's last map"
    )
    unet_channels: Channels = Field([256, 128, 64, 32, 16], description="of U-Net's blocks, coarsest first")
    pup_channels: Channels = Field(
        [512, 256, 128, 64], description="of the progressive upsampling's steps; naive uses the first"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(5e-4, description="of AdamW, constant")
    weight_decay: Weight = 0.05
    batch_size: Positive = 16
    epochs: Positive = Field(50, description="at most")
    shortest_epoch: Positive = Field(
        16, description="batches: a few images are shown again and again until an epoch has as many"
    )
    patience: Positive = Field(10, description="epochs without a better validation before training stops")
    stop_on: Literal["loss", "dice"] = Field(
        "loss", description="what validation looks at: the loss over all its pixels, or the mean Dice with empties"
    )
    focal_weight: Weight = Field(10.0, description="of the focal loss; -log Dice has 1")
    focal_gamma: Weight = 2.0
    dice_over: Literal["batch", "image"] = Field(
        "batch", description="Dice in the loss: of all pixels of a batch together, or the mean of -log over images"
    )
    balance: Literal["each_epoch", "once", "none"] = Field(
        "each_epoch",
        description="train on all images with a mask and at most as many without, drawn in each epoch or once",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="a pixel above it is inside")
    augment_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="of training images that are turned and scaled at random; their maps cannot be kept"
    )
    augment_degrees: Annotated[float, Field(ge=0, le=180)] = Field(10.0, description="largest turn either way")
    augment_scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="largest relative change of scale")
    cache_limit: Annotated[int, Field(ge=0)] = Field(
        2048, description="MiB of memory for maps of the frozen encoder; images beyond it are encoded once an epoch"
    )

    @property
    def figures(self) -> list[str]:
        """Overlap at the size of the encoder's input and at that of the masks."""
        names = [f"{name}_{rows}" for name in ("dice", "iou") for rows in ("positive", "all")]
        return [*names, *(f"{name}_full" for name in names)]


MinPositives = Annotated[int, Field(ge=1)]
MIN_POSITIVES = Field(5, description="positive and negative test patients that a class must have to count in a mean")


class KnnSettings(TaskSettings):
    """Who votes, and how loudly."""

    min_positives: MinPositives = MIN_POSITIVES

    k: Annotated[int, Field(ge=1)] = Field(20, description="neighbours; fewer where fewer images have the label")
    temperature: Annotated[float, Field(gt=0)] = 0.07

    @property
    def figures(self) -> list[str]:
        """Areas alone: shares of votes are no probabilities."""
        return [*RANKING, RARE_MEAN]


class ZeroShotSettings(TaskSettings):
    """What an image is compared with."""

    min_positives: MinPositives = MIN_POSITIVES

    prompts: PromptSource = Field(
        "built-in",
        description="built-in (pretrained/prompts.yaml), phantom (wording of the synthetic studies), template "
        "(`{label}.` and `No {label}.`), a YAML file of the same form, or such a mapping itself",
    )
    ensemble: bool = Field(True, description="false: only the first sentence of each kind")
    outcome: Literal["binary", "multiclass"] = Field(
        "binary",
        description="binary: each label by positive minus negative cosine; multiclass: the labels exclude each other "
        "and the largest positive cosine wins",
    )
    by: By = Field(
        "global",
        description="global: cosine of the global embeddings; local: a sentence beside what it sees in the image "
        "with its own query; sum: both, each over its spread in the run's validation",
    )

    @property
    def figures(self) -> list[str]:
        """Areas and calibration, and agreement of labels that exclude each other."""
        return [*(MULTICLASS if self.outcome == "multiclass" else []), *RANKING, *CALIBRATION, RARE_MEAN]


TextKind = Literal["auto", "sections", "report"]


PhraseKind = Literal["label", "sentence"]


Ks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class RetrievalSettings(TaskSettings):
    """What counts as right, and how far to look."""

    by: By = Field(
        "global",
        description="of recall; global: cosine of the global embeddings; local: mean over a report's sentences, each "
        "beside what it sees in the image with its own query; sum: both, each over its spread in the run's "
        "validation. Precision by class stays global",
    )
    ks: Ks = Field((1, 5, 10), description="of recall: is a right item among the k nearest?")
    text: TextKind | Literal["recipe"] = Field(
        "recipe", description="which text is the report; recipe: as in pretraining"
    )
    classes: bool = Field(
        False, description="also precision at k by class (CheXpert-5x200, MIMIC-5x200): images with one of the labels"
    )
    class_ks: Ks = Field((1, 5, 10), description="of precision by class")
    prompts: PromptSource = Field("built-in", description="positive sentences of the labels, found by their images")
    limit: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="at most so many images, whole studies drawn by `seed`; recall depends on the gallery's size",
    )
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def figures(self) -> list[str]:
        """Recall both ways, and precision by class where it is asked for."""
        pairs = ("report_to_image", "image_to_report")
        by_class = (*pairs, "image_to_prompt", "image_to_image") if self.classes else ()
        recall = [f"{way}_r@{k}" for way in pairs for k in sorted(self.ks, reverse=True)]
        return [*recall, *(f"{way}_p@{k}" for way in by_class for k in self.class_ks)]


class GroundingSettings(TaskSettings):
    """What is said, and how maps are made and judged."""

    phrases: PhraseKind = Field(
        "label", description="label: prompts of the boxes' labels; sentence: the boxes' own text or report sentences"
    )
    prompts: PromptSource = Field("built-in", description="as for zero-shot")
    ensemble: bool = Field(True, description="label: mean map of all positive prompts; false: of the first one")
    similarity: Literal["pooled", "patches"] = Field(
        "pooled", description="pooled: patches in the space of the global embeddings; patches: f_I with f_R"
    )
    contrast: bool = Field(
        True, description="similarity with the label's negative prompts is subtracted; attention stays as it is"
    )
    thresholds: Annotated[tuple[float, ...], Field(min_length=1)] = Field(THRESHOLDS, description="of the overlap")
    overlap: Literal["stretched", "raw"] = Field(
        "stretched", description="the thresholds apply to maps stretched to [0, 1], or as they are"
    )

    @property
    def figures(self) -> list[str]:
        """Those of all maps, although a run without attention has fewer."""
        kinds = ("pointing", "cnr", "cnr_absolute", "miou")
        return [f"{kind}_{of}" for of in ("similarity", "attention", "default") for kind in kinds] + [
            "pointing_chance"
        ]


class LegacySettings(Settings):
    """How the layer is trained."""

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    batch_size: Annotated[int, Field(ge=1)] = 48
    epochs: Annotated[int, Field(ge=1)] = Field(100, description="at most")
    patience: Annotated[int, Field(ge=1)] = Field(10, description="epochs without a lower validation loss")


class FinetuneSettings(Settings):
    """How encoder and layer are trained."""

    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="of the encoder's last layers")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75, description="factor of the learning rate from one stage or block to the one before it; 1: all alike"
    )
    head_learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="of the linear layer")
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 32
    epochs: Annotated[int, Field(ge=1)] = Field(20, description="at most")
    patience: Annotated[int, Field(ge=1)] = Field(5, description="epochs without a lower validation loss")


L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


Outcome = Literal["binary", "multiclass"]


class LinearSettings(TaskSettings):
    """How the layer on top is found."""

    min_positives: MinPositives = MIN_POSITIVES

    solver: Literal["lbfgs", "adamw"] = Field(
        "lbfgs", description="lbfgs: logistic regression to convergence; adamw: trained as `adamw` says (legacy)"
    )
    outcome: Outcome = Field("binary", description="multiclass: the labels exclude each other, one softmax over them")
    l2_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        list(L2_GRID), description="strengths among which validation chooses (lbfgs)"
    )
    adamw: LegacySettings = LegacySettings()
    finetune: bool = Field(False, description="train the encoder too, as `finetuning` says; no linear probe then")
    finetuning: FinetuneSettings = FinetuneSettings()
    precision: Literal["auto", "float32", "float64"] = Field(
        "auto", description="of lbfgs; auto: float64 where there are few rows, float32 else"
    )

    @property
    def figures(self) -> list[str]:
        """Areas and calibration, and agreement of classes that exclude each other."""
        return [*(MULTICLASS if self.outcome == "multiclass" else []), *RANKING, *CALIBRATION, RARE_MEAN]


class PatchProbeSettings(TaskSettings):
    """What patches are told apart, and how the layers on top are found."""

    min_positives: MinPositives = Field(
        5, description="test patients with the finding that it needs to count in a mean"
    )
    target: Literal["boxes", "masks"] = Field(
        "boxes", description="boxes by their labels, filled; or masks, where the protocol has one label, theirs"
    )
    max_negatives: Positive = Field(
        200_000,
        description="patches in no region that are kept of all training images, and of validation, as many of each "
        "image (at least one), drawn by `seed`; positive patches and all of test are always kept",
    )
    seed: Annotated[int, Field(ge=0)] = 0
    l2_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        list(L2_GRID), description="strengths among which validation chooses"
    )

    @property
    def figures(self) -> list[str]:
        """Average precision, and what scores at random get."""
        return ["ap", "ap_chance"]


MAP_AUROC = "map_auroc"


class PresenceSettings(TaskSettings):
    """What is said of a finding."""

    min_positives: MinPositives = MIN_POSITIVES
    prompts: PromptSource = Field("built-in", description="as for zero-shot; positive sentences alone")
    ensemble: bool = Field(True, description="mean map of all positive prompts; false: of the first one")

    @property
    def figures(self) -> list[str]:
        """The run's default map and each kind, although a run may not have trained all."""
        return [MAP_AUROC, *(f"{MAP_AUROC}_{kind}" for kind in get_args(MapKind))]


class MapSegmentationSettings(TaskSettings):
    """What is said, which map is cut, and against what."""

    min_positives: MinPositives = Field(
        5, description="test patients with the label that it needs to count in a mean"
    )
    target: Literal["boxes", "masks"] = Field(
        "boxes", description="boxes by their labels, filled; or masks, where the protocol has one label, theirs"
    )
    prompts: PromptSource = Field("built-in", description="as for zero-shot")
    ensemble: bool = Field(True, description="mean map of all prompts of a kind; false: of the first one")
    kind: Literal["default", "pooled", "patches", "attention"] = Field(
        "default", description="of map; default: the one that the run's validation chose"
    )

    @property
    def figures(self) -> list[str]:
        """Overlap, and what drawing everything gets."""
        return ["dice", "iou", "dice_chance"]


SIDE_ACCURACY = "side_accuracy"


class SidesSettings(TaskSettings):
    """What tells that a sentence states a finding."""

    prompts: PromptSource = Field("built-in", description="as for zero-shot; of it the words of each label")

    @property
    def figures(self) -> list[str]:
        """By each score, although a run may not have all."""
        return [f"{SIDE_ACCURACY}_{by}" for by in get_args(By)]


TASK_SETTINGS: dict[str, type[TaskSettings]] = {
    "linear": LinearSettings,
    "knn": KnnSettings,
    "detection": DetectionSettings,
    "segmentation": SegmentationSettings,
    "zero_shot": ZeroShotSettings,
    "retrieval": RetrievalSettings,
    "grounding": GroundingSettings,
    "patch_probe": PatchProbeSettings,
    "presence": PresenceSettings,
    "sides": SidesSettings,
    "zero_shot_segmentation": MapSegmentationSettings,
}
