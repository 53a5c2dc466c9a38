"""A study whose training and judging only pretend: what is done, what is not done again, what is refused."""

import errno
import json
import math
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from cmcgns.cli.app import app
from cmcgns.common.claim import claimed
from cmcgns.common.errors import UserError
from cmcgns.objectives.objective import read_settings, with_options
from cmcgns.settings.recipe import load_recipe
from cmcgns.study import cell, run
from cmcgns.study.data import fingerprint, study_data
from cmcgns.study.results import Origin
from cmcgns.study.run import StudyOptions, describe_study, run_study, write_study_table
from support.evaluation import write_set
from support.study import MOMENTS, OPTIONS, PARTS, do_study, plan_of, results_of, tables_of, write_study
from support.training import in_child

ALL = ["full 0", "global 0", "full 1", "global 1"]


def trained(log: Path) -> list[str]:
    return log.read_text().splitlines()


def test_every_cell_is_trained_once_and_the_table_written(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    page = run_study(plan, out, OPTIONS)
    assert trained(pretended) == ALL
    assert "objective.weight_report=0" in page.read_text()
    results = results_of(out)
    assert list(results) == ["full-seed-0.json", "full-seed-1.json", "global-seed-0.json", "global-seed-1.json"]
    assert results["full-seed-0.json"]["parameters"] == 1234
    assert (out / "results" / "full-seed-0.json").read_text().count('\n{"judge"') == len(plan.columns)
    before = tables_of(out)
    assert before.keys() == {"table.json", "table.csv", "table.md"}
    run_study(plan, out, OPTIONS)
    assert trained(pretended) == ALL
    assert tables_of(out) == before


def test_the_table_follows_from_the_results_alone(pretended: Path, tmp_path: Path) -> None:
    plan, out, other = plan_of(tmp_path), tmp_path / "out", tmp_path / "other"
    run_study(plan, out, OPTIONS)
    other.mkdir()
    (out / "results").rename(other / "results")
    write_study_table(plan, other)
    assert tables_of(other) == tables_of(out)
    with pytest.raises(UserError, match="there is no result of tried yet"):
        write_study_table(plan, out.parent / "nowhere")


def test_kept_results_and_their_study_give_the_table(pretended: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"
    run_study(plan_of(tmp_path), out, OPTIONS)
    shutil.copytree(out / "results", kept / "results")
    shutil.copy(out / "study.yaml", kept)
    shutil.rmtree(tmp_path / "data")
    answer = CliRunner().invoke(app, ["study", str(kept / "study.yaml"), "--out", str(kept), "--table-only"])
    assert answer.exit_code == 0, answer.output
    assert tables_of(kept) == tables_of(out)


def test_some_cells_and_seeds(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, StudyOptions(cells=("global",), seeds=(1,), accelerator="cpu"))
    assert trained(pretended) == ["global 1"]
    table = (out / "table.md").read_text()
    assert "| full | – | – |" in table
    run_study(plan, out, OPTIONS)
    assert sorted(trained(pretended)) == sorted(ALL)


def test_a_folder_is_of_one_study(pretended: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_study(plan_of(tmp_path), out, OPTIONS)
    kept = (out / "study.yaml").read_bytes()
    other = plan_of(
        tmp_path, name="other", cells=[{"name": "full"}, {"name": "mu", "set": ["objective.mu=2"]}], baseline="full"
    )
    for call in (run_study, describe_study):
        with pytest.raises(UserError, match=r"is the folder of the study \w+, not other: choose another --out"):
            list(call(other, out, OPTIONS))  # type: ignore[operator]
    assert (out / "study.yaml").read_bytes() == kept
    (out / "study.yaml").write_text("[", "utf-8")
    with pytest.raises(UserError, match=r"study.yaml is damaged .*delete it, and it is written again"):
        run_study(plan_of(tmp_path), out, OPTIONS)


def test_dry_run_tells_and_does_nothing(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    lines = list(describe_study(plan, out, OPTIONS))
    assert "  global: objective.weight_report=0; seeds 0, 1 to do" in lines
    assert not out.exists()
    blind = [{"name": "full"}, {"name": "global", "set": ["objective.mu=2"], "without": ["retrieval/v1"]}]
    lines = list(describe_study(plan_of(tmp_path, cells=blind), out, OPTIONS))
    assert "  global: objective.mu=2; without retrieval/v1; seeds 0, 1 to do" in lines
    run_study(plan, out, StudyOptions(cells=("full",), accelerator="cpu"))
    (out / "results" / "full-seed-1.json").unlink()
    lines = list(describe_study(plan, out, OPTIONS))
    assert "  full: nothing differs; seeds 0 done; seeds 1 begun" in lines
    assert "  judged by linear/v1 10 %, 100 %" in lines
    assert not [line for line in lines if "no such file" in line]
    shutil.rmtree(str(plan.settings.data))
    assert f"  data {plan.settings.data}: no such file or folder" in list(describe_study(plan, out, OPTIONS))


@pytest.mark.parametrize(
    ("keep", "left"), [("all", [True, True]), ("weights", [False, True]), ("none", [False, False])]
)
def test_what_is_kept(keep: str, left: list[bool], pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path, keep=keep), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    folder = out / "cells" / "full" / "seed-0" / "run"
    assert [(folder / name).exists() for name in ("state", "model.safetensors")] == left
    assert (folder / "config.yaml").is_file()
    if keep != "all":  # killed after the result was written
        (folder / "state").mkdir()
        run_study(plan, out, OPTIONS)
        assert not (folder / "state").exists()
    assert trained(pretended) == ALL


def test_weights_that_were_not_kept_are_not_made_again_in_silence(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path, keep="none"), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    (out / "results" / "full-seed-0.json").unlink()
    with pytest.raises(UserError, match=r"run: its weights were not kept: delete .*seed-0, and it is trained again"):
        run_study(plan, out, OPTIONS)
    assert trained(pretended) == ALL
    shutil.rmtree(out / "cells" / "full" / "seed-0")
    run_study(plan, out, OPTIONS)
    assert trained(pretended) == [*ALL, "full 0"]


CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"set": ["training.batch_size=8"]}, r"full-seed-0.json .*training.batch_size \(4, now 8\)"),
    ({"judge": [{"protocol": "linear/v1", "fractions": [10]}, {"protocol": "retrieval/v1"}]}, "settings: judge"),
]


@pytest.mark.parametrize(("changes", "said"), CHANGED)
def test_a_result_of_other_settings_is_refused_before_training(
    changes: dict[str, Any], said: str, pretended: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_study(plan_of(tmp_path), out, StudyOptions(cells=("full",), seeds=(0,), accelerator="cpu"))
    changed = plan_of(tmp_path, **changes)
    (out / "cells" / "full" / "seed-0" / "run" / "model.safetensors").unlink()  # with it, it would be judged again
    for call in (lambda: run_study(changed, out, OPTIONS), lambda: write_study_table(changed, out)):
        with pytest.raises(UserError, match=f"(?s){said}.*choose another --out, or delete .*full-seed-0.json and"):
            call()
    with pytest.raises(UserError, match=said):
        list(describe_study(changed, out, OPTIONS))
    assert trained(pretended) == ["full 0"]


def test_other_protocols_judge_the_runs_that_are_there(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path, keep="weights"), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    measure = {"protocol": "linear/v1", "measure": "auroc"}
    judge = [{"protocol": "linear/v1", "fractions": [10]}]
    changed = plan_of(tmp_path, keep="weights", judge=judge, measures=[measure])
    with pytest.raises(UserError, match=r"full-seed-0.json was made with other settings: judge"):
        write_study_table(changed, out)
    assert "  full: nothing differs; seeds 0, 1 to be judged by other protocols" in describe_study(
        changed, out, OPTIONS
    )
    run_study(changed, out, OPTIONS)
    assert trained(pretended) == ALL
    fresh = tmp_path / "fresh"
    run_study(changed, fresh, OPTIONS)
    assert tables_of(fresh) == tables_of(out)


def change_recipe(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content["made_from"]["recipe"]["objective"])
    file.write_text(json.dumps(content))


def test_a_result_that_is_older_than_a_setting_counts(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    for file in (*out.glob("results/*.json"), *out.glob("cells/*/*/cell.json")):
        change_recipe(file, lambda objective: (objective.pop("global_overlap"), objective.pop("mu")))
    run_study(plan, out, OPTIONS)
    assert trained(pretended) == ALL
    other = plan_of(tmp_path, set=["training.batch_size=4", *PARTS, "objective.mu=2"])
    with pytest.raises(UserError, match=r"objective.mu \(3.0, now 2.0\)"):
        run_study(other, out, OPTIONS)


def test_options_that_no_recipe_names_are_settings_of_a_result() -> None:
    """Of an objective whose default changes, or that gains an option, since a cell was trained."""
    now = read_settings(load_recipe("demo+rival-gloria"))
    name, value = next(iter(now["objective"]["options"].items()))
    before = deepcopy(now)
    assert Origin(before, "", []).settings_that_differ(now) == []
    before["objective"]["options"][name] = 17
    assert Origin(before, "", []).settings_that_differ(now) == [f"objective.options.{name} (17, now {value})"]
    before["objective"]["options"] = {}  # as results had it that are older than this
    assert Origin(before, "", []).settings_that_differ(now) == []
    assert before["objective"]["options"] == {}


def test_what_an_objective_does_not_read_and_a_name_count_for_nothing_in_a_result() -> None:
    recipe = load_recipe("demo+rival-gloria")
    now = read_settings(recipe)
    assert not now["objective"].keys() & {"weight_report", "bank", "mu"}
    older = with_options(recipe).model_dump(mode="json")  # as results had it that are older than this
    older["objective"]["weight_report"], older["name"] = 0.25, "before"
    assert Origin(older, "", []).settings_that_differ(now) == []
    own = read_settings(load_recipe("demo"))
    changed = deepcopy(own)
    changed["objective"]["weight_report"] = 0.25
    assert Origin(changed, "", []).settings_that_differ(own) == ["objective.weight_report (0.25, now 1.0)"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"temperature": 0.2}, r"temperature \(0.2, now "),
        ({"gone": 1}, r"gone \(1, now null\)"),
        ({"gone": None}, r"gone \(null, now null\)"),
    ],
)
def test_a_result_of_another_value_or_of_a_setting_that_is_gone_is_refused(
    setting: dict[str, float | None], said: str, pretended: Path, tmp_path: Path
) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    change_recipe(out / "results" / "full-seed-0.json", lambda objective: objective.update(setting))
    with pytest.raises(UserError, match=rf"full-seed-0.json was made with other settings: objective.{said}"):
        run_study(plan, out, OPTIONS)


def test_what_has_begun_with_other_settings_or_data_is_refused(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, StudyOptions(cells=("full",), seeds=(0,), accelerator="cpu"))
    (out / "results" / "full-seed-0.json").unlink()
    with pytest.raises(UserError, match=r"seed-0 was made with other settings: training.batch_size"):
        run_study(plan_of(tmp_path, set=["training.batch_size=8", *PARTS]), out, OPTIONS)
    manifest = tmp_path / "data" / "manifest.parquet"
    manifest.write_bytes(manifest.read_bytes())
    run_study(plan_of(tmp_path), out, StudyOptions(cells=("full",), seeds=(0,), accelerator="cpu"))
    assert trained(pretended) == ["full 0"]  # the run was finished: only the judging is done again


def test_a_result_of_other_data_is_refused(pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, StudyOptions(cells=("full",), seeds=(0,), accelerator="cpu"))
    monkeypatch.setattr(run, "fingerprint", lambda *_: "other")
    with pytest.raises(UserError, match=r"full-seed-0.json was made from other data: choose another --out"):
        run_study(plan, out, OPTIONS)
    assert trained(pretended) == ["full 0"]


def test_results_of_different_data_make_no_table(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    file = out / "results" / "global-seed-1.json"
    content = json.loads(file.read_text("utf-8"))
    content["made_from"]["data"] = "others"
    file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match=r"full-seed-0.json and .*global-seed-1.json were made from different data"):
        write_study_table(plan, out)


@pytest.mark.parametrize("content", ["", "{}", '{"figures": [{}]}', "[1]", "\x00", "null"])
def test_a_damaged_result_is_named(content: str, pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    (out / "results" / "full-seed-1.json").write_text(content)
    with pytest.raises(
        UserError, match=r"full-seed-1.json is damaged .*delete it, and `cmcgns study` makes it again"
    ):
        run_study(plan, out, OPTIONS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["made_from"].update(recipe=[1]), "made_from.recipe"),
        (lambda content: content["figures"][0].update(value="much"), "figures.0.value"),
        (lambda content: content["figures"][0].update(replicates=["x"]), "figures.0.replicates"),
        (lambda content: content.update(seconds="long"), "seconds"),
        (lambda content: content.update(figures=[]), "it has no figure"),
        (lambda content: content["figures"][0]["replicates"].pop(), "different numbers of resamples"),
        (lambda content: content["figures"][0].update(value=math.nan), "linear/v1 auroc: not a number"),
        (lambda content: content["figures"][0]["replicates"].__setitem__(3, math.inf), "auroc: not a number"),
        (
            lambda content: content["figures"].append(content["figures"][0]),
            "linear/v1 auroc at 10 % is there 2 times",
        ),
        (lambda content: content.update(seed=0), "it is the result of full-seed-0"),
        (lambda content: content.update(cell="global"), "it is the result of global-seed-1"),
        (lambda content: content["made_from"].update(protocols=[[]]), "made_from.protocols.0"),
    ],
)
def test_what_is_wrong_in_a_result_is_named(
    change: Callable[[dict[str, Any]], Any], said: str, pretended: Path, tmp_path: Path
) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    run_study(plan, out, OPTIONS)
    file = out / "results" / "full-seed-1.json"
    content = json.loads(file.read_text("utf-8"))
    change(content)
    file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match=rf"(?s)full-seed-1.json is damaged .*{said}"):
        run_study(plan, out, OPTIONS)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("the loss is infinite"), "the loss is infinite"),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory"),
    ],
)
def test_a_failing_cell_loses_no_other(
    error: Exception, said: str, pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out, train = plan_of(tmp_path), tmp_path / "out", cell.pretrain

    def failing(recipe: Any, *parts: Any, **options: Any) -> None:
        if recipe.objective.weight_report == 0:
            raise error
        train(recipe, *parts, **options)

    monkeypatch.setattr(cell, "pretrain", failing)
    with pytest.raises(UserError, match=rf"(?s)2 of 4 runs failed; .*global-seed-0: {said}"):
        run_study(plan, out, OPTIONS)
    assert trained(pretended) == ["full 0", "full 1"]
    assert (out / "index.html").is_file()
    monkeypatch.setattr(cell, "pretrain", train)
    run_study(plan, out, OPTIONS)
    assert trained(pretended) == ["full 0", "full 1", "global 0", "global 1"]


def test_why_cells_fail_is_said_at_once_and_also_where_none_is_done(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def failing(*parts: Any, **options: Any) -> None:
        said.append(" ".join(capsys.readouterr().out.split()))
        raise UserError("the loss is infinite")

    monkeypatch.setattr(cell, "pretrain", failing)
    with pytest.raises(UserError, match=r"(?s)4 of 4 runs failed; .*full-seed-0: the loss is infinite"):
        run_study(plan_of(tmp_path), tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out" / "index.html").exists()
    assert "full-seed-0 failed: the loss is infinite" in said[1]
    assert "failed" not in said[0]


def test_a_full_disk_ends_the_study_and_loses_nothing(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out, write = plan_of(tmp_path), tmp_path / "out", Path.write_text

    def full(path: Path, text: str, *more: Any) -> int:
        if "global-seed-0.json" in path.name:
            raise OSError(errno.ENOSPC, "no space", str(path))
        return write(path, text, *more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"global-seed-0.json: no space is left there .*make room"):
        run_study(plan, out, OPTIONS)
    assert trained(pretended) == ["full 0", "global 0"]
    monkeypatch.setattr(Path, "write_text", write)
    run_study(plan, out, OPTIONS)
    assert trained(pretended) == ALL


def test_a_cell_in_work_elsewhere_is_passed_over(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    place = out / "cells" / "full" / "seed-0"
    place.mkdir(parents=True)
    elsewhere = claimed(place, "study")
    elsewhere.__enter__()
    monkeypatch.setattr(run.time, "sleep", lambda _: elsewhere.__exit__(None, None, None))
    run_study(plan, out, OPTIONS)
    assert trained(pretended) == ["global 0", "full 1", "global 1", "full 0"]
    assert "waiting for full-seed-0: in work elsewhere" in capsys.readouterr().out


def test_what_a_cut_off_write_has_left_is_removed(pretended: Path, tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    (out / "results").mkdir(parents=True)
    for name in (".full-seed-0.json.17-0123abcd.tmp", ".full-seed-0.json.mine"):
        (out / "results" / name).touch()
    run_study(plan, out, OPTIONS)
    assert [path.name for path in (out / "results").glob(".*")] == [".full-seed-0.json.mine"]


def test_what_another_process_has_made_meanwhile_of_other_settings_is_not_taken_over(
    pretended: Path, tmp_path: Path
) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    job, work = plan.jobs[0], cell.Work(plan, out, *study_data(plan, out), "data", "cpu")
    assert cell.do_job(work, job).state == "done"
    other = plan_of(tmp_path, set=["training.batch_size=8", *PARTS])
    for changed, said in (
        (replace(work, plan=other), "made with other settings: training.batch_size"),
        (replace(work, data="others"), "made from other data"),
    ):
        outcome = cell.do_job(changed, changed.plan.jobs[0])
        assert (outcome.state, said in outcome.message) == ("failed", True)
    assert trained(pretended) == ["full 0"]


def test_the_last_table_has_every_result(pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes a cell while this one draws a table without it, and is overtaken."""
    plan, out, write = plan_of(tmp_path), tmp_path / "out", run.write_table
    run_study(plan, out, OPTIONS)
    expected, late = tables_of(out), out / "results" / "global-seed-1.json"
    hidden = late.rename(tmp_path / "hidden")

    def slow(*arguments: Any) -> Path:
        if hidden.is_file():
            hidden.rename(late)
        return write(*arguments)

    monkeypatch.setattr(run, "write_table", slow)
    write_study_table(plan, out)
    assert tables_of(out) == expected


def test_the_data_of_a_protocol_are_part_of_its_result(tmp_path: Path) -> None:
    write_set(tmp_path / "more")
    judge = [{"protocol": "linear/v1", "fractions": [10, 100]}, {"protocol": "retrieval/v1"}]
    plan = plan_of(tmp_path)
    elsewhere = plan_of(tmp_path, judge=[judge[0], judge[1] | {"data": str(tmp_path / "more")}])
    assert [part[:4] for part in elsewhere.protocols_of("full")] == plan.protocols_of("full")
    assert elsewhere.protocols_of("full") != plan.protocols_of("full")


def test_data_are_others_when_a_cell_is_and_not_when_the_file_is(tmp_path: Path) -> None:
    plan, out = plan_of(tmp_path), tmp_path / "out"
    out.mkdir()
    train, pairs = study_data(plan, out)
    before = fingerprint(train, pairs, out)
    table = train / "manifest.parquet"
    content, frame = table.read_bytes(), pd.read_parquet(table)
    frame.to_parquet(table, compression="zstd", row_group_size=7)
    assert table.read_bytes() != content
    assert fingerprint(train, pairs, out) == before
    more = [(pairs[0][0], write_set(tmp_path / name, report=name)) for name in ("first", "second")]
    assert fingerprint(train, [*pairs, *more], out) == fingerprint(train, [more[1], *pairs, more[0]], out) != before
    frame.loc[3, "report"] += " "
    frame.to_parquet(table)
    assert fingerprint(train, pairs, out) != before


def test_fewer_labelled_studies_than_are_pretrained_on(tmp_path: Path) -> None:
    for labelled, expected in ((None, 8), (3, 3)):
        drawn = {"phantom": {"train": 8, "val": 4, "test": 5, "size": 32, "labelled": labelled}}
        plan, out = plan_of(tmp_path, data=drawn), tmp_path / f"out-{labelled}"
        out.mkdir()
        study_data(plan, out)
        data, test = (pd.read_parquet(out / part / "manifest.parquet")["split"] for part in ("data", "test"))
        assert data.value_counts().to_dict() == {"train": 8, "val": 4}
        assert test.value_counts().to_dict() == {"train": expected, "val": 4, "test": 5}


def test_an_image_that_another_processor_rounds_differently_is_the_same_drawing_but_not_the_same_prepared_image(
    tmp_path: Path,
) -> None:
    drawn = {"phantom": {"train": 8, "val": 4, "test": 8, "size": 32}}
    plan, out = plan_of(tmp_path, data=drawn), tmp_path / "out"
    out.mkdir()
    train, pairs = study_data(plan, out)
    before, elsewhere = fingerprint(train, pairs, out), fingerprint(train, pairs, tmp_path / "another")
    frame = pd.read_parquet(train / "manifest.parquet")
    frame.loc[2, "sha256"] = "0" * 64
    frame.to_parquet(train / "manifest.parquet")
    assert fingerprint(train, pairs, out) == before
    assert fingerprint(train, pairs, tmp_path / "another") != elsewhere


def test_two_judges_of_one_protocol_on_data_of_one_name_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "more")
    retrieval = {"protocol": "retrieval/v1"}
    judge = [{"protocol": "linear/v1", "fractions": [10]}, retrieval]
    plan = plan_of(tmp_path, judge=[*judge, retrieval | {"name": "again", "data": str(tmp_path / "more")}])
    with pytest.raises(
        UserError, match=r"judge: the figures of retrieval/v1 and again would have one name, retrieval-v1@"
    ):
        study_data(plan, tmp_path)


@pytest.mark.parametrize(
    "more", [["--cells", "full"], ["--seeds", "0"], ["--dry-run"], ["--engine", "ray"], ["--accelerator", "cpu"]]
)
def test_options_beside_table_only_are_refused(more: list[str], tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["study", "smoke", "--out", str(tmp_path), "--table-only", *more])
    assert answer.exit_code == 1
    assert isinstance(answer.exception, UserError)
    assert "--table-only: the table is of all results" in str(answer.exception)


def test_two_processes_share_a_folder(pretended: Path, tmp_path: Path) -> None:
    study, out, log = write_study(tmp_path), tmp_path / "out", pretended
    with ThreadPoolExecutor() as both:
        ends = list(both.map(lambda _: in_child(do_study, study, out, log, 0.3), range(2)))
    assert ends == [0, 0]
    assert sorted(trained(log)) == sorted(ALL)
    assert len(results_of(out)) == 4
    before = tables_of(out)
    write_study_table(plan_of(tmp_path), out)
    assert tables_of(out) == before


def test_kills_lose_no_finished_cell_and_repeat_none(tmp_path: Path) -> None:
    study, whole, out = write_study(tmp_path, seeds=[0]), tmp_path / "whole", tmp_path / "out"
    assert in_child(do_study, study, whole, tmp_path / "whole.log") == 0
    finished: dict[str, int] = {}
    for moment in range(1, MOMENTS + 1):  # each life gets one moment further than the one before
        assert in_child(do_study, study, out, tmp_path / "trained.log", 0.0, 1 if moment == 5 else moment) < 0
        now = {file.name: file.stat().st_mtime_ns for file in (out / "results").glob("*.json")}
        assert finished.items() <= now.items()
        finished = now
    assert in_child(do_study, study, out, tmp_path / "trained.log") == 0
    assert sorted(trained(tmp_path / "trained.log")) == ["full 0", "global 0"]
    assert results_of(out) == results_of(whole)
    assert tables_of(out) == tables_of(whole)
    assert not [path for path in out.rglob(".*") if path.is_file()]


class FakeRay:
    """As much of Ray as is used, in this process; what `killed` names never comes back."""

    class exceptions:
        """Ray's."""

        RayError = type("RayError", (Exception,), {})
        RayTaskError = type("RayTaskError", (RayError,), {})

    def __init__(self, killed: str = "") -> None:
        self.asked: list[dict[str, Any]] = []
        self.killed = killed

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": 2}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, function: Any) -> Any:
        fake = self

        class Remote:
            def options(self, **options: Any) -> "Remote":
                fake.asked.append(options)
                return self

            def remote(self, shared: Any, job: Any) -> Any:
                return lambda: function(shared, job) if job.name != fake.killed else fake.kill()

        return Remote()

    def kill(self) -> None:
        raise self.exceptions.RayError("out of\n memory")

    def wait(self, running: list[Any]) -> tuple[list[Any], list[Any]]:
        return running[:1], running[1:]

    def get(self, reference: Any) -> Any:
        return reference()


@pytest.mark.parametrize(("accelerator", "asked"), [("cpu", {}), ("auto", {"num_gpus": 1})])
def test_ray_does_the_same_work(
    accelerator: str, asked: dict[str, int], pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    run_study(plan_of(tmp_path), tmp_path / "out", StudyOptions(engine="ray", accelerator=accelerator))
    assert trained(pretended) == ALL
    assert fake.asked == [asked]


def test_a_process_that_ray_loses_costs_its_cell_alone(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay("full-seed-0"))
    with pytest.raises(UserError, match=r"1 of 4 runs failed.*\n +full-seed-0: out of memory"):
        run_study(plan_of(tmp_path), tmp_path / "out", StudyOptions(engine="ray"))
    assert sorted(trained(pretended)) == sorted(set(ALL) - {"full 0"})


def test_ray_is_named_where_it_is_missing(pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'cmcgns\[ray\]'"):
        run_study(plan_of(tmp_path), tmp_path / "out", StudyOptions(engine="ray"))


def test_table_json_is_the_table(pretended: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_study(plan_of(tmp_path), out, OPTIONS)
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert [(row["title"], row["cell"]) for row in rows] == [
        ("AUROC", "full"), ("AUROC", "global"), ("R@10", "full"), ("R@10", "global"),
    ]  # fmt: skip
    assert rows[1]["difference"] is None
    assert rows[0]["shared"] == 2
    assert rows[0]["low"] < rows[0]["difference"] < rows[0]["high"]
