"""What a masked image is rebuilt as: functions of the whole image, without a gradient."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.models.model import ImageReportModel
from cmcgns.settings.config import ObjectiveSettings

_FLAT = 1e-6  # least variance: a patch without any contrast stays 0
_ERRORS = {"features": "1 − cosine of patch features", "text_map": "|error| of the standardised text map"}


def normalise_patches(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Images with mean 0 and variance 1 in each patch (MAE, He et al., CVPR 2022, section 4; MRM, ICLR 2023).

    Args:
        images: (B, 1, H, W), in whole patches.
        grid: (h, w).

    Returns:
        (B, 1, H, W).
    """
    patches = _cells(images, grid)
    variance, mean = torch.var_mean(patches, dim=(3, 5), correction=0, keepdim=True)
    return ((patches - mean) * (variance + _FLAT).rsqrt()).reshape(images.shape)


def restore_patches(normalised: Tensor, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`normalise_patches`, with mean and variance of the images: for pictures alone."""
    variance, mean = torch.var_mean(_cells(images, grid), dim=(3, 5), correction=0, keepdim=True)
    return (_cells(normalised, grid) * (variance + _FLAT).sqrt() + mean).reshape(images.shape)


def high_frequencies(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """The image less a blurred one: the lowest level of a Laplacian pyramid (Burt & Adelson, IEEE Trans. Comm. 1983).

    The standard deviation of the Gaussian is an eighth of a patch's side: shading goes, edges and texture stay, which
    as targets (of gradients: MaskFeat, Wei et al., CVPR 2022) beat gray values.

    Args:
        images: (B, 1, H, W).
        grid: (h, w) of the patches.

    Returns:
        (B, 1, H, W); 0 for a constant image.
    """
    side = min(images.shape[-2:])
    deviation = side / grid[0] / 8
    reach = min(math.ceil(3 * deviation), side - 1)  # what reflection at the border allows
    places = torch.arange(-reach, reach + 1, device=images.device)
    kernel = (-(places**2) / (2 * deviation**2)).softmax(0)[None, None]
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    return images - F.conv2d(F.conv2d(padded, kernel[..., None]), kernel[:, :, None])


def patch_features(net: ImageReportModel, images: Tensor) -> Tensor:
    """Unit features f_I of whole images by the average encoder.

    As targets of masked images: data2vec (Baevski et al., ICML 2022), BootMAE (Dong et al., ECCV 2022).

    Args:
        net: in eval mode.
        images: (B, 1, H, W).

    Returns:
        (B, D, h, w).
    """
    patches = net.project_patches(net.image_encoder.tokens(images)).float()
    return patches.transpose(1, 2).reshape(*patches.shape[::2], *net.image_encoder.grid)


def text_map(patches: Tensor, sentences: Tensor, sentence_mask: Tensor) -> Tensor:
    """Where an image shows something that its report says, as G2D makes its targets (Liu et al., NeurIPS 2024).

    A sentence's map holds its cosines with the patches, less their mean over the image: what fits everywhere, such as
    a normal statement, is flat. Of the sentences the largest value counts; then mean 0 and variance 1 in each image.

    Args:
        patches: (B, P, D) unit vectors.
        sentences: (B, M, D) unit vectors.
        sentence_mask: (B, M).

    Returns:
        (B, P); 0 for a study without any sentence.
    """
    maps = patches @ sentences.transpose(1, 2)
    maps = (maps - maps.mean(1, keepdim=True)).masked_fill(~sentence_mask[:, None], -torch.inf).amax(2)
    maps = maps.masked_fill(~sentence_mask.any(1, keepdim=True), 0)
    variance, mean = torch.var_mean(maps, dim=1, correction=0, keepdim=True)
    return (maps - mean) * (variance + _FLAT).rsqrt()


def error_of(settings: ObjectiveSettings) -> str:
    """What the error of a reconstruction is, in words."""
    if settings.target in _ERRORS:
        return _ERRORS[settings.target]
    of = "a patch's own deviation" if settings.target_per_patch else "image range −1 to 1"
    what = " of high frequencies" if settings.target == "high_frequencies" else ""
    return f"|error|{what} ({of})"


def _cells(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) -> (B, 1, h, H/h, w, W/w)."""
    studies, _, height, width = images.shape
    return images.reshape(studies, 1, grid[0], height // grid[0], grid[1], width // grid[1])
