"""What a person should hear about the cluster bank."""

from cmcgns.config import BankSettings
from cmcgns.objectives.cmcgns import CMCGNS

_DEAD, _LARGEST = 0.5, 0.5


def bank_warning(figures: dict[str, float], steps: int, settings: BankSettings) -> str | None:
    """A bank that waits, has mostly dead centroids, or one giant cluster; None if all is well.

    Args:
        figures: of a validation; without bank figures there is no bank to speak of.
        steps: training steps that the bank has seen.
        settings: of the bank.
    """
    if "bank_started" not in figures:
        return None
    if not figures["bank_started"]:
        if steps < settings.start_from_step:
            return None
        cosine, limit = figures["mean_cosine"], settings.start_cosine
        return f"the cluster bank has not started: mean cosine {cosine:.3f}, limit {limit}"
    if figures["bank_dead"] > _DEAD:
        return f"cluster bank: {figures['bank_dead']:.0%} of the centroids have no members"
    if figures["bank_largest"] > _LARGEST:
        return f"cluster bank: one cluster holds {figures['bank_largest']:.0%} of the sentences"
    return None


def never_started(objective: CMCGNS) -> str | None:
    """What to say at the end of a run whose bank has not started; None if it has, or was never asked."""
    if not objective.uses_bank or objective.bank.is_started:
        return None
    settings = objective.settings.bank
    return (
        f"the cluster bank never started: {int(objective.bank.steps)} steps, objective.bank.start_from_step is "
        f"{settings.start_from_step}, start_by_step {settings.start_by_step}"
    )
