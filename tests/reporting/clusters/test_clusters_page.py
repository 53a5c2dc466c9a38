"""The page of a run's clusters, on a tiny run: every section, what is beside it, and what is refused."""

import csv
import json
import re
import shutil
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cmcgns.cli.app import app
from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.data.shards.write import write_shards
from cmcgns.phantom import sentence_truth, write_dataset
from cmcgns.pretrained import load
from cmcgns.reporting.clusters.page import write_clusters
from cmcgns.reporting.clusters.sentences import cluster_sentences, read_split
from cmcgns.reporting.run_page.studies import encode_studies
from cmcgns.reporting.run_page.training import show_bank
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.journal import read_metrics
from cmcgns.training.pretrain import pretrain

SECTIONS = ("facts", "sizes", "map", "labels", "clusters", "reading")  # and "quality", where the truth is known
TINY = (
    "data.image_size=32",
    "data.resize=36",
    "image_encoder.options={channels: [8, 8, 16, 16]}",
    "report_encoder={layers: 1, width: 16, heads: 2, vocabulary: 300}",
    "objective.dim=16",
    "objective.reconstruction='off'",
    "objective.local=query_matched",
    "objective.negatives=cluster",
    "objective.false_negatives=mask",
    "objective.bank={clusters: 4, source: centred, start_from_step: 0, start_by_step: 2, check_every: 1}",
    "alignment.epochs=2",
    "reconstruction.epochs=0",
    "training.batch_size=4",
)
ODD = "Heart & <b>great vessels</b> seen."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write_dataset(folder, {"train": 48, "val": 16, "test": 12}, size=64)
    table = folder / "manifest.parquet"
    frame = pd.read_parquet(table)
    val = frame.index[frame["split"] == "val"]
    frame.loc[val, "findings"] = frame.loc[val, "findings"] + f" {ODD}"
    frame.to_parquet(table)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(load_recipe("demo", TINY), data, tmp_path_factory.mktemp("runs") / "full", quiet=True)


@pytest.fixture(scope="module")
def out(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clusters(run, data, tmp_path_factory.mktemp("out"), oracle=sentence_truth).parent


@pytest.fixture(scope="module")
def page(out: Path) -> str:
    return (out / "clusters.html").read_text("utf-8")


@pytest.fixture(scope="module")
def content(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "clusters.json").read_text("utf-8"))
    return found


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.S)
    assert found, f"no section {name}"
    return found[1]


def test_the_log_has_the_sizes_of_every_epoch(run: Path, content: dict[str, Any]) -> None:
    logged = [record for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "clusters"]
    assert [(record["stage"], record["epoch"], record["step"]) for record in logged] == [
        ("alignment", 1, 12), ("alignment", 2, 24),
    ]  # fmt: skip
    assert all(sum(record["shares"]) == pytest.approx(1, abs=1e-3) for record in logged)
    assert content["history"]["shares"] == [record["shares"] for record in logged]
    method = load(run).method
    assert method is not None
    assert logged[-1]["shares"] == pytest.approx(method.bank.shares.tolist(), rel=1e-3)


def test_every_section_is_there_and_shown(page: str) -> None:
    for name in SECTIONS:
        assert "absent" not in section(page, name), name
    assert "None of them was trained on" not in page
    assert "The run was trained on none of them" in page
    assert "hold sentences of the reports" in page
    assert "What the sentences say is not known" in section(page, "quality")  # somebody added one


def test_page_asks_for_nothing_from_outside(page: str) -> None:
    assert not re.search(r"https?://|//[a-z]+\.|<script|<link|@import|url\(|src=", page)


def test_sentences_are_escaped(page: str) -> None:
    assert "Heart &amp; &lt;b&gt;great vessels&lt;/b&gt; seen." in page
    assert "<b>great" not in page


def test_tables_hold_every_sentence_of_the_split(out: Path, data: Path, content: dict[str, Any]) -> None:
    frame = pd.read_parquet(data / "manifest.parquet").query("split == 'val'")
    texts = [
        f"{findings}\n\n{impression}"
        for findings, impression in zip(frame["findings"], frame["impression"], strict=True)
    ]
    sentences = [normalise_sentence(sentence) for text in texts for sentence in split_sentences(text)]
    with (out / "sentences.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = {normalise_sentence(row["sentence"]): int(row["count"]) for row in rows}
    assert counts == {sentence: sentences.count(sentence) for sentence in sentences}
    assert counts[normalise_sentence(ODD)] == 16
    assert {row["polarity"] for row in rows} >= {"states", "denies"}
    assert (content["sentences"], content["distinct"], content["images"]) == (len(sentences), len(counts), 16)
    assert sum(cluster["sentences"] for cluster in content["clusters"]) == len(sentences)
    with (out / "clusters.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [int(row["cluster"]) for row in listed] == [1, 2, 3, 4]
    assert [float(row["share"]) for row in listed] == [cluster["share"] for cluster in content["clusters"]]
    assert {"Effusion prevalence", "Effusion lift", "Effusion images"} <= set(listed[0])


def test_every_dot_has_its_sentence(page: str, content: dict[str, Any]) -> None:
    titles = re.findall(r'class="dot[^>]*><title>(.*?)</title>', section(page, "map"), re.S)
    assert len(titles) == content["distinct"]
    assert any(unescape(title).startswith(ODD) for title in titles)


def test_base_rates_are_those_of_the_manifest(data: Path, content: dict[str, Any]) -> None:
    frame = pd.read_parquet(data / "manifest.parquet").query("split == 'val'")
    assert content["base"]["Effusion"] == pytest.approx(frame["label_Effusion"].mean())


def test_the_same_run_gives_the_same_files(run: Path, data: Path, out: Path, tmp_path: Path) -> None:
    write_clusters(run, data, tmp_path, oracle=sentence_truth)
    for path in out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_page_of_the_run_finds_the_same_clusters(run: Path, data: Path) -> None:
    model = load(run)
    found = cluster_sentences(model, read_split(model, data, "test"))
    studies = encode_studies(model, data)  # the same ones
    assert studies.clustered is not None
    for name in ("text", "image", "cluster", "second"):
        assert getattr(studies.clustered, name).tolist() == getattr(found, name).tolist()
    assert studies.clustered.cosine == pytest.approx(found.cosine, abs=1e-5)
    shown = show_bank(studies, [])["clusters"]
    assert {cluster.number - 1 for cluster in shown} == set(found.cluster.tolist())
    assert all(before.share >= after.share for before, after in pairwise(shown))


def test_clusters_are_those_that_the_objective_gives(run: Path, data: Path) -> None:
    model = load(run)
    shown = read_split(model, data, "test")
    found, batch = cluster_sentences(model, shown), shown.dataset[BatchRequest(np.arange(12))]
    clusters = model.task.objective.clusters_of(model.task.model(batch), batch)
    assert clusters is not None
    for mine, given in zip((found.cluster, found.second), clusters, strict=True):
        assert mine.tolist() == given[batch.sentence_mask].tolist()


def clusters_verb(*words: object) -> Any:
    return CliRunner().invoke(app, ["clusters", *map(str, words)])


def test_a_run_is_shown_by_its_verb(run: Path, data: Path) -> None:
    answer = clusters_verb(run, "--data", data, "--split", "test")
    assert (answer.exit_code, answer.output) == (0, f"written: {run / 'clusters' / 'clusters.html'}\n")
    page = (run / "clusters" / "clusters.html").read_text("utf-8")
    assert "12 images of the split “test” of manifest.parquet" in page
    assert "False negatives, precision" in section(page, "quality")
    found = json.loads((run / "clusters" / "clusters.json").read_text("utf-8"))["quality"]
    assert {"false_negative_recall", "cluster_contradict"} <= set(found)
    assert all(0 <= each["value"] <= 1 and 0 <= each["chance"] <= 1 for each in found.values())
    shutil.rmtree(run / "clusters")


def test_a_table_without_labels_and_a_run_without_a_log(run: Path, data: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(data / "manifest.parquet")
    frame["image_path"] = [str(data / path) for path in frame["image_path"]]
    frame[["image_path", "study_id", "findings", "impression", "split"]].to_csv(tmp_path / "pairs.csv", index=False)
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("seen.parquet", "metrics.jsonl", "provenance.json"))
    page = write_clusters(bare, tmp_path / "pairs.csv", tmp_path / "out", oracle=sentence_truth).read_text("utf-8")
    assert "no column label_" in section(page, "labels")
    assert "fewer than two epochs" in section(page, "sizes")
    assert "no seen.parquet" in page
    assert "states a finding" not in page  # whose truth nobody knows
    assert "synthetic" not in section(page, "reading")


def test_the_published_form_assigns_by_the_sentence_itself(data: Path, tmp_path: Path) -> None:
    changes = ("objective.local=own_query", "objective.false_negatives=soft", "objective.bank.source=cross_modal",
               "objective.rarity=0", "objective.weight_matching=0", "alignment.epochs=1")  # fmt: skip
    run = pretrain(load_recipe("demo", (*TINY, *changes)), data, tmp_path / "run", quiet=True)
    page = write_clusters(run, data, tmp_path / "out").read_text("utf-8")
    assert "a sentence is assigned by the sentence&#39;s own vector z1" in page
    assert "one wording may lie in several clusters" not in page
    with (tmp_path / "out" / "sentences.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["polarity"] for row in rows} == {""}


@pytest.mark.parametrize(
    ("before", "after"), [("negatives: cluster", "negatives: in_batch"), ("weight_report: 1.0", "weight_report: 0.0")]
)
def test_a_run_without_clusters_is_refused(run: Path, data: Path, tmp_path: Path, before: str, after: str) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    settings = (other / "config.yaml").read_text("utf-8")
    assert before in settings
    (other / "config.yaml").write_text(settings.replace(before, after), "utf-8")
    answer = clusters_verb(other, "--data", data)
    assert isinstance(answer.exception, UserError)
    assert f"{other} has no clusters to show. The run was made without the cluster bank" in str(answer.exception)
    assert not any((other / "clusters").iterdir())


def test_a_bank_that_never_started_is_refused_and_logs_no_sizes(data: Path, tmp_path: Path) -> None:
    changes = ("objective.bank.start_by_step=1000", "objective.bank.start_cosine=-1", "alignment.epochs=1")
    run = pretrain(load_recipe("demo", (*TINY, *changes)), data, tmp_path / "run", quiet=True)
    assert not any(record["kind"] == "clusters" for record in read_metrics(run / "metrics.jsonl"))
    with pytest.raises(UserError, match=r"has no clusters to show\. The bank never started"):
        write_clusters(run, data, tmp_path / "out")


@pytest.mark.parametrize("encoder", ["random:somewhere", "imagenet:resnet18"])
def test_an_encoder_that_is_no_run_is_refused(data: Path, encoder: str) -> None:
    answer = clusters_verb(encoder, "--data", data)
    assert "only a run has clusters" in str(answer.exception)
    assert not Path(encoder).exists()


def test_bad_data_is_refused_with_the_way_out(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no row has split dev \(found: test, train, val\): name one of them with --split"
    ):
        write_clusters(run, data, tmp_path / "out", split="dev")
    with pytest.raises(UserError, match="is no run folder"):
        write_clusters(tmp_path / "nothing", data, tmp_path / "out")
    write_shards(data, tmp_path / "shards", 50)
    with pytest.raises(UserError, match="shards, which cannot be read here: give the folder"):
        write_clusters(run, tmp_path / "shards", tmp_path / "out")
    frame = pd.read_parquet(data / "manifest.parquet")
    frame["image_path"] = [str(data / path) for path in frame["image_path"]]
    frame.drop(columns=["findings", "impression", "report"]).to_parquet(tmp_path / "textless.parquet")
    with pytest.raises(UserError, match="missing report text"):
        write_clusters(run, tmp_path / "textless.parquet", tmp_path / "out")
    frame.assign(label_Effusion="perhaps").to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(UserError, match="label_Effusion is perhaps"):
        write_clusters(run, tmp_path / "odd.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_log_is_named_before_anything_is_read(run: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(run, tmp_path / "run")
    (broken / "metrics.jsonl").write_text('{"kind": "clusters", "step": 3, "shares": [1.0]}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl: a record of the clusters \(step 3\) does not fit"):
        write_clusters(broken, tmp_path / "no data", tmp_path / "out")
