"""Pictures on disk: whole, or an answer that names the file."""

import resource
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.reporting.style import new_figure, save_picture, save_pictures


def test_a_picture_that_the_disk_has_no_room_for_is_named(tmp_path: Path) -> None:
    save_picture(new_figure(1, 1), tmp_path / "pictures" / "curves.png")
    before = (tmp_path / "pictures" / "curves.png").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(UserError, match=r"pictures/curves\.png: no space is left there \([0-9,]+ bytes are"):
            save_pictures(tmp_path, {"curves": new_figure(2, 1)}, kinds=())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["curves.png"]
    assert (tmp_path / "pictures" / "curves.png").read_bytes() == before


def test_a_picture_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"a\.png: cannot be written \(there is a folder of that name"):
        save_picture(new_figure(1, 1), tmp_path / "a.png")
