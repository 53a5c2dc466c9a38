"""Disks that are full or read-only, as mounts of their own: needs root on Linux."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.faults import Undisturbed, command, run_whole
from support.training import assert_same_end

Mount = Callable[..., Path]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small disk"
)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A disk in memory of so many kilobytes; called again it changes its size."""
    place, mounted = tmp_path / "disk", []

    def change(kilobytes: int, more: str = "") -> Path:
        place.mkdir(exist_ok=True)
        options = f"{'remount,' if mounted else ''}size={kilobytes}k{more}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False)
        if done.returncode:
            pytest.skip("this root may not mount")
        mounted.append(place)
        return place

    yield change
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


# The run needs 5 MB. The sizes end it in its first files, in best weights, in a checkpoint, in the final weights.
@pytest.mark.parametrize("kilobytes", [4, 40, 160, 500, 1500, 2000, 2600, 3200])
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


def verbs(undisturbed: Undisturbed, out: Path) -> dict[str, list[str]]:
    """Every command that writes into a folder."""
    run, data = undisturbed.out, undisturbed.data
    asked = ["--data", data, "--out", out]
    return {
        "pretrain": undisturbed.pretrain(out),
        "evaluate": command("evaluate", run, "--protocol", "knn/v1", "--allow-leakage", *asked),
        "report": command("report", run, *asked),
        "prepare": command("prepare", "table", "--root", data, "--out", out, "--workers", 1),
        "phantom studies": command("phantom", "studies", "--out", out, "--train", 2, "--workers", 1),
        "phantom tree": command("phantom", "tree", "nih", "--out", out, "--studies", 8),
        "check": command("check", data, "--out", out),
        "demo": command("demo", "--out", out),
        "bench": command("bench", "step", undisturbed.recipe, "--steps", 1, "--batch", 2, "--json", out / "x.json"),
    }


@pytest.mark.parametrize("verb", ["pretrain", "evaluate", "report", "prepare", "phantom studies", "phantom tree",
                                  "check", "demo", "bench"])  # fmt: skip
def test_a_place_that_cannot_be_written_is_named(
    verb: str, undisturbed: Undisturbed, mount: Mount, tmp_path: Path
) -> None:
    """Read-only, a file, below a file."""
    place = mount(100, ",ro")
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (place / "out", place, file / "out", file):
        done = run_whole(verbs(undisturbed, out)[verb])
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == 2, done.stderr
        assert str(out) in done.stderr
    assert file.read_text() == "mine"
