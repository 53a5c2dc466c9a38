"""What a person hears about the cluster bank."""

import pytest
import torch
import torch.nn.functional as F

from cmcgns.objectives.bank_warnings import unhealthy
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.settings.config import BankSettings, ObjectiveSettings
from support.objectives import new_bank

WELL = {"bank_started": 1.0, "bank_dead": 0.1, "bank_largest": 0.2, "mean_cosine": 0.1}


def started() -> ClusterBank:
    bank = new_bank(8, 4)
    bank.start(F.normalize(torch.randn(4, 8), dim=-1))
    return bank


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"bank_dead": 0.6}, "60% of the centroids have no members"),
        ({"bank_largest": 0.75}, "one cluster holds 75% of the sentences"),
        ({"bank_dead": 0.97, "bank_largest": 1.0}, "97% of the centroids have no members, one cluster holds 100%"),
    ],
)
def test_what_is_wrong_with_a_started_bank_is_said(change: dict[str, float], says: str | None) -> None:
    warning = unhealthy(started(), WELL | change)
    assert warning is None if says is None else warning is not None and says in warning


def test_a_bank_that_waits_says_what_for() -> None:
    bank = new_bank(8, 4, start_from_step=3, start_cosine=0.4)
    one = F.normalize(torch.ones(6, 8), dim=-1)
    for step in range(3):
        assert unhealthy(bank, WELL) is None, step  # it is not meant to start yet
        bank.observe(one, one, torch.ones(6, dtype=torch.bool), torch.ones(6, dtype=torch.long))
    assert unhealthy(bank, WELL) == (
        "the cluster bank has not started: mean cosine 1.000, limit 0.4, "
        "1 distinct sentences, objective.bank.clusters is 4"
    )


def test_without_a_bank_there_is_nothing_to_say() -> None:
    objective = CMCGNS(ObjectiveSettings(dim=16, reconstruction="off", negatives="in_batch"), (2, 2), 16)
    assert objective.warning({"loss": 1.0}) is None


@pytest.mark.parametrize(
    ("settings", "says"), [({}, True), ({"negatives": "in_batch"}, False), ({"weight_report": 0.0}, False)]
)
def test_pitfall_09_a_bank_that_never_started_is_named_at_the_end(settings: dict[str, object], says: bool) -> None:
    bank = BankSettings(clusters=8, start_from_step=10, start_by_step=20)
    settings = {"negatives": "cluster"} | settings
    objective = CMCGNS(ObjectiveSettings(dim=16, bank=bank, reconstruction="off", **settings), (2, 2), 16)
    message = objective.warning_after()
    assert (message is not None) is says
    if message is not None:
        assert "step 0, not before 10" in message
        assert "objective.bank.start_from_step is 10, start_by_step 20" in message
    objective.bank.start(F.normalize(torch.randn(8, 16), dim=-1))
    assert objective.warning_after() is None
