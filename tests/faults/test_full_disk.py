"""A disk that is full, as a mount of its own: needs root on Linux."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.faults import Undisturbed, run_whole
from support.training import assert_same_end

Mount = Callable[..., Path]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small disk"
)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A disk in memory of so many kilobytes; called again it changes its size."""
    place, mounted = tmp_path / "disk", []

    def change(kilobytes: int) -> Path:
        place.mkdir(exist_ok=True)
        options = f"{'remount,' if mounted else ''}size={kilobytes}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False)
        if done.returncode:
            pytest.skip("this root may not mount")
        mounted.append(place)
        return place

    yield change
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


# The run needs 5 MB. The sizes end it in its first files, in best weights, in a checkpoint, in the final weights.
@pytest.mark.parametrize("kilobytes", [4, 40, 160, 500, 1500, 2600])
def test_pretrain_on_a_full_disk_goes_on_when_there_is_room(
    kilobytes: int, undisturbed: Undisturbed, mount: Mount
) -> None:
    out = mount(kilobytes) / "run"
    full = run_whole(undisturbed.pretrain(out))
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    assert "no space is left there" in full.stderr
    if (out / "config.yaml").exists():
        assert "Nothing is lost: with --resume the run goes on from" in full.stderr
    mount(20_000)
    done = run_whole(undisturbed.pretrain(out))
    assert done.returncode == 0, done.stderr
    assert_same_end(undisturbed.out, out)
