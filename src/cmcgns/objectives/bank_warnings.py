"""What a person should hear about the cluster bank: before a run, after a validation, at the end."""

from collections.abc import Mapping

from cmcgns.objectives.cluster_bank import ClusterBank

_MANY_DEAD, _GIANT = 0.5, 0.5  # shares of centroids, and of sentences, that are worth a warning


def unhealthy(bank: ClusterBank, metrics: Mapping[str, float]) -> str | None:
    """That the bank waits, has mostly dead centroids, or one giant cluster; None if all is well.

    Args:
        bank: the bank.
        metrics: its statistics, on the host.
    """
    if not bank.is_started:
        late = int(bank.steps) >= bank.settings.start_from_step
        return f"the cluster bank has not started: {_waits_for(bank)}" if late else None
    found = []
    if metrics["bank_dead"] > _MANY_DEAD:
        found.append(f"{metrics['bank_dead']:.0%} of the centroids have no members")
    if metrics["bank_largest"] > _GIANT:
        found.append(f"one cluster holds {metrics['bank_largest']:.0%} of the sentences")
    return f"cluster bank: {', '.join(found)}" if found else None


def starts_too_late(bank: ClusterBank, micro_steps: int) -> str | None:
    """A warning when the latest start lies beyond the micro-steps that are left, so that nothing forces it."""
    last, ends = bank.settings.start_by_step, int(bank.steps) + micro_steps
    if bank.is_started or last <= ends:
        return None
    return (
        f"objective.bank.start_by_step is {last}, but the run ends with micro-step {ends}: the cluster "
        "bank starts only if its conditions are met before "
        f"(objective.bank.start_from_step is {bank.settings.start_from_step})"
    )


def never_started(bank: ClusterBank) -> str | None:
    """What to say at the end of a run whose bank has not started; None if it has."""
    if bank.is_started:
        return None
    return (
        f"the cluster bank never started, L_report had in-batch negatives only: {_waits_for(bank)}; it has seen "
        f"{int(bank.steps)} steps since the weights it came with, objective.bank.start_from_step is "
        f"{bank.settings.start_from_step}, start_by_step {bank.settings.start_by_step}"
    )


def _waits_for(bank: ClusterBank) -> str:
    """The start conditions that are not met; they are looked at every few steps only."""
    settings, reasons, distinct = bank.settings, [], len(bank.seeds())
    if float(bank.mean_cosine) > settings.start_cosine:
        reasons.append(f"mean cosine {float(bank.mean_cosine):.3f}, limit {settings.start_cosine:g}")
    if distinct < bank.clusters:
        reasons.append(f"{distinct} distinct sentences, objective.bank.clusters is {bank.clusters}")
    if int(bank.steps) < settings.start_from_step:
        reasons.append(f"step {int(bank.steps)}, not before {settings.start_from_step}")
    return ", ".join(reasons) or "its conditions were met after the last look at them"
