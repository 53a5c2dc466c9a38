"""Vision transformers of the transformers library with the face of a timm module."""

import inspect
from typing import Any

from torch import Tensor, nn

from cmcgns.common.errors import UserError


class TransformersBody(nn.Module):
    """A vision tower such as CLIP's, SigLIP's, ViT or DINOv2, whose tokens are taken without its class token.

    Args:
        vision: a transformers module that takes `pixel_values`; its configuration states a patch size.

    Attributes:
        depth: how many blocks it has.

    Raises:
        UserError: no patch size or no blocks, as of a convolutional network.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.vision = vision
        patch, depth = (getattr(vision.config, name, None) for name in ("patch_size", "num_hidden_layers"))
        if not isinstance(patch, int) or not isinstance(depth, int):
            raise UserError(
                f"{type(vision).__name__} states no patch_size and num_hidden_layers in its config.json: only vision "
                "transformers are opened so; for another architecture give timm's name of it, NAME@FOLDER"
            )
        self.patch, self.depth = patch, depth
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(vision.forward).parameters

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w) last hidden state of the patches."""
        return self._as_map(images, self._outputs(images).last_hidden_state)

    def forward_intermediates(
        self, images: Tensor, indices: list[int], intermediates_only: bool = True, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        """(B, 3, H, W) -> (B, C, h, w) hidden states behind some blocks, counted from 0."""
        assert intermediates_only
        assert output_fmt == "NCHW"
        states = self._outputs(images, output_hidden_states=True).hidden_states
        return [self._as_map(images, states[index + 1]) for index in indices]

    def _outputs(self, images: Tensor, **options: Any) -> Any:
        side = getattr(self.vision.config, "image_size", None)
        if self._interpolates and images.shape[-1] != side:
            options["interpolate_pos_encoding"] = True
        return self.vision(pixel_values=images, return_dict=True, **options)

    def _as_map(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Patches come last, behind class and register tokens."""
        rows, columns = (side // self.patch for side in images.shape[-2:])
        patches = tokens[:, tokens.shape[1] - rows * columns :]
        maps: Tensor = patches.transpose(1, 2).unflatten(2, (rows, columns))
        return maps
