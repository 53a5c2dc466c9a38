"""Losses and retrieval on the validation rows."""

from collections import Counter

import torch

from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.dataset import PairDataset, make_loader
from cmcgns.metrics.retrieval import recall_at_k
from cmcgns.models.model import embed
from cmcgns.objectives.collective import local_only
from cmcgns.training.task import Task

RECALLS = (1, 5, 10)


@torch.no_grad()
def validate(
    task: Task, dataset: PairDataset, batch_size: int, recall_limit: int, device: torch.device | str
) -> dict[str, float]:
    """Mean of every term over all studies, last incomplete batch included, and recall at 1, 5, 10.

    Runs on one rank, in eval mode: the bank does not move and nothing is hidden.

    Args:
        task: model and objective.
        dataset: validation rows.
        batch_size: studies a batch (the number of negatives, so it must not vary between comparisons).
        recall_limit: use the first so many studies for retrieval.
        device: where the task is.
    """
    training = task.training
    task.eval()
    sums: dict[str, torch.Tensor] = {}
    studies: Counter[str] = Counter()  # a batch may have no value of a figure
    try:
        with local_only():
            for batch in make_loader(dataset, evaluation_order(len(dataset), batch_size)):
                losses, metrics = task(batch.to(device))
                for name, value in (losses | metrics).items():
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value.float() * len(batch)
                    studies[name] += len(batch)
        figures = {name: float(value) / studies[name] for name, value in sums.items()}
    finally:
        task.train(training)
    return figures | retrieval(task, dataset, batch_size, recall_limit, device)


def retrieval(
    task: Task, dataset: PairDataset, batch_size: int, limit: int, device: torch.device | str
) -> dict[str, float]:
    """Recall of image -> report and report -> image; equal reports count as right."""
    order = evaluation_order(min(limit, len(dataset)), batch_size)
    found = embed(task.model, make_loader(dataset, order), device)
    ids = found.report_text
    to_report = recall_at_k(found.image, found.report, ids, ids, RECALLS)
    to_image = recall_at_k(found.report, found.image, ids, ids, RECALLS)
    figures = {f"image_to_report_r{k}": float(hits.mean()) for k, hits in to_report.items()}
    return figures | {f"report_to_image_r{k}": float(hits.mean()) for k, hits in to_image.items()}
