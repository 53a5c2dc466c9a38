"""One process at a time in a folder; the lock of a process that is gone is gone as well."""

import errno
import multiprocessing
import signal
import subprocess
import sys
import time

import pytest

from cmcgns.common.claim import LOCK, claimed
from cmcgns.common.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from cmcgns.common.claim import claimed
with claimed(Path(sys.argv[1]), "pretrain"):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"mine\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_told_who_the_first_is(tmp_path, holder):
    told = rf"{tmp_path}: `cmcgns pretrain` \(process {holder.pid} on .+, since 20.+\) works in it"
    with pytest.raises(UserError, match=told), claimed(tmp_path, "pretrain"):
        pass


def test_a_killed_process_leaves_no_claim(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with claimed(tmp_path, "pretrain"):
        assert [file.name for file in tmp_path.iterdir()] == [LOCK]
    assert not list(tmp_path.iterdir())


def test_a_claim_in_the_same_process_counts_as_well(tmp_path):
    with claimed(tmp_path, "prepare"), pytest.raises(UserError, match="cmcgns prepare"), claimed(tmp_path, "check"):
        pass
    with claimed(tmp_path, "prepare"):
        pass


def test_a_full_disk_is_a_message_and_leaves_no_claim(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(UserError, match="no space is left there"), claimed(tmp_path, "prepare"):
        pass
    monkeypatch.undo()
    with claimed(tmp_path, "prepare"):
        pass


def test_the_cache_below_a_folder_is_left_to_its_writers(tmp_path, monkeypatch):
    """An array that another process is filling there is no left-over."""
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "cache"))
    names = [tmp_path / "cache" / ".a.npy.1-00000000.tmp", tmp_path / "state" / ".a.json.1-00000000.tmp"]
    for name in names:
        name.parent.mkdir()
        name.touch()
    with claimed(tmp_path, "prepare"):
        pass
    assert [name.exists() for name in names] == [True, False]


def test_a_failure_gives_the_folder_back(tmp_path):
    with pytest.raises(KeyError), claimed(tmp_path, "prepare"):
        raise KeyError
    with claimed(tmp_path, "prepare"):
        pass


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    with claimed(tmp_path, "prepare"):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
    try:
        with claimed(tmp_path, "prepare"):
            assert worker.is_alive()
    finally:
        worker.kill()
        worker.join()


def test_a_folder_that_is_not_there_is_made(tmp_path):
    with claimed(tmp_path / "new" / "out", "prepare"):
        assert (tmp_path / "new" / "out" / LOCK).is_file()
    assert not list((tmp_path / "new" / "out").iterdir())


@pytest.mark.parametrize(("option", "named"), [("--out", "--out "), ("", "")])
def test_a_folder_that_cannot_be_made_is_named_with_its_option(tmp_path, option, named):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "below"
    with pytest.raises(UserError, match=f"^{named}{place}: cannot be written"), claimed(place, "prepare", option):
        pass


def test_what_writers_that_are_gone_have_left_is_removed(tmp_path):
    """But not what may be written by the holder of a claim further down, and nothing of another name."""
    left, names = [], (".image.png.71-0123abcd.tmp", ".71-0123abcd.tmp")
    for folder in (".", "state", "cells/task", "run", "run/state"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        left += [tmp_path / folder / name for name in names]
    others = [tmp_path / ".mine.tmp", tmp_path / "image.71-0123abcd.tmp", tmp_path / "state" / ".cache-0123abcd"]
    for file in (*left, *others):
        file.touch()
    with claimed(tmp_path / "run", "pretrain"):
        below = [file for file in left if tmp_path / "run" in file.parents]
        assert not any(file.exists() for file in below)
        for file in below:
            file.touch()
        with claimed(tmp_path, "demo"):
            assert [file for file in left if file.exists()] == below
    assert all(file.exists() for file in others)
