"""What a protocol may set for segmentation by a trained decoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cmcgns.evaluation.task_settings.base import PARTS, TaskSettings, register
from cmcgns.settings.config import Positive, Weight

Channels = Annotated[list[Positive], Field(min_length=1)]


@register("segmentation")
class SegmentationSettings(TaskSettings):
    """What is drawn, by which decoder, and how that is trained; the defaults are those of v1."""

    parts: ClassVar[tuple[str, ...]] = PARTS

    target: Literal["masks", "boxes"] = "masks"
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
