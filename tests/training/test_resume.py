"""A run that is killed and resumed ends like one that was not, in every bit."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import save_file

from cmcgns.common.errors import UserError
from cmcgns.models import checked_tensors
from cmcgns.training import loop
from cmcgns.training.checkpoint import checkpoints, read_state
from cmcgns.training.dry_run import dry_run
from cmcgns.training.pretrain import pretrain
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.task import build_task
from support.training import (
    STEPS,
    assert_same_end,
    in_child,
    kill_after_best_weights,
    kill_at_step,
    kill_before_the_end,
    kill_while_writing,
    run,
    run_with_fault,
    tiny_recipe,
)

# With checkpoint_every=4 and 6 steps an epoch: checkpoints after steps 4, 6, 8, 12 | 16, 18.
FAULTS = {
    "before the first checkpoint": (kill_at_step, 2),
    "right after a checkpoint": (kill_at_step, 4),
    "mid-epoch": (kill_at_step, 10),
    "between best weights and checkpoint": (kill_after_best_weights, 2),
    "right after stage I": (kill_at_step, 2 * STEPS),
    "in stage II": (kill_at_step, 2 * STEPS + 5),
    "while writing a checkpoint": (kill_while_writing, 8),
    "before the weights are written": (kill_before_the_end, 0),
}


@pytest.mark.parametrize(("fault", "number"), FAULTS.values(), ids=FAULTS)
def test_killed_run_ends_with_the_same_bits(
    fault: Callable[[int], None], number: int, studies: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert in_child(run_with_fault, fault, (number,), studies, out, tiny_recipe()) == -9
    assert not (out / "model.safetensors").exists()
    run(studies, out, resume=True)
    assert_same_end(finished, out)


def test_accumulated_run_ends_with_the_same_bits(studies: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(training__accumulate=2, training__checkpoint_every=2)
    whole = run(studies, tmp_path / "whole", recipe)
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (5,), studies, out, recipe) == -9
    run(studies, out, recipe, resume=True)
    assert_same_end(whole, out)


def test_an_odd_batch_of_near_reports_would_part_a_pair(studies: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(training__batches="near", training__batch_size=7)
    with pytest.raises(UserError, match=r"a step takes 7 studies: set an even training\.batch_size"):
        run(studies, tmp_path / "run", recipe)


def test_run_with_batches_of_near_reports_ends_with_the_same_bits(studies: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(training__batches="near", reconstruction__epochs=0)
    whole = run(studies, tmp_path / "whole", recipe)
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (STEPS + 2,), studies, out, recipe) == -9
    run(studies, out, recipe, resume=True)
    assert_same_end(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"target": "features", "report_dropout": 0.3},
        {"target": "text_map"},
        {"target_scale": 2, "target_per_patch": True},
    ],
    ids=str,
)
def test_targets_end_with_the_same_bits(changes: dict[str, Any], studies: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(**{f"objective__{name}": value for name, value in changes.items()})
    whole = run(studies, tmp_path / "whole", recipe)
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (2 * STEPS + 5,), studies, out, recipe) == -9
    run(studies, out, recipe, resume=True)
    assert_same_end(whole, out)
    last = [sorted((folder / "state").glob("step-*"))[-1].read_bytes() for folder in (whole, out)]
    assert last[0] == last[1]  # which holds the average encoder


def test_equal_seeds_give_equal_runs_and_no_clock_in_the_metrics(
    studies: Path, finished: Path, tmp_path: Path
) -> None:
    assert_same_end(finished, run(studies, tmp_path / "again"))
    other = run(studies, tmp_path / "other", tiny_recipe(training__seed=4))
    assert (other / "metrics.jsonl").read_bytes() != (finished / "metrics.jsonl").read_bytes()


def test_half_written_checkpoint_is_not_used(studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_while_writing, (8,), studies, out, tiny_recipe()) == -9
    left = [path.name for path in (out / "state").iterdir() if path.name.endswith(".tmp")]
    assert left, "the test is meant to leave half a file"
    assert read_state(checkpoints(out / "state")[-1]).global_step == STEPS


def test_newest_checkpoints_are_kept_and_nothing_is_a_pickle(finished: Path) -> None:
    assert [path.name for path in checkpoints(finished / "state")] == [
        "step-00000016.safetensors",
        "step-00000018.safetensors",
    ]
    assert sorted(path.name for path in (finished / "state").glob("best-*")) == [
        "best-alignment.safetensors",
    ]
    for file in (path for path in finished.rglob("*") if path.is_file()):
        known = (".yaml", ".safetensors", ".json", ".jsonl", ".md", ".csv", ".parquet")
        assert file.suffix in known or "tfevents" in file.name
        assert file.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"), file


def test_other_settings_are_refused(finished: Path, studies: Path) -> None:
    with pytest.raises(UserError, match=r"differs in training\.clip \(1\.0, now 0\.5\)\. Resume .*--init"):
        run(studies, finished, tiny_recipe(training__clip=0.5), resume=True)


def test_other_data_are_refused(studies: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(studies, data)
    out = tmp_path / "run"
    in_child(run_with_fault, kill_at_step, (5,), data, out, tiny_recipe())
    frame = pd.read_parquet(data / "manifest.parquet")
    frame.loc[0, "findings"] = "Something else."
    frame.to_parquet(data / "manifest.parquet")
    with pytest.raises(UserError, match="has changed since the run started"):
        run(data, out, resume=True)


def test_occupied_folder_is_refused(studies: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is not empty, and what is there is no run"):
        run(studies, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_resume_of_nothing_is_refused(studies: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run yet: leave out --resume to start it"):
        run(studies, tmp_path, resume=True)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match=r"is no run folder: config\.yaml is missing"):
        run(studies, tmp_path, resume=True)


def test_a_finished_run_needs_its_state_no_longer(
    studies: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it `--resume` does not begin the run anew, which would write over its weights."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "state")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    pretrain(tiny_recipe(), studies, out, accelerator="cpu", resume=True)
    assert f"{out} is finished: nothing is left to do" in capsys.readouterr().out.replace("\n", "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_the_run_folder_is_as_large_as_the_dry_run_says(studies: Path, finished: Path) -> None:
    said = dry_run(tiny_recipe(), studies, "cpu", steps=1)["run_folder_mib"] * 2**20
    state = max(path.stat().st_size for path in (finished / "state").glob("step-*"))
    weights = sum(path.stat().st_size for path in (finished / "model.safetensors", RunFolder(finished).best))
    assert said == pytest.approx(weights + 3 * state, rel=0.01)  # two checkpoints are kept while one is written
    assert sum(path.stat().st_size for path in finished.rglob("*.safetensors")) <= said


def test_folder_stays_free_when_the_data_are_bad(studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no row has split"):
        run(studies, out, tiny_recipe(data__train_split="nothing"))
    assert not any(out.iterdir())


def test_pretrained_image_weights_survive_a_kill_before_the_first_checkpoint(studies: Path, tmp_path: Path) -> None:
    """The start of a run that has no checkpoint yet is its recipe's, not a random one."""
    recipe = tiny_recipe(training__seed=9)
    body = build_task(recipe, 300).model.image_encoder.body
    save_file({name: value.contiguous() for name, value in body.state_dict().items()}, tmp_path / "image.safetensors")
    recipe = tiny_recipe(image_encoder__weights=str(tmp_path / "image.safetensors"), alignment__epochs=1)
    whole = run(studies, tmp_path / "whole", recipe)
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (2,), studies, out, recipe) == -9
    run(studies, out, recipe, resume=True)
    assert_same_end(whole, out)


def test_a_damaged_checkpoint_costs_some_steps_and_nothing_else(
    studies: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (10,), studies, out, tiny_recipe()) == -9
    before, newest = checkpoints(out / "state")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        run(studies, out, resume=True)
    assert f"{newest} is damaged (its content has another checksum" in caplog.text
    assert f"the run goes on from the one before, {before.name}" in caplog.text
    assert_same_end(finished, out)
    assert newest.with_name(f"damaged-{newest.name}").is_file()


def test_a_resume_hashes_what_it_opens_once(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole checkpoint has gigabytes; also the damaged one beside it is hashed once."""
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (13,), studies, out, tiny_recipe()) == -9
    before, newest = checkpoints(out / "state")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    checksum, hashed = checked_tensors._checksum, Counter[int]()

    def counted(tensors: Any, kind: str, about: Any) -> str:
        hashed[about.get("global_step")] += 1
        return checksum(tensors, kind, about)

    class Trains(Exception):
        """What comes before has opened all that a resume opens."""

    def train(*_: Any, **__: Any) -> None:
        raise Trains

    monkeypatch.setattr(checked_tensors, "_checksum", counted)
    monkeypatch.setattr(loop, "training_step", train)
    with pytest.raises(Trains):
        run(studies, out, resume=True)
    assert [path.name[5:13] for path in (before, newest)] == ["00000008", "00000012"]
    assert hashed == {8: 1, 12: 1}


def test_a_log_that_was_cut_off_goes_on_at_a_whole_line(studies: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (10,), studies, out, tiny_recipe()) == -9
    log = out / "metrics.jsonl"
    lines = (finished / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines)[: len(lines[0]) + 20])  # within the second line
    noted = read_state(checkpoints(out / "state")[-1]).metrics_bytes
    logged = next(number for number in range(len(lines)) if len(b"".join(lines[:number])) == noted)
    run(studies, out, resume=True)
    assert log.read_bytes() == b"".join([lines[0], *lines[logged:]])
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
