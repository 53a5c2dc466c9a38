"""The encoder that is judged: in eval mode, never trained, with what it wants images to be."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import Pixels, centre_crop
from cmcgns.data.pairs.dataset import normalise_pixels
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.objectives.objective import By, MapKind
from cmcgns.pretrained import Pretrained
from cmcgns.pretrained.embed import BATCH  # that of `embed_image`: equal batches give equal bits
from cmcgns.pretrained.foreign import TransformersBody

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""

HALF: Statistics = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEVELS = 4  # maps taken from a transformer, evenly spaced, the last one among them


class FrozenEncoder:
    """An image encoder whose weights and buffers never change.

    Args:
        name: for tables.
        encoder: put into eval mode, without gradients.
        image_size: side of the square that it was made for.
        resize: long side of an image before the centre crop to `image_size`.
        statistics: of its normalisation.
        pretrained: the run that it comes from, with its report encoder; None for an image encoder alone.
        seen_nothing: its weights are random, so no image can have been seen before.

    Attributes:
        width: channels C of the pooled features.
        strides: of the maps, rising; equal ones for a transformer.
        map_widths: channels of the maps.
        features_sha256: of image weights and preprocessing: equal hashes give equal features.
        sha256: of all weights of the run that it comes from, and of what its validation chose: maps and local scores
            are made by these.
    """

    def __init__(
        self,
        name: str,
        encoder: ImageEncoder,
        image_size: int,
        resize: int,
        statistics: Statistics = HALF,
        pretrained: Pretrained | None = None,
        seen_nothing: bool = False,
    ) -> None:
        self.name, self.image_size, self.resize = name, image_size, resize
        self.statistics, self.pretrained, self.seen_nothing = statistics, pretrained, seen_nothing
        self.encoder = encoder.eval().requires_grad_(False)
        self.width = encoder.width
        self._levels = _choose_levels(encoder.body)
        blank = torch.zeros(1, encoder.channels, image_size, image_size, device=self.device)
        shapes = [tuple(each.shape) for each in self.maps(blank)]
        self.strides = tuple(image_size // height for _, _, height, _ in shapes)
        self.map_widths = tuple(width for _, width, _, _ in shapes)
        self.features_sha256, self.sha256 = self._hashes()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.encoder.parameters()).device

    @property
    def is_pyramid(self) -> bool:
        """Whether the maps get coarser, as in a convolutional network; a transformer's all have one size."""
        return len(set(self.strides)) > 1

    def to(self, device: str | torch.device) -> FrozenEncoder:
        """Move the weights, in place."""
        self.encoder.to(device)
        if self.pretrained is not None:
            self.pretrained.task.to(device)
        return self

    def tensors(self, pixels: Pixels, size: int | None = None) -> Tensor:
        """(n, S, S) uint8 -> (n, channels, size, size), cropped at the centre, normalised, on its device.

        Args:
            pixels: squares of side S >= `size`.
            size: by default the encoder's own.
        """
        size = size or self.image_size
        if pixels.shape[1] != size:
            pixels = centre_crop(pixels, size)
        owned = np.require(pixels, requirements=["C", "W"])  # a memory map is read-only, which torch warns about
        images = normalise_pixels(owned)[:, None].to(self.device)
        channels = self.encoder.channels
        images = images.expand(-1, channels, -1, -1)
        if self.statistics == HALF:
            return images
        mean, std = (torch.tensor(values[:channels], device=self.device) for values in self.statistics)
        return (images * 0.5 + 0.5 - mean[:, None, None]) / std[:, None, None]

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, C), the mean over places."""
        pooled: Tensor = self.encoder(images)[0]
        return pooled

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, P, C) in row-major order."""
        return self.encoder.tokens(images)

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """(B, channels, H, W) -> maps (B, width, h, w), finest first; of a transformer several of one size."""
        found: list[Tensor] = self.encoder.body.forward_intermediates(
            images, indices=self._levels, intermediates_only=True, output_fmt="NCHW"
        )
        return found

    @property
    def run(self) -> Pretrained:
        """The run behind an encoder that does not lack a report encoder."""
        assert self.pretrained is not None
        return self.pretrained

    def lacks_report_encoder(self) -> str:
        """Why images cannot be compared with text; empty if they can."""
        return (
            "" if self.pretrained else f"{self.name} has no report encoder (only a run or an image-text pair has one)"
        )

    def lacks_map(self, kind: MapKind) -> str:
        """Why there is no such map of phrases; empty if there is."""
        return self.lacks_report_encoder() or self.run.lacks_map(kind)

    def lacks_score(self, by: By) -> str:
        """Why images and texts cannot be scored so; empty if they can."""
        if reason := self.lacks_report_encoder():
            return reason
        if reason := self.run.lacks(by):
            return f"{self.name}: {reason}"
        size = self.run.recipe.data.image_size
        fits = self.image_size == size
        return "" if fits else f"{self.name} scores images of {size} px only, not of {self.image_size}"

    def embed_pixels(self, pixels: Pixels, progress: Callable[[float], None]) -> npt.NDArray[np.float32]:
        """Embed stored squares; the same numbers as :meth:`cmcgns.pretrained.Pretrained.embed_image` of their files.

        Args:
            pixels: (n, S, S), may be memory-mapped.
            progress: called with the share that is done.

        Returns:
            (n, D) unit vectors.
        """
        return np.concatenate([self.run.embed_tensors(images) for images in self.batches(pixels, progress)])

    def batches(self, pixels: Pixels, progress: Callable[[float], None]) -> Iterator[Tensor]:
        """Stored squares (n, S, S), a few at a time, as :meth:`tensors` gives them; arguments of `embed_pixels`."""
        for start in range(0, len(pixels), BATCH):
            progress(start / len(pixels))
            yield self.tensors(np.array(pixels[start : start + BATCH]))

    def at_size(self, size: int) -> FrozenEncoder:
        """This encoder for squares of another side: a transformer's position embedding is interpolated.

        Raises:
            UserError: it cannot.
        """
        if size == self.image_size:
            return self
        encoder = self.encoder
        if hasattr(encoder.body, "set_input_size"):
            encoder = copy.deepcopy(encoder)
            encoder.body.set_input_size(img_size=size)
        resize = round(self.resize * size / self.image_size)
        try:
            return FrozenEncoder(
                self.name, encoder, size, resize, self.statistics, self.pretrained, self.seen_nothing
            )
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(f"{self.name} does not take images of {size} px: {error}") from error

    def trainable_copy(self) -> ImageEncoder:
        """A copy to be fine-tuned."""
        return copy.deepcopy(self.encoder).requires_grad_(True).train()

    def check_unchanged(self) -> None:
        """Raise if weights or buffers are not what they were: results of a moving encoder mean nothing."""
        if self._hashes() != (self.features_sha256, self.sha256) or self.encoder.training:
            raise RuntimeError(f"{self.name}: the frozen encoder was changed by a task")

    def _hashes(self) -> tuple[str, str]:
        about = f"{self.statistics} {self.image_size} {self.resize}"
        features = _hash(self.encoder.body, about)
        if self.pretrained is None:
            return features, features
        chosen = json.dumps(asdict(self.pretrained.scores), sort_keys=True)
        return features, _hash(self.pretrained.task, f"{about} {chosen}")


def _choose_levels(body: nn.Module) -> list[int]:
    if not hasattr(body, "forward_intermediates"):
        raise UserError(f"{type(body).__name__} gives no maps of its stages (timm's forward_intermediates)")
    depth = body.depth if isinstance(body, TransformersBody) else 0
    blocks = getattr(body, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(body, "pos_embed"):
        depth = len(blocks)
    if depth:
        return sorted({round((depth - 1) * (level + 1) / _LEVELS) for level in range(_LEVELS)})
    info = getattr(body, "feature_info", None)
    return list(range(len(info))) if info is not None else [0]


def _hash(module: nn.Module, about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
