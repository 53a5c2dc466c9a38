"""A file is either whole or not there."""

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.common.files import (
    explain,
    explained,
    inside,
    make_folder,
    read_arrays,
    sha256,
    write_arrays,
    write_atomically,
    write_json,
    write_text,
)


def test_content_arrives_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "größe\n")
    assert path.read_bytes() == "größe\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def check(temporary: Path) -> None:
        assert temporary != path
        assert temporary.parent == path.parent, "a rename across file systems would not be atomic"
        temporary.write_text("new")
        assert path.read_text() == "old"

    write_atomically(path, check)
    assert path.read_text() == "new"


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync") or fsync(handle))
    monkeypatch.setattr(Path, "replace", lambda *a: calls.append("replace") or replace(*a))
    write_text(tmp_path / "a.txt", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_others_may_read_as_the_umask_says(tmp_path):
    def private(temporary: Path) -> None:
        temporary.write_text("x")
        temporary.chmod(0o600)

    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", private)
        assert os.umask(0o027) == 0o027, "the umask is as before"
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_json_is_readable_and_hashes_are_those_of_the_content(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"größe": [1, None], "path": Path("x")})
    assert json.loads(path.read_text("utf-8")) == {"größe": [1, None], "path": "x"}
    assert "größe" in path.read_text("utf-8")
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_inside_follows_links_and_refuses_those_that_leave(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "a.png").touch()
    (root / "good.png").symlink_to("a.png")
    (root / "bad.png").symlink_to(elsewhere / "secret.png")
    (root / "folder").symlink_to(elsewhere)
    (tmp_path / "root_too").symlink_to(root)
    assert inside(root, root / "good.png") == (root / "a.png").resolve()
    assert inside(tmp_path / "root_too", root / "a.png") == (root / "a.png").resolve()
    for name in ("bad.png", "folder/b.png", "../elsewhere/b.png"):
        with pytest.raises(UserError, match=f"{Path(name).name}: leads out of"):
            inside(root, root / name)


def test_inside_survives_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert not inside(tmp_path, tmp_path / "loop.png").exists()


def test_arrays_are_read_back_or_count_as_none(tmp_path: Path) -> None:
    file, numbers = tmp_path / "a.npz", np.arange(5)
    assert read_arrays(file, "a") is None
    write_arrays(file, {"a": numbers, "b": numbers > 2})
    found = read_arrays(file, "b", "a")
    assert found is not None
    np.testing.assert_array_equal(found[0], numbers > 2)
    np.testing.assert_array_equal(found[1], numbers)
    assert read_arrays(file, "a", "c") is None
    whole = file.read_bytes()
    for torn in (b"", whole[:100], whole[:-30], b"PK\x03\x04 no zip", b"\x93NUMPY"):
        file.write_bytes(torn)
        assert read_arrays(file, "a") is None


def test_a_full_disk_is_named_with_the_file_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fill_disk(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"a\.txt: no space is left there \([\d,]+ bytes are free\); make room"):
        write_atomically(path, fill_disk)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["file/below", "file", "n" * 300])
def test_a_folder_that_cannot_be_made_is_named_with_its_option_before_any_work(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=rf"--out .*{name[:20]}.*cannot be written \(.+\); choose another place"):
        make_folder(tmp_path / name)


def test_a_trial_that_another_process_removes_meanwhile_is_no_fault(tmp_path, monkeypatch):
    """Whoever claims the folder at this moment takes the trial for a left-over."""
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda path: (touch(path), path.unlink()))
    make_folder(tmp_path / "a")
    assert not list((tmp_path / "a").iterdir())


def test_what_is_only_read_needs_no_other_place(tmp_path):
    error = PermissionError(errno.EACCES, "Permission denied")
    assert explain(error, tmp_path / "a", "read").endswith("cannot be read (this user has no right to it)")
    assert explain(error, tmp_path / "a").endswith("choose another place")


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


def test_only_what_the_user_can_mend_becomes_a_message():
    with pytest.raises(UserError), explained("x"):
        raise OSError(errno.EROFS, "read-only")
    with pytest.raises(OSError, match="broken pipe"), explained("x"):
        raise OSError(errno.EPIPE, "broken pipe")
