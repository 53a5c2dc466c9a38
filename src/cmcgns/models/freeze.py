"""What stays as it is: parameters that no output depends on, statistics of pictures that are not whole."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


def freeze_unreached(module: nn.Module, output: Callable[[], Tensor], name: str) -> list[str]:
    """Freeze parameters that `output` does not depend on, such as a pooler nobody reads.

    They would never get a gradient: an optimiser would only let them decay, and DDP would wait for them.

    Args:
        module: whose parameters are looked at.
        output: computes any tensor from the module.
        name: for the log.

    Returns:
        Names of the frozen parameters.
    """
    was_training = module.training
    module.eval()
    with torch.enable_grad():  # also when built under no_grad
        output().float().sum().backward()
    frozen = [key for key, parameter in module.named_parameters() if parameter.grad is None]
    for key, parameter in module.named_parameters():
        parameter.grad = None
        if key in frozen:
            parameter.requires_grad_(False)
    module.train(was_training)
    if frozen:
        logger.info("%s: %d parameters are not used and stay as they are: %s", name, len(frozen), frozen)
    return frozen


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """BatchNorm normalises as ever, but does not learn the running statistics that evaluation will use."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
