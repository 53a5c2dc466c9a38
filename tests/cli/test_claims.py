"""Every verb that fills a folder has it for itself; another process that works there is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cmcgns import demo
from cmcgns.check.run import check_folders
from cmcgns.cli import evaluation
from cmcgns.common.claim import LOCK, claimed, holds_anything
from cmcgns.common.errors import UserError
from cmcgns.evaluation import compare
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.phantom.dataset import write_dataset
from cmcgns.phantom.trees import write_tree
from cmcgns.prepare.run import PrepareOptions, prepare
from cmcgns.reporting.evaluation import command
from cmcgns.training.run_folder import RunFolder
from support.training import run, tiny_recipe


def started_run(out: Path) -> Path:
    folder = out.parent / "run"
    folder.mkdir(exist_ok=True)
    RunFolder(folder).create(tiny_recipe(), None)
    return folder


def resume(out: Path, data: Path) -> None:
    RunFolder(out).create(tiny_recipe(), None)
    run(data, out, resume=True)


VERBS: dict[str, Callable[[Path, Path], object]] = {
    "pretrain": lambda out, data: run(data, out),
    "pretrain --resume": resume,
    "evaluate": lambda out, _: command.judge_encoder(None, [], out, EvaluateOptions(), None),  # type: ignore[arg-type]
    "compare": lambda out, data: command.run_comparison(data, out.parent, out),
    "report": lambda out, data: evaluation.report(started_run(out), data, out),
    "clusters": lambda out, data: evaluation.clusters(started_run(out), data, None, out),
    "prepare": lambda out, data: prepare("table", data, out, PrepareOptions()),
    "phantom studies": lambda out, _: write_dataset(out, {"train": 2}),
    "phantom tree": lambda out, _: write_tree("nih", out, 8),
    "check": lambda out, data: check_folders([data], False, [], out, False),
    "demo": lambda out, _: demo.run_demo(tiny_recipe(), out),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_another_process_works_in_is_refused(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = compare.Comparison("", "", (), ())
    monkeypatch.setattr(command, "compare_folders", lambda *_: nothing)
    monkeypatch.setattr(command, "differences_table", lambda *_: "")
    out, data = tmp_path / "out", tmp_path / "data"
    out.mkdir()
    data.mkdir()
    with claimed(out, "another verb"):
        with pytest.raises(UserError, match=r"out: `cmcgns another verb` \(process \d+ on .*, since .*works in it"):
            VERBS[verb](out, data)
        assert (out / LOCK).is_file()
    assert not (out / LOCK).exists()


def test_a_claim_and_temporary_files_are_nothing(tmp_path: Path) -> None:
    for name in (LOCK, ".manifest.parquet.17-0123abcd.tmp", ".17-0123abcd.tmp"):
        (tmp_path / name).touch()
    assert not holds_anything(tmp_path)
    (tmp_path / ".mine.tmp").touch()
    assert holds_anything(tmp_path)


def test_check_cleans_no_folder_that_another_process_works_in(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"train": 4}, size=32).parent
    with claimed(data, "prepare"):
        with pytest.raises(UserError, match=r"`cmcgns prepare` \(process \d+ on .*works in it"):
            check_folders([data], False, [], tmp_path / "out", True)
        assert not (data / "manifest.cleaned.parquet").exists()
    check_folders([data], False, [], data, True)
    assert (data / "manifest.cleaned.parquet").is_file()
