"""One optimiser step (optimiser, learning rate, forward and backward), and losses and retrieval in validation."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch, evaluation_order, mix
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.pairs.loader import make_loader
from cmcgns.metrics.retrieval import recall_at_k
from cmcgns.models.freeze import eval_mode, trained_parameters
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives.collective import local_only
from cmcgns.objectives.objective import Stage
from cmcgns.settings.config import StageSettings
from cmcgns.training.cluster_log import ClusterLog, KnownSentences
from cmcgns.training.task import PretrainingTask


def build_optimizer(module: nn.Module, settings: StageSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over what is trained; AdamW's decay spares norms, biases, scales and other vectors."""
    parameters = list(trained_parameters(module).values())
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, fused=True)


def learning_rate(settings: StageSettings, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine to 0 at the end of the stage."""
    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs * steps_per_epoch, total)
    if step < warmup:
        share, start = (step + 1) / warmup, settings.start_learning_rate
        return start + min(share, 1.0) * (settings.learning_rate - start)
    share = (step - warmup) / max(total - warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The same rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = value


class NonFiniteLoss(UserError):
    """A loss became infinite or not a number; names the terms and the studies of the batch."""


def training_step(
    fabric: Any,
    module: Any,
    task: PretrainingTask,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    *,
    seed: int,
    clip: float,
) -> dict[str, Tensor]:
    """Forward and backward over the micro-batches, clip, update. Nothing is read back from the device.

    Args:
        fabric: launches, casts and places.
        module: the task as wrapped by `fabric.setup`.
        task: the task itself.
        optimizer: as wrapped by `fabric.setup`.
        batches: micro-batches, whose gradients are averaged.
        seed: of this step; dropout and masks follow from it, so a resumed run draws the same.
        clip: largest gradient norm; 0 for none.

    Returns:
        The figures, detached: means over the micro-batches, and the gradient's norm before clipping.

    Raises:
        NonFiniteLoss: on the CPU, before the weights are touched (on a GPU see `check_finite`).
    """
    parts: list[dict[str, Tensor]] = []
    for micro, batch in enumerate(batches):
        torch.manual_seed(mix(seed, micro, fabric.global_rank))
        last = micro == len(batches) - 1
        with fabric.no_backward_sync(module, enabled=fabric.world_size > 1 and not last):
            losses, metrics = module(batch, mix(seed, micro))
            if fabric.device.type == "cpu":
                check_finite(losses, batch.study_ids)
            # The objective's gradient is that of the global loss already; DDP divides by the number of ranks.
            fabric.backward(losses["loss"] * (fabric.world_size / len(batches)))
        parts.append({name: value.detach() for name, value in (losses | metrics).items()})
    figures = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
    # Without a bound the norm is still needed: a finite loss can have a gradient that would spoil the weights.
    figures["gradient_norm"] = fabric.clip_gradients(
        module, optimizer, max_norm=clip or torch.inf, error_if_nonfinite=False
    ).detach()
    if fabric.device.type == "cpu":
        check_finite(figures, [name for batch in batches for name in batch.study_ids])
    optimizer.step()
    task.objective.clamp_logit_scale()
    optimizer.zero_grad(set_to_none=True)
    return figures


def check_finite(figures: dict[str, Tensor], study_ids: Sequence[str]) -> None:
    """Stop on a loss, or a gradient, that is no number.

    Raises:
        NonFiniteLoss: with the terms and the study ids.
    """
    watched = [name for name in ("loss", "gradient_norm") if name in figures]
    what = next((name for name in watched if not bool(figures[name].isfinite())), None)
    if what is None:
        return
    terms = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in figures.items())
    raise NonFiniteLoss(
        f"the {what.replace('_', ' ')} is not finite ({terms}). Studies of the batch: {', '.join(study_ids)}"
    )


def likely_cause(task: nn.Module, stage: Stage, rate: float) -> str:
    """Why a loss has become no number, and what to do: `--resume` would compute the same once more."""
    spoiled = [name for name, value in task.state_dict().items() if not bool(value.isfinite().all())]
    weights = f"Weights are not finite any more, {spoiled[0]} for one" if spoiled else "The weights are finite"
    return (
        f"{weights}; the learning rate is {rate:g}. Most often it is too high: start another run with a lower "
        f"{stage}.learning_rate, a longer {stage}.warmup_epochs or training.precision=32-true. Checkpoints are from "
        "before, but --resume would end here again"
    )


def check_recent(recent: list[tuple[dict[str, Tensor], list[str]]]) -> None:
    """Look at the figures of several steps with one read from the device, and forget them.

    Args:
        recent: figures and study ids of each step; emptied.

    Raises:
        NonFiniteLoss: as `check_finite`, of the first bad step.
    """
    watched = [figures[name] for figures, _ in recent for name in ("loss", "gradient_norm") if name in figures]
    if watched and not bool(torch.isfinite(torch.stack(watched)).all()):
        for figures, study_ids in recent:
            check_finite(figures, study_ids)
    recent.clear()


@torch.no_grad()
def validate(
    task: PretrainingTask,
    dataset: PairDataset,
    batch_size: int,
    recall_limit: int,
    device: torch.device | str,
    known: KnownSentences | None = None,
) -> dict[str, float]:
    """Mean of every term over all studies, last incomplete batch included, recall at 1, 5, 10, quality of clusters.

    Runs on one rank, in eval mode: the bank does not move and nothing is hidden.

    Args:
        task: model and objective.
        dataset: validation rows.
        batch_size: studies a batch (the number of negatives, so it must not vary between comparisons).
        recall_limit: use the first so many studies for retrieval, where the objective trains for it.
        device: where the task is.
        known: what the sentences claim; None logs nothing of the clusters.
    """
    log = ClusterLog(known) if known else None
    recall_limit = 0 if task.objective.lacks_score("global") else recall_limit
    sums: dict[str, Tensor] = {}
    studies: Counter[str] = Counter()  # a batch may have no value of a figure
    seen: list[tuple[Tensor, Tensor]] = []
    texts: list[Tensor] = []
    with eval_mode(task), local_only(), _features_noted(task.model) as noted:
        for batch in make_loader(dataset, evaluation_order(len(dataset), batch_size)):
            batch = batch.to(device)
            losses, metrics = task(batch)
            # What the objective asked for, if that was the whole batch, once.
            asked = noted[0] if len(noted) == 1 and len(noted[0].image_global) == len(batch) else None
            if log and asked:
                log.note(batch, task.objective.clusters_of(asked, batch))
            if sum(map(len, texts)) < recall_limit:
                features = asked or task.model(batch)
                seen.append((features.image_global, features.report_global))
                texts.append(batch.report_text)
            noted.clear()
            for name, value in (losses | metrics).items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value.float() * len(batch)
                studies[name] += len(batch)
    figures = {name: float(value) / studies[name] for name, value in sums.items()}
    figures |= log.figures() if log else {}
    if not (limit := min(recall_limit, len(dataset))):
        return figures
    image, report = (torch.cat(part)[:limit].float().cpu().numpy() for part in zip(*seen, strict=True))
    return figures | retrieval(image, report, torch.cat(texts)[:limit].cpu().numpy())


@contextmanager
def _features_noted(model: ImageReportModel) -> Iterator[list[Features]]:
    """What the model gives is noted, so that no image is encoded twice; whoever looks at it clears the list."""
    noted: list[Features] = []

    def note(_: nn.Module, __: Any, features: Features) -> None:
        noted.append(features)

    handle = model.register_forward_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


def retrieval(image: NDArray[np.float32], report: NDArray[np.float32], ids: NDArray[np.int64]) -> dict[str, float]:
    """Recall of image -> report and report -> image; equal reports count as right.

    Args:
        image: (n, D) unit embeddings.
        report: (n, D) the same of the reports.
        ids: (n,) equal numbers mean equal reports.
    """
    searches = {"image_to_report": (image, report), "report_to_image": (report, image)}
    return {
        f"{name}_r{k}": float(hits.mean())
        for name, (queries, gallery) in searches.items()
        for k, hits in recall_at_k(queries, gallery, ids, ids, (1, 5, 10)).items()
    }
