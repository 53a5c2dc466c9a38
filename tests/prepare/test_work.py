"""A second call does what is missing, and only that; every engine does the same work, and all of it."""

import math

import pytest

from cmcgns.common.errors import UserError
from cmcgns.prepare.image import ImageResult, ImageSettings, ImageTask, stamp_of, target_name
from cmcgns.prepare.work import STATE, append_results, read_results, run_tasks, still_missing


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


def test_a_name_of_any_length_makes_one_that_a_disk_can_hold():
    for stem in ("x" * 240, "心" * 80, "a心" * 40):
        name = target_name(f"images/{stem}.jpg", ".jpg").partition("/")[2]
        assert len(name.encode()) <= 80 + 17
        assert name.startswith(stem[:20])


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize(("count", "workers"), [(0, 1), (5, 1), (100, 1), (100, 2), (5, 2)])
def test_all_tasks_are_done_once(count, workers):
    found = list(run_tasks(square, range(count), "pool", workers))
    assert sorted(found) == [number**2 for number in range(count)]


def test_ray_is_named_where_it_is_missing():
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"pip install 'cmcgns\[ray\]'"):
            list(run_tasks(square, range(3), "ray"))
    else:
        pytest.skip("Ray is installed")


@pytest.mark.slow
def test_ray_does_the_same_work():
    ray = pytest.importorskip("ray")
    try:  # a function that a worker can import: this file is not on its path
        assert sorted(run_tasks(math.factorial, range(40), "ray")) == [math.factorial(number) for number in range(40)]
    finally:
        ray.shutdown()
