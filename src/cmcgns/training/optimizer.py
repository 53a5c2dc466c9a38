"""Optimiser and learning-rate schedule of a stage."""

import math

import torch
from torch import nn

from cmcgns.config import StageSettings


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """What a stage trains, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def build_optimizer(module: nn.Module, settings: StageSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over what is trained; AdamW's decay spares norms, biases, scales and other vectors."""
    parameters = list(trained_parameters(module).values())
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, fused=True)


def learning_rate(settings: StageSettings, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine to 0 at the end of the stage.

    Args:
        settings: of the stage.
        step: optimiser steps done in this stage.
        steps_per_epoch: optimiser steps an epoch.
    """
    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs * steps_per_epoch, total)
    if step < warmup:
        share = (step + 1) / warmup
        return settings.start_learning_rate + min(share, 1.0) * (
            settings.learning_rate - settings.start_learning_rate
        )
    share = (step - warmup) / max(total - warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The same rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = value
