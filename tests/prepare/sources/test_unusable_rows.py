"""A reader whose rows are all unusable names them; it does not fall over what is no longer there."""

import contextlib
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from cmcgns.common.errors import UserError
from cmcgns.phantom.trees import tree_names, write_tree
from cmcgns.prepare.run import PrepareOptions, prepare
from support.trees import read_source


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trees")
    for name in tree_names():
        write_tree(name, folder / name, 8, size=32)
    return {name: folder / name for name in tree_names()}


@pytest.mark.parametrize("name", tree_names())
@pytest.mark.parametrize("cell", ["", "?\\"])
def test_a_column_without_one_good_cell(trees: dict[str, Path], name: str, cell: str) -> None:
    tables = [path for path in sorted(trees[name].rglob("*.csv*")) if path.is_file()]
    for path in tables:
        whole = path.read_bytes()
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column in list(frame.columns)[:6]:  # ids, paths and details stand first; labels are tested elsewhere
            frame.assign(**{column: cell}).to_csv(path, index=False)
            with contextlib.suppress(UserError):  # or the whole table is refused
                table = read_source(name, trees[name])
                assert len(table.frame) or table.left_out, (path.name, column)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", tree_names())
def test_an_image_that_no_table_names_is_told_of(trees: dict[str, Path], tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    shutil.copytree(trees[name], root)
    before = read_source(name, root)
    image = root / before.frame["source"].iloc[0]
    extra = shutil.copy(image, image.with_name(f"view9_{image.name}"))  # so that CheXpert's paths hold a view
    after = read_source(name, root)
    pd.testing.assert_frame_equal(after.frame, before.frame)
    told = [each["where"] for each in after.left_out if each not in before.left_out]
    assert [Path(where).name for where in told] == [extra.name]


def test_paths_of_another_system_are_the_same_paths(trees: dict[str, Path], tmp_path: Path) -> None:
    """CheXpert's tables with a backslash for every slash."""
    before = read_source("chexpert", trees["chexpert"])
    root = tmp_path / "chexpert"
    shutil.copytree(trees["chexpert"], root)
    for path in root.rglob("*.csv"):
        header, rows = path.read_text().split("\n", 1)
        path.write_text(header + "\n" + rows.replace("/", "\\"))
    after = read_source("chexpert", root)
    pd.testing.assert_frame_equal(after.frame, before.frame)


def test_the_command_says_why_no_row_is_left(trees: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "chexpert"
    shutil.copytree(trees["chexpert"], root)
    for path in root.rglob("*.csv"):
        path.write_text(path.read_text().replace("patient", "person"))
    with pytest.raises(
        UserError, match=r"no image is left for a manifest \(train.csv, row 1: Path is .*person.*is expected"
    ):
        prepare("chexpert", root, tmp_path / "out", PrepareOptions(size=64), Console(quiet=True))


@pytest.mark.parametrize("name", tree_names())
def test_the_command_says_why_without_a_single_image(trees: dict[str, Path], tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    shutil.copytree(trees[name], root)
    for path in root.rglob("*"):
        if path.suffix in (".png", ".jpg", ".dcm", ".dicom"):
            path.unlink()
    with pytest.raises(UserError) as caught:
        prepare(name, root, tmp_path / "out", PrepareOptions(size=64), Console(quiet=True))
    assert str(root) in str(caught.value)
    assert "the tables name none" not in str(caught.value)
