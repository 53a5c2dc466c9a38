"""Studies whose training and judging only pretend, in this process or in another one."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cmcgns.phantom.dataset import write_dataset
from cmcgns.settings.config import Recipe
from cmcgns.study import cell, page
from cmcgns.study.load import load_plan
from cmcgns.study.plan import Plan
from cmcgns.study.results import Figure
from cmcgns.study.run import StudyOptions, run_study
from cmcgns.training.run_folder import RunFolder
from support.evaluation import write_set
from support.training import TRAIN, VALIDATION, kill, tiny_recipe

OPTIONS = StudyOptions(accelerator="cpu")
RESAMPLES = 40
RECALL = "report_to_image_r@10"


PARTS = ("objective.negatives=cluster", "objective.reconstruction=cross_modal")


def study_content(data: str = "data", **changes: Any) -> dict[str, Any]:
    """Two cells, two seeds, one measure that learns from labels and one that does not."""
    content: dict[str, Any] = {
        "name": "tried",
        "data": data,
        "recipe": "small-cpu",
        "set": ["training.batch_size=4", *PARTS],
        "cells": [{"name": "full"}, {"name": "global", "set": ["objective.weight_report=0"]}],
        "seeds": [0, 1],
        "judge": [{"protocol": "linear/v1", "fractions": [10, 100]}, {"protocol": "retrieval/v1"}],
        "measures": [
            {"protocol": "linear/v1", "measure": "auroc", "fraction": 10, "title": "AUROC"},
            {"protocol": "retrieval/v1", "measure": "report_to_image_r@10", "title": "R@10"},
        ],
        "baseline": "global",
    }
    return content | changes


def write_study(folder: Path, **changes: Any) -> str:
    """A study's file beside tiny data."""
    data = folder / "data"
    if not data.exists():
        write_set(data)
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study_content(**({"data": str(data)} | changes))))
    return str(file)


def plan_of(folder: Path, **changes: Any) -> Plan:
    return load_plan(write_study(folder, **changes))


def tiny_study(folder: Path, data: Path | None = None) -> str:
    """A study that is really trained and judged, in seconds: two cells of one seed, by retrieval alone."""
    if data is None:
        data = folder / "studies"
        write_dataset(data, {"train": TRAIN, "val": VALIDATION, "test": 8}, size=40)
    recipe, file = folder / "tiny.yaml", folder / "study.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    apart = ["objective.weight_report=0", "objective.weight_image=0"]
    content = study_content(
        str(data), recipe=str(recipe), set=[], seeds=[0], judge=[{"protocol": "retrieval/v1"}],
        measures=[{"protocol": "retrieval/v1", "measure": RECALL}],
        cells=[{"name": "global", "set": apart}, {"name": "full"}],
    )  # fmt: skip
    file.write_text(yaml.safe_dump(content))
    return str(file)


def figures_from(recipe: Recipe, plan: Plan) -> list[Figure]:
    """Figures that follow from the recipe alone."""
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    rng = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16))
    found = []
    for column in plan.columns:
        value = rng.random()
        drawn = np.round(value + rng.normal(scale=0.05, size=RESAMPLES), 5).tolist()
        found.append(Figure(column.protocol, column.fraction, column.measure, value, 20, "rows", drawn))
    return found


class Kill:
    """Does nothing, but ends the process when it is called for the `at`-th time, as `kill -9` does."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.calls = at, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            kill()


def pretend_to_train(log: Path, seconds: float = 0.0, moment: Callable[[], object] = list) -> Callable[..., None]:
    """Leaves a run folder and a line in a log; `resume` goes on with what was begun."""

    def pretrain(recipe: Recipe, data: Path, out: Path, *, resume: bool, accelerator: str, oracle: object) -> None:
        assert resume == (out / "config.yaml").exists()
        folder = RunFolder(out)
        if not resume:
            out.mkdir(parents=True)
            folder.create(recipe, None)
        if seconds:
            time.sleep(seconds)
        moment()
        (folder.state / "step-00000001.safetensors").write_bytes(b"state")
        folder.model.write_bytes(b"weights")
        with log.open("a") as lines:
            lines.write(f"{out.parent.parent.name} {recipe.training.seed}\n")
        folder.write_provenance({"finished": "now"})
        moment()

    return pretrain


def pretend_to_judge(work: cell.Work, name: str, run: Path, out: Path) -> tuple[int, list[Figure]]:
    applied = {each.name for each in work.plan.judging_of(name)}
    figures = figures_from(RunFolder(run).read_recipe(), work.plan)
    return 1234, [figure for figure in figures if figure.judge in applied]


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of what was trained; no picture is drawn, which takes longest."""
    log = tmp_path / "trained.log"
    log.touch()
    monkeypatch.setattr(cell, "pretrain", pretend_to_train(log))
    monkeypatch.setattr(cell, "_judge", pretend_to_judge)
    monkeypatch.setattr(page, "_forest", lambda *_: {})
    return log


def do_study(study: str, out: Path, log: Path, seconds: float = 0.0, killed_at: int = 0) -> None:
    """Target of a process: such a study, which is killed at some moment between its files."""
    moment, write, tidy = Kill(killed_at), cell.write_result, cell.tidy

    def writing(*parts: Any) -> None:
        moment()
        write(*parts)
        moment()

    def tidying(*parts: Any) -> None:
        tidy(*parts)
        moment()

    cell.pretrain = pretend_to_train(log, seconds, moment)  # type: ignore[assignment]
    cell._judge, cell.write_result, cell.tidy = pretend_to_judge, writing, tidying
    page._forest = lambda *_: {}
    run_study(load_plan(study), out, OPTIONS)


MOMENTS = 5  # of each job at which `do_study` may be killed


def results_of(out: Path) -> dict[str, dict[str, Any]]:
    """What result files say, but for times."""
    found = {file.name: json.loads(file.read_text()) for file in sorted((out / "results").glob("*.json"))}
    return {
        name: {key: value for key, value in content.items() if key != "seconds"} for name, content in found.items()
    }


def tables_of(out: Path) -> dict[str, bytes]:
    """Content of the table in every form, the picture included where there is one."""
    return {path.name: path.read_bytes() for path in (*out.glob("table.*"), *out.glob("pictures/*"))}
