"""Two gloo processes of B studies each must equal one process with all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.collective import gather, local_only, rank, sum_over_ranks, total, world_size
from cmcgns.objectives.objective import STAGES
from support.objectives import (
    GRID,
    SIZE,
    figures_of,
    part,
    random_batch,
    random_features,
    set_stage,
    small_settings,
    small_task,
)

COUNTS, BOUND = (5, 4, 3, 1, 0, 2), 5  # 12 sentences on rank 0, 3 on rank 1
HALVES = (slice(0, 3), slice(3, 6))
Found = dict[str, Tensor]
VARIANTS: dict[str, dict[str, object]] = {
    "margin": {"false_negatives": "margin"},
    "soft": {"false_negatives": "soft", "attention": "softmax", "duplicates": False},
    "mask": {"false_negatives": "mask", "reconstruct": "everywhere"},
    "hard": {"negatives": "hard"},
    "fixed sentences": {"sentence_gradient": 0.0},
    "a share of the gradient": {"sentence_gradient": 0.1},
    "query-matched": {"local": "query_matched", "false_negatives": "mask", "rarity": 1.0, "mu": 3.0},
    "query-matched, soft, hard": {"local": "query_matched", "false_negatives": "soft", "attention": "softmax"},
    "query-matched, places": {"local": "query_matched", "patch_positions": True, "unit_values": True},
    "query-matched, fixed": {"local": "query_matched", "centroid_negatives": False, "sentence_gradient": 0.0},
    "query-matched, whole reports": {"local": "query_matched", "weight_matching": 0.7},
    "overlap": {"global_overlap": 0.8},
    "query-matched, overlap": {"local": "query_matched", "false_negatives": "keep", "global_overlap": 1.0},
    "released": {"arithmetic": "released", "learn_tau": False},
}


def two_ranks(function: Callable[[slice], Any], folder: Path) -> list[Any]:
    """Run a function of this file in two processes and return both results."""
    torch.multiprocessing.spawn(_on_one_rank, (function, str(folder)), nprocs=2)
    return [torch.load(folder / f"{index}.pt", weights_only=True) for index in range(2)]


def _on_one_rank(index: int, function: Callable[[slice], Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=2)
    torch.save(function(HALVES[index]), Path(folder) / f"{index}.pt")
    dist.destroy_process_group()


def assert_equal(actual: Found, expected: Found, where: object) -> None:
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        # The rounding of a sum goes with its largest terms, so the bound goes with the largest entry of a tensor.
        bound = 1e-5 * max(1.0, float(value.abs().max())) if value.is_floating_point() else 0
        torch.testing.assert_close(
            actual[key], value, rtol=1e-5, atol=bound, msg=lambda text, key=key: f"{where} {key}: {text}"
        )


def gradients(module: torch.nn.Module) -> Found:
    found = {f"gradient {name}": p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def run_objective(rows: slice) -> dict[str, list[Found]]:
    return {name: list(_objective_steps(rows, changes)) for name, changes in VARIANTS.items()}


def _objective_steps(rows: slice, changes: dict[str, object]) -> Any:
    torch.manual_seed(0)
    bank = {"clusters": 20, "check_every": 1, "start_cosine": 1.0, "start_from_step": 0, "rate": 0.1}
    objective = CMCGNS(small_settings(bank=bank, **changes), GRID, SIZE)
    for step in range(6):
        set_stage(objective, STAGES[step // 4])
        whole = random_batch(COUNTS, BOUND, distinct=12 + 20 * (step < 2), seed=step)
        features = random_features(whole, seed=10 * step)
        batch, features = part(whole, features, rows)
        losses = figures_of(objective, features, batch, seed=step)
        losses["loss"].backward()
        state = {f"bank {key}": value.clone() for key, value in objective.bank.state_dict().items()}
        leaves = {
            f"input {name}": getattr(features, name).grad
            for name in ("patches", "sentences", "image_global", "report_global")
            if getattr(features, name).grad is not None  # sentence_gradient=0 takes sentences as they are
        }
        yield {key: value.detach() for key, value in losses.items()} | leaves | gradients(objective) | state


def test_pitfall_10_two_ranks_equal_one_for_given_features(tmp_path: Path) -> None:
    alone = run_objective(slice(0, 6))
    ranks = two_ranks(run_objective, tmp_path)
    for variant, steps in alone.items():
        started = [bool(step["bank started"]) for step in steps]
        assert not started[0]
        assert started[2]  # so that later steps update a bank
        for step, expected in enumerate(steps):
            first, second = (found[variant][step] for found in ranks)
            where = (variant, step)
            shared = {key for key in expected if not key.startswith(("input", "gradient"))}
            for found in (first, second):
                assert_equal({k: found[k] for k in shared}, {k: expected[k] for k in shared}, where)
            for key in expected.keys() - shared:
                join = torch.cat if key.startswith("input") else sum
                torch.testing.assert_close(join([first[key], second[key]]), expected[key], rtol=1e-5, atol=1e-5)


# At the default weight of 10 the rounding of one large gradient alone exceeds the absolute tolerance.
TASKS: dict[str, dict[str, object]] = {
    "features": {"weight_reconstruction": 1.0},
    "pixels": {"weight_reconstruction": 1.0, "mask": "pixels", "false_negatives": "soft"},
    "tokens": {"weight_reconstruction": 1.0, "mask": "tokens", "mask_ratio": 0.75, "target_per_patch": True},
    "average's features": {"weight_reconstruction": 1.0, "target": "features", "report_dropout": 0.5},
    "text map": {"weight_reconstruction": 1.0, "target": "text_map", "target_momentum": 0.5},
}


def run_task(rows: slice) -> dict[str, Found]:
    found = {}
    for name, changes in TASKS.items():
        bank = {"clusters": 6, "check_every": 1, "start_cosine": 1.0, "start_from_step": 0, "rate": 0.1}
        task = small_task(bank=bank, **changes)
        task.train()
        for stage in STAGES:
            task.set_stage(stage)
            module = DistributedDataParallel(task) if world_size() > 1 else task
            for step in range(2):
                whole = random_batch(COUNTS, BOUND, distinct=12, seed=step, size=32)
                batch, _ = part(whole, random_features(whole), rows)
                losses, metrics = module(batch, step)
                (losses["loss"] * world_size()).backward()  # as the training loop does
                state = {f"bank {key}": value.clone() for key, value in task.objective.bank.state_dict().items()}
                if task.objective.average is not None:
                    average = task.objective.average.state_dict()
                    state |= {f"average {key}": value.clone() for key, value in average.items()}
                values = {key: value.detach() for key, value in (losses | metrics).items()}
                found[f"{name} {stage} {step}"] = values | gradients(task) | state
    return found


def test_pitfall_10_two_ranks_equal_one_for_the_whole_task_under_ddp(tmp_path: Path) -> None:
    alone = run_task(slice(0, 6))
    ranks = two_ranks(run_task, tmp_path)
    for where, expected in alone.items():
        assert bool(expected["bank started"])
        assert any(key.startswith("gradient model.report_encoder") for key in expected)
        for found in ranks:
            assert_equal(found[where], expected, where)


def run_collectives(rows: slice) -> Found:
    value = torch.arange(6.0)[rows].requires_grad_()
    weights = torch.arange(1.0, 7.0) * (1 + rank())
    gathered = gather(value)
    loss = sum_over_ranks((gathered * weights).sum())
    loss.backward()
    assert value.grad is not None
    with local_only():
        alone = torch.tensor([world_size(), rank(), len(gather(value)), float(total(torch.tensor(2.0)))])
    return {
        "gathered": gathered.detach(), "loss": loss.detach(), "gradient": value.grad, "alone": alone,
        "mask": gather(torch.arange(3) > rank()), "total": total(torch.tensor(rank() + 1)),
    }  # fmt: skip


def test_collectives_and_their_gradients(tmp_path: Path) -> None:
    ranks = two_ranks(run_collectives, tmp_path)
    weights = torch.arange(1.0, 7.0)
    for index, found in enumerate(ranks):
        torch.testing.assert_close(found["gathered"], torch.arange(6.0))
        torch.testing.assert_close(found["loss"], (torch.arange(6.0) * weights * 3).sum())
        torch.testing.assert_close(found["gradient"], 3 * weights[HALVES[index]])
        torch.testing.assert_close(found["alone"], torch.tensor([1.0, 0.0, 3.0, 2.0]))
        assert found["mask"].tolist() == [False, True, True, False, False, True]
        assert int(found["total"]) == 3


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_a_single_process_passes_values_through(shape: tuple[int, ...]) -> None:
    value = torch.ones(shape, requires_grad=True)
    assert gather(value) is value
    assert sum_over_ranks(value) is value
    assert not total(value).requires_grad
    assert (world_size(), rank()) == (1, 0)
