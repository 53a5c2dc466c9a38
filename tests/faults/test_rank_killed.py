"""Two ranks, of which one is killed: the other ends soon, says how the run goes on, and it does."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cmcgns.training.checkpoint import checkpoints
from support.faults import Undisturbed, run_whole

PATIENCE = 90  # seconds


def children_of(process: int) -> list[int]:
    """Process numbers below a process, of Linux."""
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout
    return [int(number) for number in found.split()]


def is_alive(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_the_other_rank_ends_and_the_run_goes_on(rank: int, undisturbed: Undisturbed, tmp_path: Path) -> None:
    out, errors = tmp_path / "run", tmp_path / "errors"
    asked = [*undisturbed.pretrain(out), "--devices=2", "--set", "alignment.epochs=20"]
    with errors.open("w") as file:
        first = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)
    try:
        while len(checkpoints(out / "state")) < 2:
            assert first.poll() is None, errors.read_text()
            time.sleep(0.2)
        second = children_of(first.pid)[0]
        killed, other = (first.pid, second) if rank == 0 else (second, first.pid)
        os.kill(killed, signal.SIGKILL)
        limit = time.monotonic() + PATIENCE
        while is_alive(other):
            assert time.monotonic() < limit, "the other rank waits for ever"
            time.sleep(0.2)
        assert first.wait(PATIENCE) == (-signal.SIGKILL if rank == 0 else 2)
        assert "error: another process of the run has ended" in errors.read_text()
        assert "with --resume the run goes on from step-" in errors.read_text()
        assert "Traceback" not in errors.read_text()
    finally:
        with suppress(ProcessLookupError):  # both have ended
            os.killpg(first.pid, signal.SIGKILL)
    again = [*undisturbed.pretrain(out), "--devices=2", "--set", "alignment.epochs=20"]
    done = run_whole(again)
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").is_file()
