"""Whether a run may go in its folder, and from where: one process at a time, a new run or one to go on with."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmcgns.common.claim import claimed
from cmcgns.common.errors import UserError, one_line
from cmcgns.common.files import WriteRefused, explain, refused_by_disk
from cmcgns.objectives.objective import with_options
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import differences, with_free_settings
from cmcgns.training.checkpoint import TrainingState, checkpoints, newest_whole, read_state
from cmcgns.training.launch import is_first_process
from cmcgns.training.run_folder import RunFolder

# What Gloo, NCCL and their meeting place say when the process at the other end of a connection is gone.
_LOST = re.compile(
    r"(?i)gloo.*connection (closed|reset|refused)|NCCL.*(remote|abort|connection)|TCPStore.*connection"
)


@contextmanager
def claimed_run(folder: RunFolder, resume: bool) -> Iterator[None]:
    """The first rank has the folder for itself, before other processes start, which would wait for it in vain.

    Raises:
        UserError: another process works in it, it cannot be written to, or holds no run to resume.
    """
    if resume:
        folder.check_started()
    if not is_first_process():
        yield
        return
    with claimed(folder.path, "pretrain"):
        yield


@contextmanager
def nothing_lost(folder: RunFolder) -> Iterator[None]:
    """What the disk refuses during the run, and the end of another rank, become a message that says how it goes on.

    Raises:
        UserError: this message.
    """
    try:
        yield
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        raise UserError(f"another process of the run has ended ({one_line(error)}). {_way_on(folder)}") from error
    except (OSError, UserError) as error:
        cause = refused_by_disk(error)
        if cause is None or not folder.config.is_file():
            raise
        said = explain(cause, cause.filename or folder.path, "used") if error is cause else str(error)
        kind = WriteRefused if isinstance(error, WriteRefused) else UserError
        raise kind(f"{said}. {_way_on(folder)}") from cause


def _way_on(folder: RunFolder) -> str:
    saved = checkpoints(folder.state)
    return f"Nothing is lost: with --resume the run goes on from {saved[-1].name if saved else 'its beginning'}"


def find_start(folder: RunFolder, recipe: Recipe, resume: bool) -> Path | None:
    """Checkpoint to go on from; None for a new run, and for one that was stopped before its first.

    Raises:
        UserError: the folder holds something else, the run has other settings, or no checkpoint is whole.
    """
    if not resume:
        if is_first_process():
            folder.check_new()
        return None
    before = with_options(folder.read_recipe())
    asked = with_free_settings(recipe, before)
    if before != asked:
        changed = ", ".join(differences(before.model_dump(mode="json"), asked.model_dump(mode="json")))
        raise UserError(
            f"--resume: {folder.config} differs in {changed}. Resume with the settings of the run "
            "(its config.yaml can be given as RECIPE), or start a new run with --init"
        )
    return newest_whole(folder.state)


def state_of(latest: Path | None, ranks: int) -> TrainingState:
    """Where the run stands by the checkpoint that `find_start` has found whole; the start without one.

    Raises:
        UserError: the run has another number of ranks.
    """
    state = read_state(latest, verify=False) if latest else TrainingState(ranks=ranks)
    if state.ranks != ranks:
        raise UserError(f"--resume: the run has {state.ranks} rank(s), not {ranks}: the order would change")
    return state
