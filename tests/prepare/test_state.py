"""A second call does what is missing, and only that."""

import pytest

from cmcgns.prepare.image import ImageResult, ImageSettings, ImageTask, stamp_of, target_name
from cmcgns.prepare.state import STATE, append_results, read_results, still_missing


@pytest.fixture
def settings(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / f"{name}.png").write_bytes(name.encode())
    return ImageSettings(str(tmp_path / "root"), str(tmp_path / "out"), 64)


TASKS = [ImageTask("a.png"), ImageTask("b.png"), ImageTask("c.png", '{"rle": []}')]


def done(settings, task, error=""):
    from pathlib import Path

    path = "images/" + target_name(task.source, ".jpg")
    (Path(settings.out) / path).parent.mkdir(parents=True, exist_ok=True)
    (Path(settings.out) / path).write_text("image")
    return ImageResult(task.source, stamp_of(task, settings), error, path, tags={"ViewPosition": "PÅ"})


def missing(settings, tmp_path):
    return [task.source for task in still_missing(TASKS, read_results(tmp_path / "out"), settings)]


def test_results_are_found_again(settings, tmp_path):
    given = [done(settings, task) for task in TASKS]
    assert missing(settings, tmp_path) == ["a.png", "b.png", "c.png"]
    assert list(append_results(tmp_path / "out", given[:2])) == given[:2]
    assert list(append_results(tmp_path / "out", given[2:])) == given[2:]
    assert read_results(tmp_path / "out") == {result.source: result for result in given}
    assert missing(settings, tmp_path) == []


def test_changed_files_settings_masks_failures_and_lost_images_are_done_again(settings, tmp_path):
    out = tmp_path / "out"
    list(append_results(out, [done(settings, TASKS[0]), done(settings, TASKS[1], "torn"), done(settings, TASKS[2])]))
    assert missing(settings, tmp_path) == ["b.png"]
    (tmp_path / "root" / "a.png").write_bytes(b"another picture")
    assert missing(settings, tmp_path) == ["a.png", "b.png"]
    (out / "images" / target_name("c.png", ".jpg")).write_text("")
    assert missing(settings, tmp_path) == ["a.png", "b.png", "c.png"]
    other = ImageSettings(settings.root, settings.out, 128)
    assert missing(other, tmp_path) == ["a.png", "b.png", "c.png"]
    changed = ImageTask("c.png", '{"rle": ["1 2"]}')
    assert list(still_missing([changed], read_results(out), settings)) == [changed]


def test_a_line_torn_by_an_interruption_costs_one_image(settings, tmp_path):
    out = tmp_path / "out"
    list(append_results(out, [done(settings, TASKS[0])]))
    with (out / STATE).open("a") as file:
        file.write('{"source": "b.png", "sta')
    assert missing(settings, tmp_path) == ["b.png", "c.png"]
    list(append_results(out, [done(settings, task) for task in TASKS[1:]]))
    assert missing(settings, tmp_path) == []


def test_names_differ_for_equal_stems_in_different_folders():
    names = {target_name(source, ".jpg") for source in ("p1/s1/view.jpg", "p1/s2/view.jpg", "p1/s1/view.png")}
    assert len(names) == 3
    assert all(len(name.split("/")) == 2 for name in names)
