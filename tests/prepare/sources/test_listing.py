"""Files below a root, without those that links reach outside it."""

from pathlib import Path

from cmcgns.prepare.sources.base import SourceTable, by_name, existing_files


def test_files_of_chosen_folders(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/2.png", "c/3.png", "4.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert existing_files(tmp_path) == {"a/1.png", "a/b/2.png", "c/3.png", "4.csv"}
    assert existing_files(tmp_path, ["a", "none", "4.csv"]) == {"a/1.png", "a/b/2.png"}


def test_links_inside_are_followed_others_named(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "real", outside):
        folder.mkdir(parents=True)
        (folder / "x.png").touch()
    (root / "inside").symlink_to(root / "real")
    (root / "y.png").symlink_to(root / "real" / "x.png")
    (root / "real" / "circle").symlink_to(root)
    (root / "away").symlink_to(outside)
    (root / "z.png").symlink_to(outside / "x.png")
    (root / "broken.png").symlink_to(tmp_path / "nothing")
    table = SourceTable()
    files = existing_files(root, table=table)
    assert {"real/x.png", "inside/x.png", "y.png"} <= files
    assert not any("away" in path or path.endswith(("z.png", "broken.png")) for path in files)
    assert {"away", "z.png"} <= {entry["where"] for entry in table.left_out}
    assert existing_files(root, ["away"], table) == set()


def test_a_linked_root_is_a_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert existing_files(tmp_path / "link") == {"x.png"}


def test_shallowest_path_of_a_name_wins() -> None:
    files = {"b/x.png", "a/x.png", "a/0/x.png", "c/y.PNG", "d/z.txt"}
    assert by_name(files, (".png",)) == {"x.png": "a/x.png", "y.PNG": "c/y.PNG"}
