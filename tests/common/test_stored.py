"""Files of earlier calls that are damaged: named, with the way out."""

import logging
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.common.stored import read_json, read_json_lines


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[1, 2]", b"\0" * 20])
def test_damaged_mapping_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"facts\.json is damaged \(.+\): write it again"):
        read_json(file, "write it again")


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"facts\.json is missing: write it again"):
        read_json(tmp_path / "facts.json", "write it again")
    with pytest.raises(UserError, match=r"is damaged \(.*Is a directory"):
        read_json(tmp_path, "write it again")


def test_torn_last_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, lines = tmp_path / "log.jsonl", ['{"a": 1}\n', '{"b": "ü"}\n']
    content = "".join(lines).encode()
    file.write_bytes(content)
    assert read_json_lines(file, "") == [{"a": 1}, {"b": "ü"}]
    assert not caplog.text
    for length in range(len(content)):  # also within a letter of two bytes
        file.write_bytes(content[:length])
        with caplog.at_level(logging.WARNING):
            found = read_json_lines(file, "")
        assert found == ([{"a": 1}] if length >= len(lines[0]) else [])
    assert "the last line is torn" in caplog.text


@pytest.mark.parametrize("line", [b'{"a": \n', b"\0\0\0\n", b"3\n", b'{"a": "\xff"}\n', b"\n"])
def test_a_damaged_line_within_is_named(line: bytes, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b'{"b": 2}\n')
    with pytest.raises(UserError, match=r"log\.jsonl is damaged \(.+\): take it away"):
        read_json_lines(file, "take it away")
