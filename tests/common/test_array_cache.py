"""An array is computed once, whoever asks for it, and what is not whole is made again."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cmcgns.common import array_cache
from cmcgns.common.array_cache import _one_at_a_time, cached_array
from cmcgns.common.errors import UserError

SHAPE = (5, 3)


def ones(array, rows):
    array[list(rows)] = 1


def never(*_):
    pytest.fail("the array was there")


def test_an_array_is_made_once_and_is_read_only(tmp_path):
    file = tmp_path / "new" / "a.npy"
    made = cached_array(file, SHAPE, np.float32, ones)
    assert isinstance(made, np.memmap)
    assert not made.flags.writeable
    for array in (made, cached_array(file, SHAPE, np.float32, never), np.load(file)):
        np.testing.assert_array_equal(array, np.ones(SHAPE, np.float32))
    assert [path.name for path in file.parent.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (1,)])
def test_arrays_of_any_size(tmp_path, shape):
    cached_array(tmp_path / "a.npy", shape, np.uint8, ones)
    assert cached_array(tmp_path / "a.npy", shape, np.uint8, never).shape == shape


def test_fields_are_kept(tmp_path):
    kind = np.dtype([("a", np.float16, (2, 2)), ("b", "S4")])
    cached_array(tmp_path / "a.npy", (3,), kind, lambda array, _: array["b"].__setitem__(slice(None), b"x"))
    assert cached_array(tmp_path / "a.npy", (3,), kind, never)["b"].tolist() == [b"x"] * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],  # the mark
        lambda content: content[:-40],
        lambda content: content[: len(content) // 2],
        lambda content: content[:5],
        lambda content: b"",
        lambda content: b"PK" + content[2:],
        lambda content: bytes(len(content)),
    ],
)
def test_pitfall_files_a_damaged_array_is_made_again_and_the_log_says_so(tmp_path, caplog, damage):
    file = tmp_path / "a.npy"
    cached_array(file, SHAPE, np.uint8, ones)
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(cached_array(file, SHAPE, np.uint8, ones), np.ones(SHAPE))
    assert caplog.messages == [f"{file}: damaged or not finished; it is made again"]
    cached_array(file, SHAPE, np.uint8, never)


@pytest.mark.parametrize(("shape", "kind"), [((5, 4), np.uint8), (SHAPE, np.int8), ((15,), np.uint8)])
def test_an_array_of_another_kind_is_not_taken_for_it(tmp_path, shape, kind):
    cached_array(tmp_path / "a.npy", shape, kind, ones)
    found = cached_array(tmp_path / "a.npy", SHAPE, np.uint8, ones)
    assert (found.shape, found.dtype) == (SHAPE, np.uint8)


def test_rows_that_could_not_be_filled_are_asked_for_again_and_no_others(tmp_path):
    file, asked = tmp_path / "a.npy", []
    for gaps, expected in (({1, 4, 3}, [0, 1, 2, 3, 4]), ({3}, [1, 3, 4]), ({3}, [3]), ((), [3])):

        def fill(array, rows, gaps=gaps):
            asked.append(list(rows))
            array[[row for row in rows if row not in gaps]] = 1
            return gaps

        array = cached_array(file, SHAPE, np.uint8, fill)
        assert asked.pop() == expected
        assert np.flatnonzero(array[:, 0] == 0).tolist() == sorted(gaps)
    cached_array(file, SHAPE, np.uint8, never)


def test_an_array_that_another_process_removes_at_once_is_made_again(tmp_path, monkeypatch):
    """Of two that join the same blocks, the faster one removes them while the slower one is about to read."""
    file, made, make = tmp_path / "a.npy", [], array_cache._make

    def make_and_lose(*arguments):
        make(*arguments)
        made.append(file.exists())
        if len(made) == 1:
            file.unlink()

    monkeypatch.setattr(array_cache, "_make", make_and_lose)
    np.testing.assert_array_equal(cached_array(file, SHAPE, np.uint8, ones), np.ones(SHAPE))
    assert made == [True, True]


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_array(tmp_path / "a.npy", SHAPE, np.uint8, interrupt)
    assert list(tmp_path.iterdir()) == []


def at_once(count, make):
    threads = [threading.Thread(target=make) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_of_many_that_ask_at_once_one_makes_it(tmp_path):
    """As the ranks of a run do: each would decode all images, and set their space aside."""
    filled, results, together = [], [], threading.Barrier(4)

    def slowly(array, rows):
        filled.append(len(list(tmp_path.glob(".a.npy.*.tmp"))))
        time.sleep(0.2)
        ones(array, rows)

    def make():
        together.wait(10)
        results.append(np.array(cached_array(tmp_path / "a.npy", SHAPE, np.uint8, slowly)))

    at_once(4, make)
    assert (len(results), filled) == (4, [1])
    for result in results:
        np.testing.assert_array_equal(result, np.ones(SHAPE))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_those_that_wait_learn_which_rows_could_not_be_filled(tmp_path):
    """Else one rank would leave an unreadable image out, and the others train on a black one."""
    together, asked = threading.Barrier(3), []

    def fill(array, rows):
        asked.append(list(rows))
        time.sleep(0.2)
        array[[row for row in rows if row != 2]] = 1
        return [2]

    def make():
        together.wait(10)
        cached_array(tmp_path / "a.npy", SHAPE, np.uint8, fill)

    at_once(3, make)
    assert asked == [[*range(SHAPE[0])], [2], [2]]


def test_a_lock_of_another_user_is_done_without(tmp_path, monkeypatch):
    lock, opened = tmp_path / ".a.npy.lock", Path.open

    def refused(path, *args, **options):
        if path == lock:
            raise PermissionError(errno.EACCES, "no right", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    np.testing.assert_array_equal(cached_array(tmp_path / "a.npy", SHAPE, np.uint8, ones), np.ones(SHAPE))


@pytest.mark.usefixtures("no_locks")
def test_pitfall_files_writers_of_one_process_number_do_not_meet(tmp_path, monkeypatch):
    """Containers that share a cache often have equal process numbers."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    both, results = threading.Barrier(2), []

    def slowly(array, rows):
        for row in rows:
            both.wait(10)  # row by row at the same time
            array[row] = 1

    def make():
        results.append(np.array(cached_array(tmp_path / "a.npy", SHAPE, np.uint8, slowly)))

    at_once(2, make)
    for result in (*results, cached_array(tmp_path / "a.npy", SHAPE, np.uint8, never)):
        np.testing.assert_array_equal(result, np.ones(SHAPE))
    assert len(results) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(("mine", "theirs", "left"), [({1}, (), ()), ((), {1}, ()), ({1}, {2}, {1})])
def test_of_two_writers_the_first_wins_unless_it_has_gaps_that_the_second_has_not(tmp_path, mine, theirs, left):
    file = tmp_path / "a.npy"

    def filling(gaps, before=lambda: None):
        def fill(array, rows):
            before()
            array[[row for row in rows if row not in gaps]] = 1
            return gaps

        return fill

    def other():
        cached_array(file, SHAPE, np.uint8, filling(theirs))

    found = cached_array(file, SHAPE, np.uint8, filling(mine, other))
    assert np.flatnonzero(found[:, 0] == 0).tolist() == sorted(left)


KILLED = """
import os, signal, sys
from pathlib import Path
from cmcgns.common import array_cache
from cmcgns.common.array_cache import cached_array
cached_array(Path(sys.argv[1]), (5, 3), "u1", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_left_overs_of_writers_that_are_gone_are_removed_and_those_of_living_ones_are_not(tmp_path):
    file = tmp_path / "a.npy"
    assert subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False).returncode == -9
    (left,) = tmp_path.glob(".a.npy.*.tmp")

    def age(path: Path) -> None:
        os.utime(path, (time.time() - 3600,) * 2)

    def while_living(array, rows):
        (mine,) = tmp_path.glob(".a.npy.*.tmp")
        age(mine)
        cached_array(tmp_path / "b.npy", SHAPE, np.uint8, ones)
        assert mine.exists()
        ones(array, rows)

    age(left)
    cached_array(file, SHAPE, np.uint8, while_living)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]


def test_what_a_writer_has_only_just_begun_is_no_left_over(tmp_path):
    """It may not hold its lock yet."""
    young = tmp_path / ".a.npy.7-0123abcd.tmp"
    young.touch()
    cached_array(tmp_path / "b.npy", SHAPE, np.uint8, ones)
    assert young.exists()
    os.utime(young, (time.time() - 3600,) * 2)
    cached_array(tmp_path / "c.npy", SHAPE, np.uint8, ones)
    assert not young.exists()


def test_a_full_disk_is_a_message_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"no array of 15 bytes can be kept there \(No space.*free.*CMCGNS_CACHE"):
        cached_array(tmp_path / "a.npy", SHAPE, np.uint8, never)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 pages; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("size", [70_000, 65_536 - 128])  # the second leaves no room for the mark
def test_pitfall_files_a_disk_that_is_really_full(small_disk, size):
    with pytest.raises(
        UserError, match=r"disk: no array of \d+,\d+ bytes can be kept there \(No space left on device"
    ):
        cached_array(small_disk / "a.npy", (size,), np.uint8, lambda array, _: array.fill(1))
    assert list(small_disk.iterdir()) == []
    cached_array(small_disk / "a.npy", (40_000,), np.uint8, lambda array, _: array.fill(1))


def test_space_that_cannot_be_set_aside_is_done_without(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    np.testing.assert_array_equal(cached_array(tmp_path / "a.npy", SHAPE, np.uint8, ones), np.ones(SHAPE))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/cache: no array .*CMCGNS_CACHE"):
        cached_array(tmp_path / "file" / "cache" / "a.npy", SHAPE, np.uint8, never)


def test_whoever_waited_for_a_lock_that_was_removed_waits_for_the_new_one(tmp_path):
    lock, inside = tmp_path / ".a.npy.lock", threading.Event()

    def wait():
        with _one_at_a_time(lock):
            inside.set()

    with lock.open("ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        lock.unlink()  # as its holder does at the end
        second = lock.open("ab")
        fcntl.flock(second, fcntl.LOCK_EX)
    assert not inside.wait(0.3)
    second.close()
    waiting.join(10)
    assert inside.is_set()
