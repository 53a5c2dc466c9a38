"""Tensors in files: any bit that flips is noticed, and a full disk costs nothing."""

import resource
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cmcgns.common.errors import UserError
from cmcgns.models.checked_tensors import DamagedWeights, read_tensors, write_tensors

TENSORS = {
    "weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "nothing": torch.zeros(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensors") / "w.safetensors"
    write_tensors(path, TENSORS, "progress", {"step": 3, "best": {"global": 0.1}})
    return path


def test_tensors_come_back(file: Path) -> None:
    tensors, about = read_tensors(file)
    assert tensors.keys() == TENSORS.keys() == load_file(file).keys()
    for name, value in TENSORS.items():
        assert torch.equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype
    assert about == {"step": 3, "best": {"global": 0.1}}


def test_equal_content_gives_equal_bytes(file: Path, tmp_path: Path) -> None:
    for number in range(20):
        write_tensors(tmp_path / "again", TENSORS, "progress", {"step": 3, "best": {"global": 0.1}})
        assert (tmp_path / "again").read_bytes() == file.read_bytes(), number


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_bit_that_flips_anywhere_is_noticed(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    other = file.with_name("flipped.safetensors")
    other.write_bytes(content)
    try:
        tensors, about = read_tensors(other)
    except DamagedWeights:
        return
    # What is left over: the checksum's own name, or blanks of the header. All that is used is as it was.
    assert {"step": 3, "best": {"global": 0.1}}.items() <= about.items()
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())


def test_a_file_that_is_cut_off_is_noticed_at_any_length(file: Path) -> None:
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        other = file.with_name("cut.safetensors")
        other.write_bytes(content[:length])
        with pytest.raises(DamagedWeights, match=r"cut\.safetensors is damaged"):
            read_tensors(other)


def test_files_of_earlier_versions_have_no_checksum(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "old.safetensors", metadata={"about": "{}"})
    tensors, about = read_tensors(tmp_path / "old.safetensors")
    assert torch.equal(tensors["a"], torch.ones(2))
    assert about == {}


def test_a_disk_that_takes_no_more_says_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 24 * 4 + 2 * 2 + 8 + 2 + 6 * 4
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(UserError, match=rf"w\.safetensors: no space is left .* the file needs {size} bytes"):
            write_tensors(path, TENSORS, "about", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
