"""Every protocol, from a dataset's official layout to a table: prepare, evaluate, figures, report."""

from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from cmcgns.evaluation.protocols import load_protocol
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.evaluation.select import choose
from cmcgns.evaluation.task_settings.base import RARE_MEAN
from cmcgns.phantom.trees import write_tree
from cmcgns.prepare.run import PrepareOptions, prepare
from cmcgns.reporting.evaluation.command import judge_encoder
from support.evaluation import tiny_encoder, tiny_run
from support.result_rows import read_results

SHORT = ("settings.epochs=1", "settings.patience=1", "image_size=64")
# A small validation set may have no box, and a head of one epoch no detection above 0.5.
HEAD = ("settings.head_width=16", "settings.choose_by=loss", "settings.confidence_floor=0")
DECODER = ("settings.shortest_epoch=1", "settings.unet_channels=[16,8,8,8,8]")
TABLE = [
    ("chexpert-linear", "chexpert", ("image_size=64", "settings.min_positives=1")),
    ("rsna-linear", "rsna", ("image_size=64",)),
    ("covidx-linear", "covidx", ("image_size=64",)),
    ("rsna-detection", "rsna", (*SHORT, *HEAD)),
    ("object-cxr-detection", "object-cxr", (*SHORT, *HEAD)),
    ("siim-segmentation", "siim", (*SHORT, *DECODER)),
    ("rsna-segmentation", "rsna", (*SHORT, *DECODER)),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    @cache
    def of(dataset: str, rule: str) -> Path:
        folder = tmp_path_factory.mktemp(f"{dataset}-{rule}")
        write_tree(dataset, folder / "raw", 120, seed=3, size=64)
        options = PrepareOptions(size=64, split=rule, workers=1)
        prepare(dataset, folder / "raw", folder / "data", options, Console(quiet=True))
        return folder / "data"

    return of


def judge(encoder, protocol: str, data: Path, out: Path, overrides=(), lacks=" ") -> dict[str, float | None]:
    """Primary figures by fraction; nothing may fail or be skipped, and what is made is what `primary` may name."""
    options = EvaluateOptions(fractions=(50.0, 100.0), seeds=1, allow_leakage=True)
    pairs = choose(protocol, [data], overrides)
    judgement = judge_encoder(encoder, pairs, out, options, Console(quiet=True))
    assert judgement.outcome.failures == []
    assert judgement.outcome.skipped == []
    assert judgement.report.stat().st_size > 10_000
    rows = read_results(out)
    figures = {name for name in pairs[0][0].task_settings.figures if lacks not in name}
    assert {row.metric for row in rows if not row.label} - {RARE_MEAN} == figures - {RARE_MEAN}  # the data decide
    primary = [row for row in rows if row.primary and not row.group]
    return {row.metric + str(row.fraction or ""): row.value for row in primary}


@pytest.mark.parametrize("family", ["v1", "legacy"])
@pytest.mark.parametrize(("name", "dataset", "overrides"), TABLE, ids=[name for name, _, _ in TABLE])
def test_the_papers_table(name: str, dataset: str, overrides, family: str, prepared, tmp_path: Path) -> None:
    found = judge(tiny_encoder(), f"{name}/{family}", prepared(dataset, family), tmp_path, overrides)
    assert len(found) == 2
    assert all(value is not None and 0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize(
    ("protocol", "dataset"),
    [
        ("nih-linear/v1", "nih"),
        ("knn/v1", "nih"),
        ("zero-shot/v1", "chexpert"),
        ("zero-shot/v1", "nih"),
        ("retrieval/v1", "openi"),
        ("retrieval/v1", "mimic-cxr"),
        ("grounding/v1", "rsna"),
        ("grounding/v1", "vindr"),
    ],
)
def test_beyond_the_paper(protocol: str, dataset: str, prepared, tmp_path: Path) -> None:
    needs_reports = protocol.split("/")[0] in ("zero-shot", "retrieval", "grounding")
    found = judge(tiny_run() if needs_reports else tiny_encoder(), protocol, prepared(dataset, "v1"), tmp_path)
    assert found
    assert all(value is not None for value in found.values())


def test_images_that_are_kept_for_retrieval(tmp_path: Path) -> None:
    """CheXpert-5x200: training images with exactly one of five findings, in no split, found by class."""
    root = write_tree("chexpert", tmp_path / "raw", 120, seed=3, size=64)
    train = pd.read_csv(next(root.rglob("train.csv")))
    labels = load_protocol("chexpert-5x200-retrieval/v1").labels
    single = train[(train[labels] == 1).sum(axis=1) == 1]
    assert single[labels].eq(1).any().sum() >= 2
    single[["Path"]].to_csv(root / "chexpert_5x200.csv", index=False)
    prepare("chexpert", root, tmp_path / "data", PrepareOptions(size=64), Console(quiet=True))
    found = judge(tiny_run(), "chexpert-5x200-retrieval", tmp_path / "data", tmp_path / "out", lacks="report")
    assert 0 <= found["image_to_prompt_p@5"] <= 1
