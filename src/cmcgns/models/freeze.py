"""Parameters and statistics that training leaves as they are, and modules that are looked at without training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_UNREACHED = "_unreached_parameters"


def freeze_unreached(module: nn.Module, output: Callable[[], Tensor]) -> list[str]:
    """Freeze parameters that `output` does not depend on, such as a pooler nobody reads.

    They would never get a gradient: an optimiser would only let them decay, and DDP would wait for them. The module
    keeps their names, so that :func:`train_only` leaves them frozen.

    Returns:
        Names of the frozen parameters; none of a module without memory, which nobody will train.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        return []
    with eval_mode(module), torch.enable_grad():  # also when built under no_grad
        output().float().sum().backward()
    frozen = [key for key, parameter in module.named_parameters() if parameter.grad is None]
    for key, parameter in module.named_parameters():
        parameter.grad = None
        if key in frozen:
            parameter.requires_grad_(False)
    setattr(module, _UNREACHED, frozen)
    return frozen


def train_only(module: nn.Module, parts: Iterable[nn.Module]) -> None:
    """Train these parts of a module and freeze the rest, and whatever `freeze_unreached` has found inside."""
    module.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    for name in unreached_parameters(module):
        module.get_parameter(name).requires_grad_(False)


def unreached_parameters(module: nn.Module) -> list[str]:
    """Names of what `freeze_unreached` has frozen inside."""
    inside = ((path, name) for path, each in module.named_modules() for name in getattr(each, _UNREACHED, ()))
    return [f"{path}.{name}" if path else name for path, name in inside]


def into_buffers(module: nn.Module) -> None:
    """Make every parameter a buffer of the same name: no optimiser sees it, and weights still hold it."""
    for each in module.modules():
        for name in list(each._parameters):
            parameter = each._parameters.pop(name)
            each.register_buffer(name, None if parameter is None else parameter.detach().clone())
        vars(each).pop(_UNREACHED, None)  # which names parameters


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Dropout, BatchNorm and buffers rest; the mode is put back afterwards."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


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


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """What a stage trains, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
