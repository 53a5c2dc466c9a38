"""The contract of an objective: found by name, replaced by one file, saved under keys that stay."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.models.checked_tensors import write_tensors
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.objective import STAGES, find_objective
from cmcgns.phantom.dataset import write_dataset
from cmcgns.reporting.run_page.report import write_run_page
from cmcgns.settings.config import ObjectiveSettings
from cmcgns.training.checkpoint import load_weights
from cmcgns.training.journal import read_metrics
from cmcgns.training.task import build_task
from support.global_contrast import GlobalContrast
from support.objectives import COUNTS, random_batch, small_task
from support.training import run, tiny_recipe

KEYS = Path(__file__).parents[1] / "golden" / "state_keys.txt"


def test_keys_of_weights_and_checkpoints_stay() -> None:
    """Run folders of earlier versions must load."""
    found = [f"{name} {tuple(value.shape)}" for name, value in small_task().state_dict().items()]
    assert found == KEYS.read_text("utf-8").splitlines()


def test_weights_with_the_bank_of_the_first_version_load(tmp_path: Path) -> None:
    task = small_task()
    task.objective.bank.start(torch.eye(4, 16))
    old, bank = dict(task.state_dict()), "objective.bank."
    for name in ("queries", "means", "queue_step"):
        del old[bank + name]
    old |= {f"{bank}queue": torch.ones(17, 16), f"{bank}queue_text": torch.ones(17, dtype=torch.long)}
    old |= {f"{bank}queued": torch.tensor(9)}
    write_tensors(tmp_path / "old.safetensors", old, "about", {})
    other = small_task(seed=1)
    load_weights(tmp_path / "old.safetensors", other)
    assert torch.equal(other.objective.bank.centroids, torch.eye(4, 16))
    assert torch.equal(other.objective.bank.queries, torch.eye(4, 16))
    assert other.objective.is_started


def test_a_run_from_before_the_table_of_sentence_clusters_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"local": "query_matched", "weight_image": 0.0}
    task = small_task(**changes)
    old = {name: value for name, value in task.state_dict().items() if name != "objective.known.rows"}
    assert len(old) == len(task.state_dict()) - 1
    write_tensors(tmp_path / "old.safetensors", old, "about", {})
    other = small_task(seed=1, **changes)
    assert other.objective.known is not None
    other.objective.known.rows.fill_(7)
    load_weights(tmp_path / "old.safetensors", other)
    assert not other.objective.known.rows.any()
    assert "sentence dropout hides" in caplog.text


def test_the_method_is_the_default() -> None:
    assert find_objective(ObjectiveSettings()) is CMCGNS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "cm_cgns"}, r"no objective cm_cgns\. Did you mean cm-cgns\?"),
        ({"name": "nothing"}, "no objective nothing. There are clip, cm-cgns, convirt, "),
        ({"options": {"depth": 2}}, "objective.options of cm-cgns:\n  depth is no setting"),
        (
            {"name": "global-contrast", "options": {"learn_temperatur": True}},
            r"learn_temperatur is no setting. Did you mean learn_temperature\?",
        ),
        ({"name": "global-contrast", "mu": 2.0}, r"global-contrast does not read objective\.mu: leave the default"),
        ({"name": "global-contrast", "options": {"learn_temperature": "red"}}, "learn_temperature: .*boolean"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest_right_one(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_objective(ObjectiveSettings(**changes))  # type: ignore[arg-type]


def test_a_wrong_name_is_said_before_the_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"objective\.name"):
        run(tmp_path / "no data", tmp_path / "run", tiny_recipe(objective__name="clip"))
    assert not (tmp_path / "run").exists()


def test_a_stage_trains_the_parts_that_the_objective_names_and_nothing_else() -> None:
    task = build_task(tiny_recipe(objective={"name": "global-contrast", "dim": 32}), vocabulary=100)
    for stage in STAGES:
        task.set_stage(stage)
        frozen = {name for name, parameter in task.named_parameters() if not parameter.requires_grad}
        layers = {name.rpartition(".")[0] for name in frozen}
        assert layers == {"model.patch_projection", "model.report_encoder.body.pooler.dense"}


def test_features_hold_the_word_pieces_of_the_sentences() -> None:
    """A sentence is the mean of its words, and no word is one of [CLS], [SEP] and padding."""
    batch = random_batch(COUNTS, 5, size=32)
    features = small_task().eval().model(batch)
    torch.testing.assert_close(features.words.norm(dim=-1), torch.ones(batch.token_ids.shape))
    assert torch.equal(features.word_mask, batch.token_sentence >= 0)
    for study, count in enumerate(COUNTS):
        assert int(features.word_mask[study].sum()) == 2 * count
        for sentence in range(count):
            own = features.words[study][batch.token_sentence[study] == sentence]
            torch.testing.assert_close(features.sentences[study, sentence], own.mean(0))


def test_another_objective_pretrains_from_its_name_alone(tmp_path: Path) -> None:
    """Both stages, validation, best weights and checkpoints; then the run is loaded and used."""
    write_dataset(tmp_path / "studies", {"train": 24, "val": 9}, size=40)
    objective = {"name": "global-contrast", "options": {"learn_temperature": False}, "dim": 32, "temperature": 0.2}
    out = run(tmp_path / "studies", tmp_path / "run", tiny_recipe(objective=objective, alignment__epochs=1))
    records = read_metrics(out / "metrics.jsonl")
    assert [r["stage"] for r in records if r["kind"] == "validation"] == ["alignment", "reconstruction"]
    assert all(r["loss"] == r["global"] for r in records if "loss" in r)
    assert not any({"image", "report", "tau", "bank_started"} & r.keys() for r in records)
    model = cmcgns.load(out)
    assert isinstance(model.task.objective, GlobalContrast)
    assert model.method is None
    assert model.temperature == pytest.approx(0.2)
    embedded = model.embed_text(["No pleural effusion.", "Heart size is normal."])
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    picture = next((tmp_path / "studies").rglob("*.png"))
    assert model.ground(picture, "Small left pleural effusion.").ndim == 2
    with pytest.raises(UserError, match=r"objective\.name global-contrast"):
        model.ground(picture, "Small left pleural effusion.", kind="attention")
    page = write_run_page(out, tmp_path / "studies", {}, tmp_path / "page").read_text("utf-8")
    assert "The run has objective.name global-contrast, which has no cluster bank" in page
    assert "the objective `global-contrast`" in (out / "card.md").read_text("utf-8")
