"""Image encoders: any timm backbone, with patch tokens in row-major order."""

from typing import Any

import torch
from torch import Tensor, nn

from cmcgns.common.errors import UserError, did_you_mean
from cmcgns.common.files import expanded
from cmcgns.models.freeze import freeze_unreached
from cmcgns.models.weights import load_image_weights
from cmcgns.settings.config import ImageEncoderSettings


class ImageEncoder(nn.Module):
    """A timm backbone that gives pooled features and patch tokens.

    Args:
        settings: name, channels, weights, output stride.
        image_size: side of the square input in pixels.
        load_weights: false when a checkpoint will fill the parameters anyway.

    Attributes:
        body: the plain timm module.
        width: channels C of the tokens.
        grid: (h, w) of the patch tokens; P = h·w.

    Raises:
        UserError: unknown name, no patch tokens, weights that do not fit.
    """

    body: Any

    def __init__(self, settings: ImageEncoderSettings, image_size: int, load_weights: bool = True) -> None:
        super().__init__()
        body = _create_body(settings, image_size)
        if settings.weights is not None and load_weights:
            path = expanded(settings.weights)
            load_image_weights(body, path, settings.channels, settings.weights_prefix or "")
        self._take(body, settings.channels, image_size, settings.name)

    @classmethod
    def of(cls, body: nn.Module, channels: int, image_size: int) -> "ImageEncoder":
        """One around a module that is there, with the face of timm's.

        Raises:
            UserError: it does not take images of this size.
        """
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder._take(body, channels, image_size, type(body).__name__)
        return encoder

    def _take(self, body: nn.Module, channels: int, image_size: int, name: str) -> None:
        self.channels, self.body = channels, body
        example = torch.zeros(1, 1, image_size, image_size)
        self.body.eval()
        try:
            with torch.no_grad():
                maps = self._maps(example)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(f"image_encoder {name} does not take {image_size} px: {error}") from error
        self.width, self.grid = maps.shape[1], (maps.shape[2], maps.shape[3])
        freeze_unreached(self.body, lambda: self._maps(example))
        # Convolutions are faster this way on CPUs and on GPUs in half precision; other layers do not mind.
        self.body.to(memory_format=torch.channels_last)
        self.body.train()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            images: (B, 1, H, W) in the normalised pixel range.

        Returns:
            pooled (B, C), the mean of the tokens, and tokens (B, P, C). The mean is what a ResNet's own pooling
            gives; a transformer's class token is not used, because no loss of the pretraining reaches it.
        """
        tokens = self.tokens(images)
        return tokens.mean(1), tokens

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, P, C) patch tokens without pooling."""
        return self._maps(images).flatten(2).transpose(1, 2)

    @property
    def can_drop_patches(self) -> bool:
        """Whether patches can be left out: those of timm's plain ViT know their place before its blocks."""
        from timm.models import VisionTransformer

        return isinstance(self.body, VisionTransformer)

    def require_patch_drop(self, key: str) -> None:
        """Refuse a setting `key` that asks for patches to be left out, where they cannot be.

        Raises:
            UserError: names the encoder and the ways out.
        """
        if not self.can_drop_patches:
            raise UserError(
                f"{key}=tokens: {type(self.body).__name__} cannot leave patches out, as a VisionTransformer of timm "
                f"can; set {key}=pixels, or another image_encoder.name"
            )

    def visible_tokens(self, images: Tensor, visible: Tensor) -> Tensor:
        """Tokens of some patches, computed without the others (MAE, He et al., CVPR 2022).

        Args:
            images: (B, 1, H, W).
            visible: (B, V) places of the patches, row-major.

        Returns:
            (B, V, C), in the order asked for.
        """
        prefix = self.body.num_prefix_tokens

        def keep(_: nn.Module, __: Any, tokens: Tensor) -> Tensor:
            places = visible[:, :, None].expand(-1, -1, tokens.shape[2])
            return torch.cat([tokens[:, :prefix], tokens[:, prefix:].gather(1, places)], dim=1)

        # timm's own place for it: positions are added by then.
        hook = self.body.patch_drop.register_forward_hook(keep)
        try:
            tokens: Tensor = self._features(images)[:, prefix:]
        finally:
            hook.remove()
        return tokens

    def _features(self, images: Tensor) -> Any:
        images = images if self.channels == 1 else images.expand(-1, self.channels, -1, -1)
        return self.body.forward_features(images.contiguous(memory_format=torch.channels_last))

    def _maps(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C, h, w), whatever timm calls features."""
        features = self._features(images)
        if not isinstance(features, Tensor):
            raise UserError(f"image encoder: {type(self.body).__name__} gives no single map of patch tokens")
        if features.ndim == 4:
            channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
            return features.permute(0, 3, 1, 2) if channels_last else features
        tokens = features[:, getattr(self.body, "num_prefix_tokens", 0) :]
        embedding = getattr(self.body, "patch_embed", getattr(self.body, "stem", None))
        grid = getattr(embedding, "grid_size", None)
        if grid is None or grid[0] * grid[1] != tokens.shape[1]:
            raise UserError(f"image encoder: {tokens.shape[1]} tokens do not form the grid {grid}")
        maps: Tensor = tokens.transpose(1, 2).unflatten(2, tuple(grid))
        return maps


def no_model(name: str) -> str:
    """What is said of a name that timm does not know."""
    import timm

    hint = did_you_mean(name, timm.list_models()) or " `timm.list_models()` in Python lists what there is."
    return f"timm has no model {name or 'without a name'}.{hint}"


def _create_body(settings: ImageEncoderSettings, image_size: int) -> nn.Module:
    import timm

    if not timm.is_model(settings.name):
        raise UserError(f"image_encoder.name: {no_model(settings.name)}")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": settings.channels, "pretrained": False}
    options = settings.options | options
    if settings.output_stride is not None:
        options["output_stride"] = settings.output_stride
    try:
        body: nn.Module
        try:  # most transformers are built for one image size
            body = timm.create_model(settings.name, **options, img_size=image_size)
        except TypeError:
            body = timm.create_model(settings.name, **options)
    except (TypeError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"image_encoder {settings.name} cannot be built with {options}: {error}") from error
    return body
