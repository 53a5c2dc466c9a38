"""Whether a folder is free, a run, or neither: one judgement, also of what a kill leaves at any moment."""

import errno
import logging
from contextlib import suppress
from pathlib import Path

import pytest

from cmcgns.common import files
from cmcgns.common.claim import LOCK
from cmcgns.common.errors import UserError
from cmcgns.settings.recipe import parse_recipe
from cmcgns.training.journal import MetricsLog, read_metrics
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.start import claimed_run, find_start, nothing_lost
from support.training import SETTINGS, run, tiny_recipe


class Killed(BaseException):
    """Nothing catches it."""


def refusals(folder: RunFolder) -> dict[str, str]:
    """What a start and `--resume` are refused with."""
    found = {}
    for name, resume in (("start", False), ("resume", True)):
        try:
            with claimed_run(folder, resume):
                find_start(folder, tiny_recipe(), resume)
        except UserError as error:
            found[name] = str(error)
    return found


def test_an_option_that_no_recipe_names_is_a_setting_of_the_run(studies: Path, tmp_path: Path) -> None:
    """A run goes on with what it has begun with, also where a default is another one by then."""
    objective = {"objective": {"name": "siglip", "dim": 32}}
    run(studies, tmp_path / "run", parse_recipe(SETTINGS | objective, "tiny"))
    kept = RunFolder(tmp_path / "run").read_recipe()
    assert kept.objective.options == {"bias": -10.0}
    assert find_start(RunFolder(tmp_path / "run"), kept, resume=True) is not None
    objective["objective"]["options"] = {"bias": -3.0}
    with pytest.raises(UserError, match=r"differs in objective.options.bias \(-10.0, now -3.0\)"):
        run(studies, tmp_path / "run", parse_recipe(SETTINGS | objective, "tiny"), resume=True)


@pytest.mark.parametrize("after", range(4))
def test_a_start_that_is_killed_leaves_a_folder_to_start_in_or_to_resume(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of its files, each also with what was not yet in place."""
    folder, written = RunFolder(tmp_path / "run"), []
    folder.path.mkdir()
    whole = files.write_atomically

    def write(path: Path, *rest: object, **options: object) -> None:
        if len(written) == after:
            path.with_name(f".{path.name}.77-0123abcd.tmp").write_text("half")
            raise Killed
        whole(path, *rest, **options)  # type: ignore[arg-type]
        written.append(path.name)

    (folder.path / LOCK).touch()
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", write)
        with suppress(Killed):
            folder.create(tiny_recipe(), None)
            folder.write_provenance({"seed": 1})
    found = refusals(folder)
    if "config.yaml" in written:
        assert list(found) == ["start"]
        assert "holds a run already: go on with --resume" in found["start"]
    else:
        assert list(found) == ["resume"]
        assert "holds no run yet: leave out --resume" in found["resume"]
    assert not list(folder.path.rglob("*.tmp"))


def test_what_is_no_run_is_neither_started_in_nor_resumed(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").touch()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "step-00000004.safetensors").touch()
    found = refusals(RunFolder(tmp_path))
    assert "no run (no config.yaml): choose another folder" in found["start"]
    assert "config.yaml is missing. If there was one, write it again: `cmcgns recipes RECIPE >" in found["resume"]


def test_a_torn_config_is_named_with_the_way_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(tiny_recipe(), None)
    content = folder.config.read_text()
    for length in range(0, len(content) - 200, 97):
        folder.config.write_text(content[:length])
        with pytest.raises(UserError, match=r"config\.yaml"):
            folder.read_recipe()
    folder.config.write_text(content[: content.index("objective:")])
    with pytest.raises(UserError, match=r"config\.yaml is damaged \(objective.*training missing\): write it ag"):
        folder.read_recipe()
    for wrong in ("5", "[a]", "{name: 5}", "{name: [1]}", "null"):
        folder.config.write_text(f"{content[: content.index('objective:')]}objective: {wrong}\n{_behind(content)}")
        with pytest.raises(UserError, match=r"config\.yaml:\s+objective"):
            folder.read_recipe()
    folder.config.write_text(content)
    assert folder.read_recipe() == tiny_recipe()


def _behind(content: str) -> str:
    """What follows the objective in a config.yaml."""
    return content[content.index("\nalignment:") + 1 :]


def test_torn_records_are_named_with_the_way_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(tiny_recipe(), None)
    folder.report_encoder.write_text('{"hidden_size": 3')
    with pytest.raises(UserError, match=r"report_encoder\.json is damaged .*: take that of another run"):
        folder.read_report_config()
    folder.provenance.write_text('{"init": nu')
    with pytest.raises(UserError, match=r"provenance\.json is damaged .*: put it back from a copy; or take it away"):
        folder.read_provenance()
    folder.provenance.unlink()
    assert folder.read_provenance() == {}
    with pytest.raises(UserError, match=r"provenance\.json is missing, which says what the run started from"):
        folder.read_init()


def test_a_full_disk_during_the_run_says_how_it_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(OSError, match="full"), nothing_lost(folder):  # no run yet: nothing to go on with
        raise OSError(errno.ENOSPC, "full")
    folder.create(tiny_recipe(), None)
    with pytest.raises(UserError, match=r"no space is left there .*goes on from its beginning"), nothing_lost(folder):
        raise OSError(errno.ENOSPC, "full")
    for step in (4, 12):
        (folder.state / f"step-{step:08}.safetensors").touch()
    message = r"metrics\.jsonl: no space is left .*Nothing is lost: with --resume the run goes on from step-00000012"
    with pytest.raises(UserError, match=message), nothing_lost(folder):
        raise OSError(errno.ENOSPC, "full", str(folder.metrics))
    with pytest.raises(RuntimeError, match="a bug"), nothing_lost(folder):
        raise RuntimeError("a bug")
    with pytest.raises(UserError, match="another process of the run has ended"), nothing_lost(folder):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [::1]:1192: Connection reset by peer.")


def test_a_log_is_cut_at_whole_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = ['{"kind": "train", "step": 1}\n', '{"kind": "train", "step": 2}\n']
    noted = len("".join(lines))
    for content, kept in (
        ("".join(lines), 2),
        ("".join(lines) + '{"kind": "tr', 2),
        ("".join(lines)[:-1], 1),
        (lines[0] + '{"ki', 1),
        (lines[0], 1),
        ("", 0),
    ):
        path.write_text(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            log = MetricsLog(path, noted)
        log.write("event", step=3)
        log.close()
        assert path.read_text() == "".join(lines[:kept]) + '{"kind": "event", "step": 3}\n'
        assert [record["step"] for record in read_metrics(path)] == [*range(1, kept + 1), 3]
        assert ("bytes of what the run has logged are lost" in caplog.text) == (kept < 2)
