"""What is said and shown of a run with another objective than the method's: nothing that it has not."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.phantom import write_dataset
from cmcgns.reporting.clusters.bank import lacks_bank
from cmcgns.reporting.run_page.report import overview_panels, write_run_page
from cmcgns.reporting.run_page.training import panels_of
from cmcgns.settings.recipe import load_recipe
from cmcgns.settings.yaml import read_mapping_file
from cmcgns.training.journal import read_metrics
from cmcgns.training.pretrain import pretrain
from reporting.run_page.test_report import TINY, section

TINY_RIVAL = [each for each in TINY if not each.startswith("objective.")] + ["objective.dim=16"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write_dataset(folder, {"train": 32, "val": 16, "test": 16}, size=64)
    return folder


def run_of(rival: str, data: Path, out: Path, *changes: str) -> Path:
    recipe = load_recipe(f"demo+rival-{rival}", [*TINY_RIVAL, *changes])
    return pretrain(recipe, data, out, quiet=True)


@pytest.fixture(scope="module")
def mrm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("mrm", data, tmp_path_factory.mktemp("runs") / "mrm", "objective.decoder_width=8")


def test_a_page_about_mrm_claims_no_joint_space_and_no_part_of_the_method(
    mrm: Path, data: Path, tmp_path: Path
) -> None:
    page = write_run_page(mrm, data, {}, tmp_path / "page").read_text("utf-8")
    assert "objective: mrm" in page
    for claim in ("CM-CGNS", "find each", "objective.negatives", "reconstruction: off", "weight 0"):
        assert claim not in page.partition('<section id="settings">')[0], claim
    assert "The run has objective.name mrm: its global embeddings mean nothing" in section(page, "retrieval")
    assert "which has no cluster bank" in section(page, "bank")
    settings = section(page, "settings")
    assert "report_weight" in settings  # an option of its own
    assert "mask_ratio: 0.75" in settings
    for unread in ("weight_report", "clusters", "sentence_gradient"):
        assert unread not in settings, unread
    assert ", rebuilt images" not in page
    assert "the method" not in settings


def test_the_overview_of_a_rival_draws_its_terms_under_their_own_names(mrm: Path) -> None:
    panels = overview_panels(read_metrics(mrm / "metrics.jsonl"), published=False, count=3)
    assert [panel.title for panel in panels] == ["Total loss", "image", "report"]


def test_a_run_keeps_of_its_objective_what_it_reads(mrm: Path) -> None:
    """So that a default of the method which changes later leaves runs of rivals as they are."""
    kept = read_mapping_file(mrm / "config.yaml")["objective"]
    assert kept.keys() == {"name", "options", "dim", "decoder_width", "target_scale"}
    assert kept["options"]["mask_ratio"] == 0.75
    assert cmcgns.load(mrm).recipe.objective.name == "mrm"


def test_a_run_that_kept_what_its_objective_does_not_read_opens(mrm: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(mrm, tmp_path / "older"))
    content = yaml.safe_load((older / "config.yaml").read_text("utf-8"))
    content["objective"] |= {"weight_report": 0.5, "mu": 1.0}
    (older / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert cmcgns.load(older).recipe == cmcgns.load(mrm).recipe


def test_no_recall_is_measured_in_a_space_that_nothing_trains(mrm: Path) -> None:
    records = [record for record in read_metrics(mrm / "metrics.jsonl") if record["kind"] == "validation"]
    assert records
    assert not any("_r10" in key for record in records for key in record)
    assert "report" in records[0]


def test_terms_of_a_rival_stand_under_their_own_names(mrm: Path) -> None:
    records = read_metrics(mrm / "metrics.jsonl")
    titles = [panel.title for panel in panels_of(records, published=False)]
    assert titles == ["Total loss", "image", "report", "Learning rate"]
    assert "Local image alignment" in [panel.title for panel in panels_of(records, published=True)]


def test_embeddings_that_nothing_trains_are_not_given(mrm: Path) -> None:
    model = cmcgns.load(mrm)
    for call in (lambda: model.embed_image(["a.png"]), lambda: model.embed_text(["Normal."])):
        with pytest.raises(UserError, match=r"mrm: its global embeddings mean nothing; model\.image_encoder"):
            call()
    assert str(lacks_bank(model)).startswith("The run has objective.name mrm")
    card = (mrm / "card.md").read_text("utf-8")
    assert "embed_text" not in card
    assert "model.image_encoder" in card
    assert "| objective | mrm, D 16, mask pixels, mask_ratio 0.75" in card


def test_every_term_of_gloria_has_a_panel(data: Path, tmp_path: Path) -> None:
    run = run_of("gloria", data, tmp_path / "gloria")
    titles = [panel.title for panel in panels_of(read_metrics(run / "metrics.jsonl"), published=False)]
    assert titles[:3] == ["Total loss", "global", "local"]
    panels = overview_panels(read_metrics(run / "metrics.jsonl"), published=False, count=2)
    shown = [(panel.title, panel.ylabel) for panel in panels]
    assert shown == [("global", "global"), ("Retrieval, validation", "recall at 10")]
    assert "Retrieval, validation" in titles
    assert "embed_text" in (run / "card.md").read_text("utf-8")
    assert json.loads((run / "scores.json").read_text())
