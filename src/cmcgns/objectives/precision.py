"""Where losses are computed in float32, whatever the run's precision."""

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """No autocast on the tensor's device; attention and predictors run in whatever autocast chooses outside."""
    return torch.autocast(tensor.device.type, enabled=False)
