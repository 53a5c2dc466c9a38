"""`--init RUN`: a new run from the weights of another."""

import logging

from safetensors.torch import load_file

from cmcgns.errors import UserError
from cmcgns.models.weights import check_keys
from cmcgns.task import Task
from cmcgns.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


def load_initial_weights(task: Task, source: RunFolder) -> None:
    """Fill both encoders strictly, and of the objective what fits; the rest is named in the log.

    Raises:
        UserError: the run has no finished weights, or its encoders differ from the recipe's.
    """
    if not source.model.is_file():
        raise UserError(f"--init {source.path}: model.safetensors is missing (the run did not finish)")
    tensors = load_file(source.model)
    model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    check_keys(dict(model), task.model.state_dict(), f"--init {source.path}")
    task.model.load_state_dict(model)
    wanted = task.objective.state_dict()
    given = {k.removeprefix("objective."): v for k, v in tensors.items() if k.startswith("objective.")}
    # The bank belongs to one run's data and settings: half of its buffers would make no sense.
    fits = {
        k: v for k, v in given.items() if k in wanted and wanted[k].shape == v.shape and not k.startswith("bank.")
    }
    task.objective.load_state_dict(wanted | fits)
    fresh = sorted(k for k in wanted if k not in fits and not k.startswith("bank."))
    logger.info(
        "weights from %s: both encoders, %d tensors of the objective; the bank starts anew%s",
        source.path, len(fits), f"; new: {', '.join(fresh)}" if fresh else "",
    )  # fmt: skip
