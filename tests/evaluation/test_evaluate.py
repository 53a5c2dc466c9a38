"""The harness: cells are kept one by one, finished ones are not run again, a failure loses nothing else."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from cmcgns.common.errors import UserError
from cmcgns.common.files import explained
from cmcgns.evaluation import figures
from cmcgns.evaluation import run as harness
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.figures import figures_of
from cmcgns.evaluation.protocols import Cell, load_protocol
from cmcgns.evaluation.results import cells_of, read_predictions
from cmcgns.evaluation.run import EvaluateOptions, Outcome, device_of, progress_bars, run_protocols
from cmcgns.evaluation.select import choose
from cmcgns.reporting.evaluation import command
from support.evaluation import PretendTask, tiny_encoder, tiny_run, write_set

NAME = "linear/v1@mine"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "data")


def run(
    task: PretendTask, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, encoder=None, overrides=(), **options
) -> Outcome:
    for module in (harness, figures):
        monkeypatch.setattr(module, "get_task", lambda name: task)
    pairs = choose("linear/v1", [data], overrides)
    options = EvaluateOptions(**{"fractions": (50.0, 100.0), "seeds": 2, **options})
    with progress_bars(Console(quiet=True)) as progress:
        return run_protocols(encoder or tiny_encoder(), pairs, out, options, progress)


def test_every_cell_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run(PretendTask(), data, tmp_path / "out", monkeypatch)
    assert (outcome.failures, outcome.skipped) == ([], [])
    cells = cells_of(tmp_path / "out", NAME)
    assert [cell.name for cell in cells] == [f"{f}-percent-seed-{s}" for f in (50, 100) for s in (0, 1)]
    assert read_predictions(tmp_path / "out", NAME, cells[0]).facts == {"rows": 6}


def test_finished_cells_are_not_run_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    run(PretendTask(), data, tmp_path / "out", monkeypatch, encoder)
    (tmp_path / "out" / "cells" / "linear-v1@mine" / "50-percent-seed-1.json").unlink()
    second = PretendTask()
    run(second, data, tmp_path / "out", monkeypatch, encoder)
    assert second.ran == ["50-percent-seed-1"]


@pytest.mark.parametrize("change", ["labels", "protocol", "image"])
def test_a_change_makes_cells_stale(change: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, overrides = tiny_encoder(), ()
    run(PretendTask(), data, tmp_path / "out", monkeypatch, encoder, ("notes=[a]",))
    if change == "labels":
        write_set(data, label_Edema=1)
    elif change == "image":
        write_set(data, sha256=[f"{number:064d}" for number in range(26)])
    overrides = ("notes=[a]",) if change != "protocol" else ("image_size=48",)
    task = PretendTask()
    run(task, data, tmp_path / "out", monkeypatch, encoder, overrides)
    assert len(task.ran) == 4


def test_a_mask_that_was_drawn_anew_gives_a_new_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, encoder, out = write_set(tmp_path / "data", mask_path="mask.png"), tiny_encoder(), tmp_path / "out"
    small = ["settings.epochs=1", "settings.shortest_epoch=1", "settings.unet_channels=[8]"]
    truths = []
    for rows in (24, 8, 8):
        mask = np.zeros((32, 32), np.uint8)
        mask[:rows] = 255
        Image.fromarray(mask).save(data / "mask.png")
        pairs = choose("segmentation/v1", [data], small)
        with progress_bars(Console(quiet=True)) as progress:
            outcome = run_protocols(encoder, pairs, out, EvaluateOptions((100.0,), 1), progress)
        assert outcome.failures == outcome.skipped == []
        (name,) = outcome.protocols
        truths.append(read_predictions(out, name, Cell(100.0, 0)).arrays["truth"].tolist())
    assert truths == [[24 * 32] * 8, [8 * 32] * 8, [8 * 32] * 8]


def test_a_failing_cell_loses_no_other(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    outcome = run(PretendTask({"50-percent-seed-1"}), data, tmp_path / "out", monkeypatch, encoder)
    assert [(name, cell) for name, cell, _ in outcome.failures] == [(NAME, "50-percent-seed-1")]
    assert "cannot do" in outcome.failures[0][2]
    assert len(cells_of(tmp_path / "out", NAME)) == 3
    again = PretendTask()
    assert run(again, data, tmp_path / "out", monkeypatch, encoder).failures == []
    assert again.ran == ["50-percent-seed-1"]


def test_a_full_disk_ends_all(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next cell would be computed for nothing; what is done stays."""
    kept, write = [], harness.write_predictions

    def refused(*parts: object) -> None:
        if kept:
            with explained(tmp_path):
                raise OSError(errno.ENOSPC, "full")
        kept.append(write(*parts))

    monkeypatch.setattr(harness, "write_predictions", refused)
    task = PretendTask()
    with pytest.raises(UserError, match="no space is left"):
        run(task, data, tmp_path / "out", monkeypatch)
    assert len(task.ran) == 2
    assert len(cells_of(tmp_path / "out", NAME)) == 1


def test_an_image_that_may_not_be_read_ends_its_protocol_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidden(PretendTask):
        def run(self, job):
            raise PermissionError(errno.EACCES, "no right", "picture.png")

    outcome = run(Forbidden(), data, tmp_path / "out", monkeypatch)
    assert len(outcome.failures) == 4


def test_what_the_runs_validation_chose_belongs_to_its_hash() -> None:
    """Else figures of its default map would pass for those of another map."""
    encoder = tiny_run()
    first = encoder.sha256, encoder.features_sha256
    encoder.run.scores = replace(encoder.run.scores, map="patches")
    again = FrozenEncoder("the same", encoder.encoder, encoder.image_size, encoder.resize, pretrained=encoder.run)
    assert (again.sha256 == first[0], again.features_sha256 == first[1]) == (False, True)


def test_a_task_that_moves_the_encoder_is_caught(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall: frozen encoders whose BatchNorm moved."""

    class Mover(PretendTask):
        def run(self, job):
            job.encoder.encoder.train()
            job.encoder.encoder(torch.rand(4, 1, 32, 32))
            job.encoder.encoder.eval()
            yield from super().run(job)

    outcome = run(Mover(), data, tmp_path / "out", monkeypatch)
    assert "frozen encoder was changed" in outcome.failures[0][2]


def test_a_folder_belongs_to_one_encoder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    run(PretendTask(), data, tmp_path / "out", monkeypatch)
    torch.manual_seed(1)
    with pytest.raises(UserError, match=r"other weights.*compare"):
        run(PretendTask(), data, tmp_path / "out", monkeypatch)


def test_what_cannot_be_done_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lacking(PretendTask):
        def lacks(self, data, encoder):
            return "no boxes"

    outcome = run(Lacking(), data, tmp_path / "out", monkeypatch)
    assert outcome.skipped == [(NAME, "no boxes")]


def test_protocols_that_cannot_be_done_for_one_reason_share_a_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--protocol all` with an encoder alone: zero-shot, retrieval and grounding all lack the report encoder."""
    names, console = "zero-shot/v1,detection/v1,retrieval/v1,grounding/v1", Console(width=400, highlight=False)
    judgement = command.judge_encoder(
        tiny_encoder(), choose(names, [data]), tmp_path / "out", EvaluateOptions(), console
    )
    reason = "tiny has no report encoder (only a run or an image-text pair has one)"
    together = "zero-shot/v1@mine, retrieval/v1@mine, grounding/v1@mine"
    assert judgement.outcome.skipped == [(together, reason), ("detection/v1@mine", "no boxes are annotated")]
    command.print_judgement(judgement, console)
    printed = capsys.readouterr().out
    assert printed.count(reason) == 1
    assert f"skipped {together}: {reason}" in printed
    assert reason in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_figures_have_seeds_means_and_subgroups(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(data, counts=(12, 6, 60))
    run(PretendTask(), data, tmp_path / "out", monkeypatch)
    rows = figures_of(tmp_path / "out", resamples=100)
    mean = next(row for row in rows if row.seed is None and not row.group and row.fraction == 50)
    assert mean.value == pytest.approx(0.55)  # half of the labels are 1; seeds add 0 and 0.1
    assert (mean.n, mean.patients, mean.seeds) == (60, 60, 2)
    assert mean.low < mean.value < mean.high
    assert mean.sd == pytest.approx(0.1 / 2**0.5)
    alone = {row.seed: row.value for row in rows if row.seed is not None and row.fraction == 50}
    assert alone == {0: pytest.approx(0.5), 1: pytest.approx(0.6)}
    women = next(row for row in rows if row.group == "sex=F" and row.fraction == 50)
    assert (women.n, women.value) == (30, pytest.approx(1.05))


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("rsna-linear/v1", "needs rsna; --data names"),
        ("rsna-liner/v1", "Did you mean rsna-linear/v1"),
        ("", "name protocols"),
    ],
)
def test_a_wrong_choice_is_explained(protocol: str, message: str, data: Path) -> None:
    with pytest.raises(UserError, match=message):
        choose(protocol, [data])


def test_all_means_the_datasets_own_protocols_and_the_general_ones(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rsna", "rsna", split_rule="v1")
    names = [protocol.id for protocol, _ in choose("all", [folder])]
    assert {"rsna-linear/v1", "rsna-detection/v1", "rsna-segmentation/v1", "knn/v1", "zero-shot/v1"} <= set(names)
    assert not [name for name in names if name.startswith(("linear", "detection", "segmentation", "nih", "siim"))]
    assert not [name for name in names if "legacy" in name]


def test_cells_of_earlier_data_are_not_shown(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for some fractions on changed data must not leave the others of the old data in the table."""
    encoder = tiny_encoder()
    run(PretendTask(), data, tmp_path / "out", monkeypatch, encoder)
    write_set(data, counts=(12, 6, 10))
    run(PretendTask(), data, tmp_path / "out", monkeypatch, encoder, fractions=(100.0,))
    assert {(row.fraction, row.n) for row in figures_of(tmp_path / "out", resamples=50) if not row.group} == {
        (100, 10)
    }


def test_cells_of_a_moved_encoder_are_not_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mover(PretendTask):
        def run(self, job):
            yield from super().run(job)
            next(job.encoder.encoder.parameters()).data += 1

    outcome = run(Mover(), data, tmp_path / "out", monkeypatch)
    assert "frozen encoder was changed" in outcome.failures[0][2]
    assert cells_of(tmp_path / "out", NAME) == []


def test_where_all_failed_there_are_no_figures(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "images" / "21.png").unlink()
    outcome = run(PretendTask(), data, tmp_path / "out", monkeypatch)
    assert "21.png" in outcome.failures[0][2]
    assert figures_of(tmp_path / "out") == []


def test_one_protocols_figures_do_not_lose_the_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(PretendTask(), data, tmp_path / "out", monkeypatch)
    other = tmp_path / "out" / "cells" / "other-v1@mine"
    shutil.copytree(tmp_path / "out" / "cells" / "linear-v1@mine", other)
    record = json.loads((other / "protocol.json").read_text())
    (other / "protocol.json").write_text(json.dumps(record | {"protocol": "other/v1@mine"}))
    (other / "100-percent-seed-1.npz").write_bytes(b"damaged")
    outcome = Outcome()
    rows = figures_of(tmp_path / "out", outcome.failures)
    assert {row.protocol for row in rows} == {NAME}
    assert [(name, cell) for name, cell, _ in outcome.failures] == [("other/v1@mine", "figures")]
    assert "100-percent-seed-1.npz is damaged" in outcome.failures[0][2]


def test_results_of_one_name_would_overwrite_each_other(tmp_path: Path) -> None:
    first, second = write_set(tmp_path / "a"), write_set(tmp_path / "b")
    with pytest.raises(UserError, match=r"a and .*b both hold mine.*--out"):
        choose("linear/v1", [first, second])
    for name, more in (("one", ""), ("two", "seeds: 2\n")):
        (tmp_path / f"{name}.yaml").write_text(f"base: linear/v1\nid: same/v1\n{more}")
    with pytest.raises(UserError, match=r"two protocols \(same/v1\) would have one name, same-v1@mine"):
        choose(f"{tmp_path / 'one.yaml'},{tmp_path / 'two.yaml'}", [first])
    assert len(choose("linear/v1", [first, first])) == 1
    alike = write_set(tmp_path / "c", "site-a"), write_set(tmp_path / "d", "site_a")  # one folder of cells for both
    with pytest.raises(UserError, match="both hold site-a and site_a"):
        choose("linear/v1", alike)


def test_data_without_a_name_is_called_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = write_set(tmp_path / "a", ""), write_set(tmp_path / "nih", "")
    assert [folder for _, folder in choose("linear/v1", [first, second])] == [first, second]
    with pytest.raises(UserError, match="both hold nih"):
        choose("linear/v1", [second, write_set(tmp_path / "named", "nih")])
    monkeypatch.chdir(first)
    assert TaskData(load_protocol("linear/v1"), Path(), 32, 32).name == "linear/v1@a"


def test_all_runs_general_protocols_on_the_v1_copy(tmp_path: Path) -> None:
    copies = {rule: write_set(tmp_path / rule, "rsna", split_rule=rule) for rule in ("legacy", "v1")}
    chosen = choose("all", list(copies.values()))
    assert {folder for protocol, folder in chosen if protocol.id == "knn/v1"} == {copies["v1"]}
    assert {folder for protocol, folder in chosen if protocol.id == "rsna-linear/legacy"} == {copies["legacy"]}
    alone = choose("all", [copies["legacy"]])
    assert "knn/v1" in [protocol.id for protocol, _ in alone]


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:99", "cpu:1", "cuda:-1"])
def test_a_wrong_device_is_explained(device: str) -> None:
    with pytest.raises(UserError, match=f"--device {device}: "):
        device_of(device)
    assert device_of("cpu") == "cpu"


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_that_cannot_be_written_is_named(
    out: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"--out .*{out}\\b"):
        run(PretendTask(), data, tmp_path / out, monkeypatch)


def test_the_terminal_says_leakage_and_why_there_is_no_interval(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(data, patient_id="everyone")
    monkeypatch.setenv("COLUMNS", "300")
    encoder, options = tiny_encoder(), EvaluateOptions((100.0,), 1, allow_leakage=True)
    for module in (harness, figures):
        monkeypatch.setattr(module, "get_task", lambda name: PretendTask())
    console = Console(width=300, highlight=False)
    judgement = command.judge_encoder(encoder, choose("linear/v1", [data]), tmp_path / "out", options, console)
    command.print_judgement(judgement, console)
    printed = capsys.readouterr().out
    assert f"{NAME}: LEAKAGE, of 8 test images 8 (of 1 patients; 8 by patient" in printed
    assert f"{NAME} (100 %): " in printed


def test_an_interruption_says_how_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(PretendTask):
        def run(self, job):
            yield next(super().run(job))
            raise KeyboardInterrupt

    encoder, pairs, options = tiny_encoder(), choose("linear/v1", [data]), EvaluateOptions((50.0, 100.0), 1)
    for module in (harness, figures):
        monkeypatch.setattr(module, "get_task", lambda name: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        command.judge_encoder(encoder, pairs, tmp_path / "out", options, Console(width=300))
    assert "the same command goes on" in capsys.readouterr().out
    assert [cell.name for cell in cells_of(tmp_path / "out", NAME)] == ["50-percent-seed-0"]


def test_an_unknown_primary_figure_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As results of a task that once made other figures: the predictions are kept, and stay of use."""
    run(PretendTask(), data, tmp_path / "out", monkeypatch, overrides=("primary=auprc",))
    rows = [row for row in figures_of(tmp_path / "out", resamples=50) if row.primary]
    assert {row.metric for row in rows} == {"mean"}
    assert all(
        "auprc was not judged; of task linear there are mean" in row.note for row in rows if row.value is not None
    )
