"""What a person should hear about the cluster bank."""

from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.cmcgns import CMCGNS

_DEAD, _LARGEST = 0.5, 0.5


def bank_warning(figures: dict[str, float], bank: ClusterBank) -> str | None:
    """A bank that waits, has mostly dead centroids, or one giant cluster; None if all is well.

    Args:
        figures: of a validation; without bank figures there is no bank to speak of.
        bank: as it is now.
    """
    if "bank_started" not in figures:
        return None
    if not bank.is_started:
        late = int(bank.steps) >= bank.start_from_step
        return f"the cluster bank has not started: {_waits_for(bank)}" if late else None
    found = []
    if figures["bank_dead"] > _DEAD:
        found.append(f"{figures['bank_dead']:.0%} of the centroids have no members")
    if figures["bank_largest"] > _LARGEST:
        found.append(f"one cluster holds {figures['bank_largest']:.0%} of the sentences")
    return f"cluster bank: {', '.join(found)}" if found else None


def starts_too_late(objective: CMCGNS, steps: int) -> str | None:
    """A warning when the latest start lies beyond the run's micro-steps, so that nothing forces it."""
    bank = objective.bank
    if not objective.uses_bank or bank.is_started or bank.start_by_step <= steps:
        return None
    return (
        f"objective.bank.start_by_step is {bank.start_by_step}, but the run has {steps} micro-steps: the cluster "
        "bank starts only if its conditions are met before "
        f"(objective.bank.start_from_step is {bank.start_from_step})"
    )


def never_started(objective: CMCGNS) -> str | None:
    """What to say at the end of a run whose bank has not started; None if it has, or was never asked."""
    bank = objective.bank
    if not objective.uses_bank or bank.is_started:
        return None
    return (
        f"the cluster bank never started, L_report had in-batch negatives only: {_waits_for(bank)}; it has seen "
        f"{int(bank.steps)} steps since the weights it came with, objective.bank.start_from_step is "
        f"{bank.start_from_step}, start_by_step {bank.start_by_step}"
    )


def _waits_for(bank: ClusterBank) -> str:
    """The start conditions that are not met; they are looked at every few steps only."""
    reasons = []
    if float(bank.mean_cosine) > bank.start_cosine:
        reasons.append(f"mean cosine {float(bank.mean_cosine):.3f}, limit {bank.start_cosine:g}")
    distinct = bank.distinct_sentences()
    if distinct < bank.clusters:
        reasons.append(f"{distinct} distinct sentences, objective.bank.clusters is {bank.clusters}")
    if int(bank.steps) < bank.start_from_step:
        reasons.append(f"step {int(bank.steps)}, not before {bank.start_from_step}")
    return ", ".join(reasons) or "its conditions were met after the last look at them"
