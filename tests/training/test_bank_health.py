"""What a person hears about the cluster bank."""

import pytest

from cmcgns.config import BankSettings, ObjectiveSettings
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.training.bank_health import bank_warning, never_started

SETTINGS = BankSettings(clusters=8, start_from_step=10, start_by_step=20)
WELL = {"bank_started": 1.0, "bank_dead": 0.1, "bank_largest": 0.2, "mean_cosine": 0.1}


@pytest.mark.parametrize(
    ("change", "steps", "says"),
    [
        ({}, 100, None),
        ({"bank_started": 0.0, "mean_cosine": 0.731}, 5, None),  # it is not meant to start yet
        ({"bank_started": 0.0, "mean_cosine": 0.731}, 10, "has not started: mean cosine 0.731, limit 0.4"),
        ({"bank_dead": 0.6}, 100, "60% of the centroids have no members"),
        ({"bank_largest": 0.75}, 100, "one cluster holds 75% of the sentences"),
    ],
)
def test_what_is_wrong_with_the_bank_is_said(change: dict[str, float], steps: int, says: str | None) -> None:
    warning = bank_warning(WELL | change, steps, SETTINGS)
    assert warning is None if says is None else warning is not None and says in warning


def test_without_a_bank_there_is_nothing_to_say() -> None:
    assert bank_warning({"loss": 1.0}, 100, SETTINGS) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, True),
        ({"negatives": "in_batch"}, False),
        ({"weight_report": 0.0}, False),
    ],
)
def test_pitfall_09_a_bank_that_never_started_is_named_at_the_end(settings: dict[str, object], says: bool) -> None:
    objective = CMCGNS(ObjectiveSettings(dim=16, bank=SETTINGS, reconstruction="off", **settings), (2, 2), 16)
    message = never_started(objective)
    assert (message is not None) is says
    if message is not None:
        assert "objective.bank.start_from_step is 10, start_by_step 20" in message
        objective.bank.load_state_dict(objective.bank.state_dict() | {"started": objective.bank.started | True})
        assert never_started(objective) is None
