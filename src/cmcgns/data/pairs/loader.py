"""The loader of whole batches: its processes, and what becomes of one that ends."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from cmcgns.common.errors import UserError
from cmcgns.common.processes import end_with_parent
from cmcgns.data.pairs.batch import Batch
from cmcgns.data.pairs.dataset import PairDataset

PREFETCH = 4  # batches that a loader process makes ahead


class WorkerLost(UserError):
    """A loader process has ended, most often because the system stopped it for want of memory."""


def make_loader(dataset: PairDataset, order: Any, workers: int = 0, pin_memory: bool = False) -> DataLoader[Batch]:
    """A loader whose items are whole batches: `order` gives their requests, and has a length."""
    return DataLoader(
        dataset,
        sampler=order,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=partial(_begin_worker, os.getpid()),
    )


def _begin_worker(parent: int, _: int) -> None:
    """PyTorch's own watch leaves a worker behind that waits to hand over its last batches."""
    end_with_parent(parent)


def iterate_batches(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches of a loader; a worker's user error comes with its own message alone, not with a traceback in it.

    Raises:
        UserError: an image that cannot be read.
        WorkerLost: a loader process has ended; raised where its next batch is due, nowhere else.
    """
    batches = _start(loader)
    try:
        yield from batches
    except UserError as error:
        raise UserError(str(error).rpartition(f"{UserError.__module__}.UserError: ")[2].strip()) from None
    except Exception as error:
        lost = _lost_worker(batches)
        if lost is None:
            raise
        raise WorkerLost(lost) from error


def _start(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The loader's own iterator, without PyTorch's alarm.

    That alarm raises the death of a worker wherever the program happens to be, which may be in the middle of an
    update of the weights. Without it the loader sees what happened when it waits for the worker's batch.
    """
    if not loader.num_workers or threading.current_thread() is not threading.main_thread():
        return iter(loader)  # no worker, or a thread in which PyTorch sets no alarm
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    alarm = str(getattr(before, "__module__", "")).startswith("torch.utils.data")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if alarm or before is None else before)
    return batches


def _lost_worker(batches: Iterator[Batch]) -> str | None:
    """Which loader process has ended, and how; None if all are well."""
    workers = getattr(batches, "_workers", [])
    for number, worker in enumerate(workers, start=1):
        if worker.exitcode:
            how = signal.Signals(-worker.exitcode).name if worker.exitcode < 0 else f"status {worker.exitcode}"
            return f"loader process {number} of {len(workers)} (process {worker.pid}) was ended by {how}"
    return None
