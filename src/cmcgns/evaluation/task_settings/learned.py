"""What a protocol may set for what is learnt on top of an encoder: layers, neighbours, detectors and decoders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cmcgns.evaluation.task_settings.base import (
    CALIBRATION,
    MIN_POSITIVES,
    MULTICLASS,
    PARTS,
    RANKING,
    RARE_MEAN,
    LabelKind,
    MinPositives,
    Target,
    TaskSettings,
    register,
)
from cmcgns.metrics.detection import figure_names
from cmcgns.settings.config import Positive, Settings, Weight

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
L2Grid = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
Overlap = Annotated[float, Field(gt=0, le=1)]
Channels = Annotated[list[Positive], Field(min_length=1)]


class LegacySettings(Settings):
    """How the layer is trained."""

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    batch_size: Annotated[int, Field(ge=1)] = 48
    epochs: Annotated[int, Field(ge=1)] = 100
    """at most"""
    patience: Annotated[int, Field(ge=1)] = 10
    """epochs without a lower validation loss"""


class FinetuneSettings(Settings):
    """How encoder and layer are trained."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """of the encoder's last layers"""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    """factor of the learning rate from one stage or block to the one before it; 1: all alike"""
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """of the linear layer"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 32
    epochs: Annotated[int, Field(ge=1)] = 20
    """at most"""
    patience: Annotated[int, Field(ge=1)] = 5
    """epochs without a lower validation loss"""


@register("linear")
class LinearSettings(TaskSettings):
    """How the layer on top is found."""

    parts: ClassVar[tuple[str, ...]] = PARTS
    min_positives: MinPositives = MIN_POSITIVES
    solver: Literal["lbfgs", "adamw"] = "lbfgs"
    """lbfgs: logistic regression to convergence; adamw: trained as `adamw` says (legacy)"""
    outcome: LabelKind = "binary"
    """multiclass: the labels exclude each other, one softmax over them"""
    l2_grid: L2Grid = Field(list(L2_GRID))
    """strengths among which validation chooses (lbfgs)"""
    adamw: LegacySettings = LegacySettings()
    finetune: bool = False
    """train the encoder too, as `finetuning` says; no linear probe then"""
    finetuning: FinetuneSettings = FinetuneSettings()
    precision: Literal["auto", "float32", "float64"] = "auto"
    """of lbfgs; auto: float64 where there are few rows, float32 else"""

    @property
    def figures(self) -> list[str]:
        """Areas and calibration, and agreement of classes that exclude each other."""
        return [*(MULTICLASS if self.outcome == "multiclass" else []), *RANKING, *CALIBRATION, RARE_MEAN]


@register("knn")
class KnnSettings(TaskSettings):
    """Who votes, and how loudly."""

    parts: ClassVar[tuple[str, ...]] = PARTS
    min_positives: MinPositives = MIN_POSITIVES
    k: Annotated[int, Field(ge=1)] = 20
    """neighbours; fewer where fewer images have the label"""
    temperature: Annotated[float, Field(gt=0)] = 0.07

    @property
    def figures(self) -> list[str]:
        """Areas alone: shares of votes are no probabilities."""
        return [*RANKING, RARE_MEAN]


@register("patch_probe")
class PatchProbeSettings(TaskSettings):
    """What patches are told apart, and how the layers on top are found."""

    parts: ClassVar[tuple[str, ...]] = PARTS
    min_positives: MinPositives = 5
    """test patients with the finding that it needs to count in a mean"""
    target: Target = "boxes"
    """boxes by their labels, filled; or masks, where the protocol has one label, theirs"""
    finding_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """a patch with this share of a finding's region is positive too, so that findings smaller than half a
    patch count; null: only patches of which half lies in the region"""
    max_negatives: Positive = 200_000
    """patches in no region that are kept of all training images, and of validation, as many of each image (at
    least one), drawn by `seed`; positive patches and all of test are always kept"""
    seed: Annotated[int, Field(ge=0)] = 0
    l2_grid: L2Grid = Field(list(L2_GRID))
    """strengths among which validation chooses"""

    @property
    def figures(self) -> list[str]:
        """Average precision, and what scores at random get."""
        return ["ap", "ap_chance"]


@register("detection")
class DetectionSettings(TaskSettings):
    """How the head is trained and judged."""

    parts: ClassVar[tuple[str, ...]] = PARTS

    head_width: Annotated[int, Field(ge=8)] = 512
    """channels at the coarsest level, halved upwards"""
    epochs: Positive = 50
    patience: Positive = 10
    """epochs without a better validation before training stops"""
    choose_by: Literal["loss", "map"] = "loss"
    """validation figure that chooses the epoch"""
    batch: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Weight = 1e-6
    ious: list[Overlap] = Field([0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75], min_length=1)
    nms: Annotated[float, Field(ge=0, le=1)] = 0.5
    """a box overlapping a better one by more is left out"""
    max_detections: Positive = 100
    """of an image"""
    confidence_floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """lower scores are left out"""
    skip_empty: bool = False
    """leave out images without a detection or without a box (legacy)"""
    cache_gib: Weight = 64
    """maps of a split that take more are not kept on disk but computed for every batch"""

    @property
    def figures(self) -> list[str]:
        """Precision at overlaps that are asked for, recall, sensitivity."""
        return figure_names(self.ious, self.max_detections)


@register("segmentation")
class SegmentationSettings(TaskSettings):
    """What is drawn, by which decoder, and how that is trained; the defaults are those of v1."""

    parts: ClassVar[tuple[str, ...]] = PARTS

    target: Target = "masks"
    """boxes: filled, a pixel belongs if half covered"""
    decoder: Literal["auto", "unet", "naive", "pup"] = "auto"
    """auto: unet over a pyramid of maps, pup (SETR) over a transformer's last map"""
    unet_channels: Channels = Field([256, 128, 64, 32, 16])
    """of U-Net's blocks, coarsest first"""
    pup_channels: Channels = Field([512, 256, 128, 64])
    """of the progressive upsampling's steps; naive uses the first"""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """of AdamW, constant"""
    weight_decay: Weight = 0.05
    batch_size: Positive = 16
    epochs: Positive = 50
    """at most"""
    shortest_epoch: Positive = 16
    """batches: a few images are shown again and again until an epoch has as many"""
    patience: Positive = 10
    """epochs without a better validation before training stops"""
    stop_on: Literal["loss", "dice"] = "loss"
    """what validation looks at: the loss over all its pixels, or the mean Dice with empties"""
    focal_weight: Weight = 10.0
    """of the focal loss; -log Dice has 1"""
    focal_gamma: Weight = 2.0
    dice_over: Literal["batch", "image"] = "batch"
    """Dice in the loss: of all pixels of a batch together, or the mean of -log over images"""
    balance: Literal["each_epoch", "once", "none"] = "each_epoch"
    """train on all images with a mask and at most as many without, drawn in each epoch or once"""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """a pixel above it is inside"""
    augment_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """of training images that are turned and scaled at random; their maps cannot be kept"""
    augment_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """largest turn either way"""
    augment_scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """largest relative change of scale"""
    cache_limit: Annotated[int, Field(ge=0)] = 2048
    """MiB of memory for maps of the frozen encoder; images beyond it are encoded once an epoch"""

    @property
    def figures(self) -> list[str]:
        """Overlap at the size of the encoder's input and at that of the masks."""
        names = [f"{name}_{rows}" for name in ("dice", "iou") for rows in ("positive", "all")]
        return [*names, *(f"{name}_full" for name in names)]
