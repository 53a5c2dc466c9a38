"""Worker processes that leave each other room."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.common.processes import THREADS, Stopped, in_threads, stopping_at_signals, worker_pool


def test_pitfall_speed_workers_have_one_thread_each_and_the_caller_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # what the user says stays
    with worker_pool(2) as pool:
        assert list(pool.map(os.getenv, THREADS)) == ["3", "1", "1", "1"]
    assert [os.environ.get(name) for name in THREADS] == ["3", None, None, None]


def test_items_are_handed_out_as_they_are_wanted_and_results_are_in_their_order() -> None:
    """A list of 400,000 futures would take more memory than what they are for."""
    drawn, done, most = 0, [0], 0

    def items() -> Iterator[int]:
        nonlocal drawn, most
        for number in range(3000):
            drawn, most = drawn + 1, max(most, drawn - done[0])
            yield number

    assert in_threads(lambda number: number * number, items(), lambda one: done.append(done.pop() + one)) == [
        number * number for number in range(3000)
    ]
    assert most <= 16 * (os.cpu_count() or 1) + 1

    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        in_threads(fail, range(1000))


def test_the_environment_is_as_before_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FileNotFoundError), worker_pool(1) as pool:
        list(pool.map(os.listdir, [tmp_path / "absent"]))
    assert not set(THREADS) & set(os.environ)


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_killed_worker_is_named_with_its_signal() -> None:
    with (
        pytest.raises(UserError, match=r"worker process \d+ was ended by SIGKILL .*fewer --workers.*is kept"),
        worker_pool(2) as pool,
    ):
        list(pool.map(end_by, [signal.SIGKILL]))


def test_signals_become_an_exception_and_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(Stopped, match=f"stopped by {number.name}") as caught, stopping_at_signals():
            end_by(number)
        assert caught.value.signal_number == number
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


WAITING = """
import subprocess, sys
child = "import os, time; from cmcgns.common.processes import end_after_parent; end_after_parent(os.getppid(), 0.5); "
subprocess.Popen([sys.executable, "-c", child + "print(os.getpid(), flush=True); time.sleep(600)"])
sys.stdin.read()
"""


def test_a_process_that_waits_for_ever_ends_some_time_after_its_parent() -> None:
    words, pipe = [sys.executable, "-c", WAITING], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(1.5)
        os.kill(child, 0)  # it lives as long as its parent does
        parent.kill()
        assert parent.stdout.read() == ""  # up to the end: whoever held the other one is gone


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' own service")
def test_a_forked_child_ends_with_its_parent(tmp_path: Path) -> None:
    """As the decoder of a DICOM file does when the worker that waits for it is killed."""
    program = (
        "import os, pathlib, sys, time\nfrom cmcgns.common.processes import end_with_parent\nparent = os.getpid()\n"
        "child = os.fork()\nif child == 0:\n    end_with_parent(parent)\n"
        "    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    note = tmp_path / "child"
    process = subprocess.Popen([sys.executable, "-c", program, str(note)])
    while not (note.exists() and note.read_text()):
        time.sleep(0.01)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while is_alive(int(note.read_text())):
        assert time.monotonic() < end
        time.sleep(0.01)


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
