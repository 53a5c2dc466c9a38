"""The page about a run: every section, on tiny runs with and without the parts it shows."""

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from cmcgns.cli.app import app
from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.data.shards.write import write_shards
from cmcgns.evaluation.report_use import report_use
from cmcgns.evaluation.study_set import read_study_set
from cmcgns.phantom import write_dataset
from cmcgns.phantom.findings import FINDINGS
from cmcgns.pretrained import load
from cmcgns.pretrained.prompts import load_prompts
from cmcgns.reporting.run_page.heat_maps import make_examples, scale_of
from cmcgns.reporting.run_page.reconstructions import _rebuild
from cmcgns.reporting.run_page.report import write_run_page
from cmcgns.reporting.run_page.studies import encode_studies
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.joint_scores import JointScores
from cmcgns.training.pretrain import pretrain

SECTIONS = ("overview", "results", "curves", "reconstructions", "maps", "bank", "retrieval", "settings")
PICTURES = {"bank", "curves", "maps", "overview", "reconstructions", "retrieval"}
TINY = (
    "data.image_size=32",
    "data.resize=36",
    "image_encoder.options={channels: [8, 8, 16, 16]}",
    "report_encoder={layers: 1, width: 16, heads: 2, vocabulary: 300}",
    "objective.dim=16",
    "objective.decoder_width=8",
    "objective.negatives=cluster",
    "objective.reconstruction=cross_modal",
    "objective.bank={clusters: 4, start_from_step: 0, start_by_step: 2, check_every: 1}",
    "alignment.epochs=1",
    "reconstruction.epochs=1",
    "training.batch_size=16",
    "training.log_every=1",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write_dataset(folder, {"train": 48, "val": 16, "test": 24}, size=64)
    table = folder / "manifest.parquet"
    frame = pd.read_parquet(table)
    test = frame.index[frame["split"] == "test"]
    frame.loc[test, "findings"] = frame.loc[test, "findings"] + " Heart & <b>great vessels</b> seen."
    frame.to_parquet(table)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(load_recipe("demo", TINY), data, tmp_path_factory.mktemp("runs") / "full", quiet=True)


def results(clear: bool = True) -> dict[str, Any]:
    def interval(value: float, half: float = 0.01) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half, "n": 24, "resamples": 2000}

    def summary(value: float) -> dict[str, Any]:
        return {
            "linear_auroc": interval(value),
            "zero_shot_auroc": interval(value),
            "report_to_image_r10": interval(value),
            "per_label": {"Effusion": {"linear": value, "zero_shot": float("nan")}},
        }

    difference = {
        key: interval(0.25 if clear else 0.001) for key in ("linear_auroc", "zero_shot_auroc", "report_to_image_r10")
    }
    return {
        "chance": {"linear_auroc": 0.5, "report_to_image_r10": 0.42},
        "pretrained": summary(0.875),
        "random": summary(0.625),
        "difference": difference,
        "report_use": {
            "right": interval(0.2),
            "other": interval(0.3),
            "none": interval(0.4),
            "difference": interval(0.1),
            "difference_none": interval(0.2),
            "studies": 11,
            "error": "|error| (image range −1 to 1)",
        },
        "seconds": {"pretrain": 65.0},
        "counts": {"train": 48, "val": 16, "test": 24},
    }


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.S)
    assert found, f"no section {name}"
    return found[1]


@pytest.fixture(scope="module")
def report(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_page(run, data, results(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return report.read_text("utf-8")


def test_every_section_is_there_and_shown(page: str) -> None:
    for name in SECTIONS:
        assert "absent" not in section(page, name), name


def test_pictures_are_files_and_in_the_page(report: Path, page: str) -> None:
    files = {path.stem: path for path in (report.parent / "pictures").iterdir()}
    assert set(files) == PICTURES
    for path in files.values():
        assert base64.b64encode(path.read_bytes()).decode() in page
    with Image.open(files["overview"]) as overview:
        assert overview.size == (1600, 1000)


def test_page_asks_for_nothing_from_outside(page: str) -> None:
    assert not re.search(r"https?://|//[a-z]+\.|<script|<link|@import", page)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))


def test_report_text_is_escaped(page: str) -> None:
    assert "Heart &amp; &lt;b&gt;great vessels&lt;/b&gt; seen." in page
    assert "<b>great" not in page


def test_results_are_bold_only_where_the_interval_leaves_out_zero(
    page: str, run: Path, data: Path, tmp_path: Path
) -> None:
    table = section(page, "results")
    assert table.count("<strong>+0.250 (+0.240 to +0.260)</strong>") == 3
    assert "0.875 (0.865 to 0.885)" in table
    assert "0.420" in table
    found = results(clear=False)
    for name in ("right", "difference"):
        found["report_use"][name] |= {"low": None, "high": None}  # of too few patients
    unclear = write_run_page(run, data, found, tmp_path).read_text("utf-8")
    assert "<strong>" not in section(unclear, "results")
    assert "+0.001 (−0.009 to +0.011)" in section(unclear, "results")
    rebuilt = " ".join(section(unclear, "reconstructions").split())
    assert "where hidden is 0.2000 with its own report" in rebuilt
    assert "a paired difference of +0.1000.</p>" in rebuilt


def test_the_choice_of_examples_is_stated(page: str) -> None:
    assert "The first studies with each finding, not chosen by their result" in section(page, "retrieval")
    assert "hides most of the boxes (blue)" in " ".join(section(page, "reconstructions").split())


def test_undefined_label_is_a_dash(page: str) -> None:
    assert "<td>–</td>" in section(page, "results")


def test_use_of_the_report_is_stated(page: str) -> None:
    text = " ".join(section(page, "reconstructions").split())
    assert "Over 11 test studies" in text
    assert "+0.1000 (+0.0900 to +0.1100)" in text
    assert "+0.2000 (+0.1900 to +0.2100) (the decoder was never trained without one)" in text
    assert "|error| (image range −1 to 1) where hidden" in text
    assert "saw the whole image" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["target=high_frequencies", "target_per_patch=true", "target_scale=2", "mask=pixels"], "less a blurred one"),
        (["target=features", "report_dropout=0.3"], "black is none"),
        (["target=text_map", "reconstruction=image_only"], "what its report says"),
    ],
    ids=str,
)
def test_other_targets_are_shown_too(changes: list[str], said: str, data: Path, tmp_path: Path) -> None:
    settings = (*TINY, *(f"objective.{change}" for change in changes))
    run = pretrain(load_recipe("demo", settings), data, tmp_path / "run", quiet=True)
    model = load(run)
    use = report_use(model, read_study_set(data / "manifest.parquet", "test", model))
    page = write_run_page(run, data, results() | {"report_use": use}, tmp_path / "report").read_text("utf-8")
    text = " ".join(section(page, "reconstructions").split())
    assert said in text
    assert use["error"].replace("'", "&#39;") in text
    shown = [_rebuild(encode_studies(model, data), row) for row in (0, 1)]
    for study in shown:
        assert all(np.abs(image).max() <= 1 for image in (study.truth, study.right, study.wrong))
        assert np.array_equal(study.right[~study.hidden], study.truth[~study.hidden])
        assert (study.right[study.hidden] != study.truth[study.hidden]).any()
        assert np.array_equal(study.right, study.wrong) == ("reconstruction=image_only" in changes)
        assert study.original.shape == ((64, 64) if "target_scale=2" in changes else (32, 32))


def test_provenance_and_settings_are_shown(run: Path, page: str) -> None:
    provenance = json.loads((run / "provenance.json").read_text("utf-8"))
    assert provenance["model_sha256"] in page
    assert "mask_ratio: 0.5" in section(page, "settings")
    assert "synthetic" in section(page, "settings")


def test_parts_that_a_run_lacks_say_why(data: Path, tmp_path: Path) -> None:
    changes = ("objective.reconstruction='off'", "reconstruction.epochs=0", "objective.weight_image=0",
               "objective.weight_report=0")  # fmt: skip
    run = pretrain(load_recipe("demo", (*TINY, *changes)), data, tmp_path / "run", quiet=True)
    page = write_run_page(run, data, results() | {"report_use": None}, tmp_path / "report").read_text("utf-8")
    assert "without masked reconstruction" in section(page, "reconstructions")
    assert "AUROC" in section(page, "maps")  # the pooled map is of the global loss
    assert "without the cluster bank" in section(page, "bank")
    assert {path.stem for path in (tmp_path / "report/pictures").iterdir()} == PICTURES - {"bank", "reconstructions"}


def test_bank_that_never_started_is_explained(data: Path, tmp_path: Path) -> None:
    changes = ("objective.bank.start_by_step=1000", "objective.bank.start_cosine=-1", "reconstruction.epochs=0")
    run = pretrain(load_recipe("demo", (*TINY, *changes)), data, tmp_path / "run", quiet=True)
    page = write_run_page(run, data, results(), tmp_path / "report").read_text("utf-8")
    assert "never started" in section(page, "bank")
    assert "did not train it" in section(page, "reconstructions")


def test_table_without_labels_and_boxes(run: Path, data: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(data / "manifest.parquet")
    frame["image_path"] = [str(data / path) for path in frame["image_path"]]
    plain = frame[["image_path", "study_id", "findings", "impression", "split"]]
    plain.to_csv(tmp_path / "pairs.csv", index=False)
    page = write_run_page(run, tmp_path / "pairs.csv", {}, tmp_path / "report").read_text("utf-8")
    assert "No results of an evaluation" in section(page, "results")
    assert "no finding boxes" in section(page, "maps")
    assert "The first studies, not chosen by their result" in section(page, "retrieval")
    assert "the boxes" not in section(page, "reconstructions")
    assert "absent" not in section(page, "retrieval")
    assert "synthetic studies" not in section(page, "settings")


def test_a_table_that_begins_with_a_synthetic_study_is_not_called_synthetic(
    run: Path, data: Path, tmp_path: Path
) -> None:
    frame = pd.read_parquet(data / "manifest.parquet").query("split == 'test'").head(8)
    frame["image_path"] = [str(data / path) for path in frame["image_path"]]
    frame.iloc[1:, list(frame.columns).index("dataset")] = "mine"
    frame.to_parquet(tmp_path / "mixed.parquet")
    page = write_run_page(run, tmp_path / "mixed.parquet", {}, tmp_path / "report").read_text("utf-8")
    assert "synthetic studies" not in section(page, "settings")
    assert "synthetic drawings" not in section(page, "settings")


def test_maps_are_those_of_ground_beside_a_finding_that_is_not_there(run: Path, data: Path) -> None:
    model = load(run)
    studies = encode_studies(model, data)
    examples = make_examples(studies, 6)
    assert len({example.statement.row for example in examples}) == len(examples) > 1
    for example in examples:
        row = example.statement.row
        assert example.present.sentence == studies.sentences[row][example.statement.sentence]
        image = studies.dataset[BatchRequest(np.array([row]))].images
        tokens = model.task.model.image_encoder.tokens(image)
        assert example.absent is not None
        for heat in (example.present, example.absent):
            expected = model.patch_maps(tokens, model.encode_texts([heat.sentence]), model.map)[0, 0]
            np.testing.assert_allclose(heat.values.ravel(), expected.numpy(), atol=1e-5)
        there, book = {box.label for box in studies.boxes[row]}, load_prompts("phantom")
        stated = {label for label in FINDINGS if book.states(example.absent.sentence, label)}
        assert stated
        assert not stated & there


def test_a_finding_without_a_box_is_not_taken_for_absent(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label or the report says that it is there: boxes may be partial."""
    studies, book = encode_studies(load(run), data), load_prompts("phantom")
    assert any(example.absent for example in make_examples(studies, 6))
    studies.frame[[f"label_{label}" for label in FINDINGS]] = 1
    assert not any(example.absent for example in make_examples(studies, 6))
    studies.frame[[f"label_{label}" for label in FINDINGS]] = float("nan")
    stated = [book.of(label).positive[0] for label in FINDINGS]
    told = [[*sentences, *stated] for sentences in studies.sentences]
    monkeypatch.setitem(studies.__dict__, "sentences", told)
    assert not any(example.absent for example in make_examples(studies, 6))


def test_all_maps_have_one_scale(run: Path, data: Path) -> None:
    model = load(run)
    examples = make_examples(encode_studies(model, data), 6)
    scale = scale_of(model, examples)
    assert scale == model.map_range
    model.scores = JointScores(model.map)  # of a run that is older than the range
    values = [heat.values for example in examples for heat in (example.present, example.absent) if heat]
    scale = scale_of(model, examples)
    assert scale == (np.min(values), np.max(values))


def report_verb(*words: object) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_a_run_is_shown_by_its_verb(run: Path, data: Path) -> None:
    answer = report_verb(run, "--data", data)
    assert (answer.exit_code, answer.output) == (0, f"written: {run / 'report' / 'report.html'}\n")
    page = (run / "report" / "report.html").read_text("utf-8")
    assert "24 studies of the split “test”, none of which was trained on" in page
    assert "No results of an evaluation" in section(page, "results")
    for name in set(SECTIONS) - {"results"}:
        assert "absent" not in section(page, name), name


def plain_table(data: Path, folder: Path, split: str = "train") -> Path:
    """Images and reports of a split, and nothing that says so."""
    frame = pd.read_parquet(data / "manifest.parquet").query("split == @split")
    frame["image_path"] = [str(data / path) for path in frame["image_path"]]
    frame[["image_path", "findings", "impression"]].to_csv(folder / "plain.csv", index=False)
    return folder / "plain.csv"


def test_of_a_table_without_splits_the_held_out_studies_are_shown(data: Path, tmp_path: Path) -> None:
    table = plain_table(data, tmp_path)
    run = pretrain(load_recipe("demo", (*TINY, "data.val_fraction=0.2")), table, tmp_path / "run", quiet=True)
    studies = encode_studies(load(run), table)
    seen = pd.read_parquet(run / "seen.parquet", columns=["study_id", "part"])
    assert sorted(studies.dataset.study_ids) == sorted(seen.query("part == 'val'")["study_id"])
    assert (studies.unseen, studies.shown) == (True, f"{len(studies)} studies of the table")


def test_images_start_where_the_table_has_them_not_where_the_run_had_its_own(
    run: Path, data: Path, tmp_path: Path
) -> None:
    trained, other = tmp_path / "tables", tmp_path / "other"
    trained.mkdir()
    shutil.copy(data / "manifest.parquet", trained)
    shutil.copytree(data, other)
    for file in (other / "images").rglob("*.png"):
        Image.fromarray(255 - np.array(Image.open(file))).save(file)
    frame = pd.read_parquet(data / "manifest.parquet")
    frame[frame["split"] == "test"].to_parquet(other / "manifest.parquet")
    apart = shutil.copytree(run, tmp_path / "run")
    config = apart / "config.yaml"
    config.write_text(re.sub(r"\n  images: null\n", f"\n  images: {data}\n", config.read_text()))
    model = load(apart)
    assert model.recipe.data.images == str(data)

    def pictures(table: Path, images: Path | None = None) -> set[str]:
        studies = encode_studies(model, table, images)
        return {str(Path(path).parents[1]) for path in studies.frame["image_path"]}

    (named,) = pictures(trained)
    assert Path(named).is_relative_to(data)  # the run's own table, wherever it lies
    (named,) = pictures(other)
    assert Path(named).is_relative_to(other)
    (other / "manifest.parquet").rename(trained / "manifest.parquet")
    (named,) = pictures(trained, other)
    assert Path(named).is_relative_to(other)
    answer = report_verb(apart, "--data", trained, "--out", tmp_path / "page")
    assert "image" in str(answer.exception)
    assert str(trained) in str(answer.exception)
    assert report_verb(apart, "--data", trained, "--out", tmp_path / "page", "--images", other).exit_code == 0
    answer = report_verb(apart, "--data", trained, "--out", tmp_path / "page", "--images", tmp_path / "gone")
    assert re.search(r"--images .*gone: no such folder", str(answer.exception))


def test_the_way_out_is_named_where_the_runs_images_have_moved(run: Path, data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "manifest.parquet", tmp_path)
    model = load(run)
    moved = model.recipe.data.model_copy(update={"images": str(tmp_path / "moved")})
    model.recipe = model.recipe.model_copy(update={"data": moved})
    with pytest.raises(UserError, match=r"moved, where the run found its images .*say with --images DIR"):
        encode_studies(model, tmp_path)
    assert len(encode_studies(model, tmp_path, data)) > 0


def test_studies_that_were_trained_on_are_known_by_file_too(run: Path, data: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(data / "manifest.parquet").query("split == 'train'")
    frame["image_path"] = [str(data / path) for path in frame["image_path"]]
    frame["study_id"], frame["patient_id"], frame["split"] = frame["image_path"], frame["image_path"], "test"
    frame["sha256"] = frame["sha256"].str.upper() + " "  # as other programs write it
    frame.to_parquet(tmp_path / "renamed.parquet")
    with pytest.raises(UserError, match="trained on all of its studies; give --data"):
        write_run_page(run, tmp_path / "renamed.parquet", {}, tmp_path / "report")


def test_a_run_without_its_records_is_shown(run: Path, data: Path, tmp_path: Path) -> None:
    """Published runs may lack seen.parquet, and anything else that only the page wants."""
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("seen.parquet", "metrics.jsonl", "provenance.json"))
    page = write_run_page(bare, data, {}, tmp_path / "one").read_text("utf-8")
    assert "Nothing was logged" in section(page, "curves")
    assert "none of which was trained on" in page  # they are test studies all the same
    page = write_run_page(bare, plain_table(data, tmp_path), {}, tmp_path / "two").read_text("utf-8")
    assert "no seen.parquet, so they may have been trained on" in page


def test_an_unfinished_run_is_refused_before_anything_is_written(run: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("model.safetensors"))
    with pytest.raises(UserError, match=r"model\.safetensors is missing; finish the run with --resume"):
        write_run_page(tmp_path / "run", data, {}, tmp_path / "out")
    with pytest.raises(UserError, match="is no run folder"):
        write_run_page(tmp_path / "nothing", data, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_refused(run: Path, data: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"--out .*{out}: cannot be written .*choose another place"):
        write_run_page(run, data, {}, tmp_path / out)


def test_shards_are_refused_with_the_way_out(run: Path, data: Path, tmp_path: Path) -> None:
    write_shards(data, tmp_path / "shards", 50)
    with pytest.raises(UserError, match="shards, which cannot be read here: give the folder"):
        write_run_page(run, tmp_path / "shards", {}, tmp_path / "out")


def test_same_run_gives_the_same_page(run: Path, data: Path, page: str, tmp_path: Path) -> None:
    assert write_run_page(run, data, results(), tmp_path).read_text("utf-8") == page
