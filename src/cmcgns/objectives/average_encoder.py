"""The exponential moving average of an image encoder, which makes targets (Tarvainen & Valpola, NeurIPS 2017)."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from cmcgns.models.freeze import into_buffers
from cmcgns.models.model import ImageReportModel


class AverageEncoder(nn.Module):
    """A copy of a model's image side that follows it slowly: `θ̄_0 = θ_0`, `θ̄_t = m·θ̄_(t-1) + (1 - m)·θ_t`.

    It lives in buffers and rests in eval mode: no optimiser, no dropout and no BatchNorm moves it. BatchNorm's
    running statistics are averaged like weights. Ranks have equal weights; of their statistics, and so of buffers
    here, those of the first rank count: DDP broadcasts its buffers before every pass.

    Args:
        model: whose image encoder and heads are copied.
        heads: names of the heads that targets need, such as `patch_projection`.
        momentum: m.
    """

    updates: Tensor

    def __init__(self, model: ImageReportModel, heads: tuple[str, ...], momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        # What has its place in the memo is not copied: the report's side would often be the larger one.
        memo = {id(part): None for name, part in model.named_children() if name not in ("image_encoder", *heads)}
        self.net: ImageReportModel = deepcopy(model, memo)
        into_buffers(self.net)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.eval()

    def train(self, mode: bool = True) -> "AverageEncoder":  # noqa: ARG002
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: ImageReportModel) -> None:
        """Move towards the model; the first time, become equal to it. Nothing is read back from the device."""
        step = torch.where(self.updates == 0, 1.0, 1 - self.momentum)
        tensors: dict[str, Tensor] = dict(model.named_buffers(remove_duplicate=False))
        tensors.update(model.named_parameters(remove_duplicate=False))
        for name, average in self.net.named_buffers(remove_duplicate=False):
            if average.is_floating_point():
                average.lerp_(tensors[name], step.to(average.dtype))
            else:
                average.copy_(tensors[name])
        self.updates += 1
