"""Schedule and optimiser."""

import itertools
import math

import pytest
import torch
from torch import nn

from cmcgns.models.freeze import trained_parameters
from cmcgns.settings.config import StageSettings
from cmcgns.training.step import build_optimizer, learning_rate, set_learning_rate
from cmcgns.training.task import build_task
from support.training import tiny_recipe

SETTINGS = StageSettings(epochs=5, learning_rate=1e-3, warmup_epochs=1.0, start_learning_rate=1e-5)


def test_schedule_has_known_values() -> None:
    rates = [learning_rate(SETTINGS, step, 10) for step in range(50)]
    assert rates[0] == pytest.approx(1e-5 + 0.1 * (1e-3 - 1e-5))
    assert rates[4] == pytest.approx((1e-5 + 1e-3) / 2)
    assert rates[9] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1e-3)
    assert rates[30] == pytest.approx(0.5e-3)
    assert rates[49] == pytest.approx(0.5e-3 * (1 + math.cos(math.pi * 39 / 40)))
    assert learning_rate(SETTINGS, 50, 10) == pytest.approx(0, abs=1e-12)
    assert all(after > before for before, after in itertools.pairwise(rates[:10]))
    assert all(after < before for before, after in itertools.pairwise(rates[10:]))


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    settings = SETTINGS.model_copy(update={"warmup_epochs": 0.0})
    assert learning_rate(settings, 0, 10) == pytest.approx(1e-3)


def test_warm_up_longer_than_the_stage_ends_at_the_peak() -> None:
    settings = SETTINGS.model_copy(update={"warmup_epochs": 9.0})
    assert learning_rate(settings, 49, 10) == pytest.approx(1e-3)


def test_decay_spares_vectors_and_scalars() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(3, 2), "norm": nn.LayerNorm(2)})
    module.scale = nn.Parameter(torch.tensor(1.0))
    optimizer = build_optimizer(module, StageSettings(weight_decay=0.3))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    linear, norm = module["linear"], module["norm"]
    assert decays[id(linear.weight)] == 0.3
    assert [decays[id(p)] for p in (linear.bias, norm.weight, norm.bias, module.scale)] == [0.0] * 4


def test_adam_is_adam() -> None:
    assert type(build_optimizer(nn.Linear(2, 2), StageSettings(optimizer="adam"))) is torch.optim.Adam
    assert type(build_optimizer(nn.Linear(2, 2), StageSettings(optimizer="adamw"))) is torch.optim.AdamW


@pytest.mark.parametrize("stage", ["alignment", "reconstruction"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_only_what_is_trained_is_inside(stage: str, optimizer: str) -> None:
    task = build_task(tiny_recipe(), vocabulary=100)
    task.set_stage(stage)
    built = build_optimizer(task, StageSettings(optimizer=optimizer))
    inside = [id(p) for group in built.param_groups for p in group["params"]]
    assert sorted(inside) == sorted(id(p) for p in task.parameters() if p.requires_grad)
    names = set(trained_parameters(task))
    assert not any(name.startswith("objective.bank") for name in names)
    assert any(name.startswith("objective.reconstruction") for name in names) == (stage == "reconstruction")


def test_set_learning_rate_reaches_every_group() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), StageSettings())
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
