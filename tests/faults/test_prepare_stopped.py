"""`cmcgns prepare` as a process that is stopped, killed, or whose worker is: nothing lives on, nothing is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.prepare.work import STATE

pytestmark = pytest.mark.faults
IMAGES = 400


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(generator.integers(0, 256, (400, 400), np.uint8)).save(folder / f"{number}.png")
    rows = {"image_path": [f"{n}.png" for n in range(IMAGES)], "report": ["FINDINGS: Clear."] * IMAGES}
    pd.DataFrame(rows).to_csv(folder / "own.csv", index=False)
    return folder


def command(root, out):
    size = ["--size", "300", "--workers", "2", "--lossless"]
    return [sys.executable, "-m", "cmcgns", "prepare", "table", "--root", str(root), "--out", str(out), *size]


def begin(root, out):
    """The process in a group of its own, once 32 images are done."""
    process = subprocess.Popen(command(root, out), stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: done(out) >= 32)
    return process


def done(out: Path) -> int:
    return (out / STATE).read_text().count("\n") if (out / STATE).exists() else 0


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def group(number: int) -> list[int]:
    """Living processes of a group, zombies aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, _, its_group = folder.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == number and state != "Z":
                found.append(int(folder.name))
    return found


def workers(process) -> list[int]:
    """The pool's processes, which import the program; the resource tracker does not."""
    found = []
    for number in group(process.pid):
        with contextlib.suppress(OSError):
            if "spawn_main" in Path(f"/proc/{number}/cmdline").read_text():
                found.append(number)
    return found


def finish(root, out):
    return subprocess.run(command(root, out), capture_output=True, text=True, check=True).stderr


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(root, out)
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    """Every file but the log of what is done, whose order is that of the workers."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    kept = {name: path for name, path in files.items() if name != STATE and not path.name.endswith((".tmp", ".lock"))}
    return {name: path.read_bytes() for name, path in kept.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["the parent", "all"])
def test_nothing_lives_on_and_the_same_command_goes_on(number, whom, root, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = begin(root, out)
    os.kill(process.pid, number) if whom == "the parent" else os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    until(lambda: not group(process.pid), 20)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in said
    if number != signal.SIGKILL:
        assert "images are done; the same command goes on from there" in " ".join(said.split())
        assert signal.Signals(number).name in said
    kept = done(out)
    assert 32 <= kept < IMAGES
    assert "images are prepared already" in finish(root, out)
    assert contents(out) == undisturbed


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_worker_is_named_and_the_same_command_goes_on(root, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = begin(root, out)
    victim = workers(process)[0]
    os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert f"worker process {victim} was ended by SIGKILL" in " ".join(said.split())
    until(lambda: not group(process.pid), 20)
    finish(root, out)
    assert contents(out) == undisturbed


def on_a_small_disk(place: Path, call: list[str]) -> subprocess.CompletedProcess:
    """A command that sees a disk of 6 MB at a place, which is gone after it."""
    listing = f"; cp {place}/{STATE} {place}.state 2>/dev/null; exit $code"
    script = f'mount -t tmpfs -o size=6m tmpfs "{place}" || exit 99; "$@"; code=$?' + listing
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *call], capture_output=True, text=True
    )


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_full_disk_is_named_and_no_image_is_called_unreadable(count, root, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    call = command(root, place / ".")
    call[call.index("--workers") + 1] = count
    try:
        ended = on_a_small_disk(place, call)
    except FileNotFoundError:
        pytest.skip("unshare is not there")
    if ended.returncode == 99 or "unshare" in ended.stderr:
        pytest.skip("no disk can be mounted here")
    said = " ".join(ended.stderr.split())
    assert ended.returncode == 2
    assert "Traceback" not in said
    assert "no space is left there" in said
    assert "the same command goes on from there" in said
    state = Path(f"{place}.state").read_text()
    assert 0 < state.count('"error": ""') < IMAGES
    assert state.count('"error": ""') == state.count('"error"')


def test_a_place_that_cannot_be_written_to_is_named(root, tmp_path):
    (tmp_path / "file").touch()
    ended = subprocess.run(command(root, tmp_path / "file" / "out"), capture_output=True, text=True)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "--out" in ended.stderr


LOADER = """
import time
from cmcgns.data.pairs.loader import make_loader

class Numbers:
    def __getitem__(self, number):
        return number

if __name__ == "__main__":
    batches = iter(make_loader(Numbers(), range(10**6), 2))
    next(batches)
    print("begun", flush=True)
    time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loader_processes_end_with_the_training_that_is_killed():
    call = [sys.executable, "-c", LOADER]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "begun\n"
    process.kill()
    process.communicate()
    until(lambda: not group(process.pid), 10)
