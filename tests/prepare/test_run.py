"""From a folder to a manifest that pretraining opens: what is kept, what is left out, and what is done twice."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.prepare import work
from cmcgns.prepare.image import ImageResult
from cmcgns.prepare.rows import manifest_rows
from cmcgns.prepare.run import PrepareOptions, prepare, read_report
from cmcgns.prepare.sources.base import SourceTable
from cmcgns.settings.config import DataSettings

OPTIONS = PrepareOptions(size=64, lossless=True)


@pytest.fixture
def root(tmp_path):
    """Four images of 100 × 50, 100 × 100 and less; one is broken."""
    folder = tmp_path / "mine"
    (folder / "pictures").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, shape in {"a": (50, 100), "b": (100, 100), "c": (40, 40)}.items():
        pixels = generator.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{name}.png")
    Image.fromarray(np.pad(np.full((20, 40), 255, np.uint8), ((10, 20), (30, 30)))).save(
        folder / "pictures" / "m.png"
    )
    (folder / "pictures" / "d.png").write_bytes((folder / "pictures" / "b.png").read_bytes()[:500])
    pd.DataFrame(
        {
            "Path": [f"pictures/{name}.png" for name in "abcd"],
            "patient_id": ["p1", "p1", "p2", "p3"],
            "split": ["train", "train", "val", "train"],
            "view": ["PA", "lateral", "AP", "PA"],
            "report": ["Effusion.", "Normal.", "No effusion. Normal.", "Normal."],
            "label_Effusion": ["1", "-1", "", "0"],
            "boxes": ['[{"label": "Effusion", "x": 10, "y": 20, "width": 50, "height": 25}]', "[]", "", ""],
            "mask_path": ["pictures/m.png", "", "", ""],
        }
    ).to_csv(folder / "table.csv", index=False)
    return folder


def quiet():
    return Console(file=io.StringIO(), width=200)


def do(root, out, options=OPTIONS):
    console = quiet()
    prepare("table", root, out, PrepareOptions(**{**vars(options), "columns": {"image_path": "Path"}}), console)
    return console.file.getvalue()


def test_images_may_be_named_from_the_home_folder(root, tmp_path, monkeypatch):
    """No shell expands the ~ of --images=~/pictures."""
    monkeypatch.setenv("HOME", str(tmp_path))
    table = pd.read_csv(root / "table.csv", dtype="str").drop(columns="mask_path")
    table["Path"] = table["Path"].str.removeprefix("pictures/")
    (tmp_path / "tables").mkdir()
    table.to_csv(tmp_path / "tables" / "table.csv", index=False)
    options = replace(OPTIONS, images=Path("~/mine/pictures"))
    do(tmp_path / "tables", tmp_path / "out", options)
    assert read_manifest(tmp_path / "out")["source"].tolist() == ["a.png", "b.png", "c.png"]
    with pytest.raises(UserError, match="lies in the dataset's own folder"):
        do(tmp_path / "tables", root / "pictures" / "out", options)


@pytest.mark.parametrize("content", ["{}", '{"source": "nih"}', '{"source": {}}'])
def test_a_report_of_something_else_is_named(content, root, tmp_path):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match=r"report\.json is damaged .* delete it"):
        do(root, tmp_path)


def test_a_box_with_points_that_are_none_is_left_out(root, tmp_path):
    def box(points):
        return f'[{{"label": "a", "x": 1, "y": 2, "width": 3, "height": 4, "points": {points}}}]'

    table = pd.read_csv(root / "table.csv", dtype="str").assign(boxes=["", box("null"), box("[1, 2, 3, 4]"), ""])
    table.to_csv(root / "table.csv", index=False)
    do(root, tmp_path / "out")
    assert read_manifest(tmp_path / "out")["source"].tolist() == ["pictures/a.png", "pictures/b.png"]
    left_out = {entry["where"]: entry["reason"] for entry in read_report(tmp_path / "out")["left_out"]}
    assert left_out["table.csv, row 3"].startswith("points of box 1 are not a list of pairs of finite numbers")


def test_a_folder_becomes_a_manifest(root, tmp_path):
    out = tmp_path / "out"
    text = do(root, out)
    frame = read_manifest(out)
    assert frame["source"].tolist() == ["pictures/a.png", "pictures/b.png", "pictures/c.png"]
    assert frame["width"].tolist() == [64, 64, 40]
    assert frame["height"].tolist() == [32, 64, 40]
    assert frame["original_width"].tolist() == [100, 100, 40]
    assert frame["patient_id"].tolist() == ["table:p1", "table:p1", "table:p2"]
    assert frame["view"].tolist() == ["PA", "LATERAL", "AP"]
    assert frame["label_Effusion"].tolist() == [1, -1, pd.NA]
    for row in frame.itertuples():
        with Image.open(out / row.image_path) as image:
            assert image.size == (row.width, row.height)
    with Image.open(out / frame["image_path"][2]) as stored, Image.open(root / "pictures/c.png") as given:
        assert (np.asarray(stored) == np.asarray(given)).all(), "small images stay as they are"
    assert "3 images in" in text
    assert "1 left out" in text
    report = read_report(out)
    assert report["left_out"][0]["where"] == "pictures/d.png"
    assert "d.png" in report["left_out"][0]["reason"]
    assert report["splits"] == {
        "train": {"images": 2, "studies": 2, "patients": 1},
        "val": {"images": 1, "studies": 1, "patients": 1},
    }
    assert report["labels"]["Effusion"] == {
        "positive": 1,
        "negative": 0,
        "uncertain": 1,
        "not stated": 1,
        "positive by split": {"train": 1, "val": 0},
    }
    assert report["words"] == {"0": 0, "1–4": 3}
    page = (out / "report.html").read_text("utf-8")
    assert "pictures/d.png" in page
    assert page.count("<figure>") == 3


def result(source, **tags):
    return ImageResult(source, "", "", "images/a.jpg", "", 8, 8, 8, 8, "", tags)


@pytest.mark.parametrize(
    ("stated", "tag", "view"),
    [
        ("FRONTAL", "AP", "AP"),
        ("FRONTAL", " pa ", "PA"),
        ("FRONTAL", "", "FRONTAL"),
        ("FRONTAL", "LL", "FRONTAL"),  # one of the two is wrong; the dataset's own table is kept
        ("FRONTAL", "SWIMMERS", "FRONTAL"),
        ("AP", "PA", "AP"),
        ("PA", "AP", "PA"),
        ("LATERAL", "PA", "LATERAL"),
        ("OTHER", "PA", "OTHER"),
        ("", "PA", "PA"),
        ("", "RL", "LATERAL"),
        (None, "AP", "AP"),
    ],
)
def test_a_file_says_which_frontal_view_it_is_but_overrules_no_stated_one(stated, tag, view):
    rows = {"source": ["a", "b"], "view": [stated, "LATERAL"], "boxes": ["", ""]}
    table = SourceTable(pd.DataFrame(rows))
    frame = manifest_rows(table, {"a": result("a", ViewPosition=tag), "b": result("b")})
    assert frame["view"].tolist() == [view, "LATERAL"]


def test_boxes_and_masks_go_with_the_resized_image(root, tmp_path):
    do(root, tmp_path / "out")
    frame = read_manifest(tmp_path / "out")
    box = json.loads(frame["boxes"][0])[0]
    assert box == {"label": "Effusion", "x": 6.4, "y": 12.8, "width": 32.0, "height": 16.0}
    assert frame["boxes"].tolist()[1:] == ["[]", ""]
    assert frame["mask_path"].tolist()[1:] == ["", ""]
    with Image.open(tmp_path / "out" / frame["mask_path"][0]) as image:
        mask = np.asarray(image)
    assert mask.shape == (32, 64)
    assert set(np.unique(mask)) == {0, 255}
    # 40 × 20 white pixels of 100 × 50, seen at 64 / 100.
    assert (mask == 255).sum() == pytest.approx(40 * 20 * 0.64**2, rel=0.08)


def test_pretraining_opens_what_was_prepared(root, tmp_path):
    do(root, tmp_path / "out")
    pairs = read_pairs(tmp_path / "out", DataSettings())
    assert pairs.frame["text"].tolist() == ["Effusion.", "No effusion. Normal."]
    assert [entry["reason"] for entry in pairs.left_out] == ["not a frontal view (data.views=all keeps it)"]


def test_shards_are_written_beside_the_images(root, tmp_path):
    text = do(root, tmp_path / "out", PrepareOptions(size=64, lossless=True, shards=2))
    assert "shards.json" in text
    index = json.loads((tmp_path / "out" / "shards" / "shards.json").read_text())
    assert sum(shard["count"] for shard in index["shards"]) == 3


def test_a_second_call_does_only_what_is_missing(root, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    whole = work.run_tasks

    def counted(function, tasks, *rest):
        done.append([task.source for task in tasks])
        return whole(function, tasks, *rest)

    monkeypatch.setattr(work, "run_tasks", counted)
    do(root, out)
    first = read_manifest(out)
    (out / first["image_path"][1]).unlink()
    do(root, out)
    assert done == [[f"pictures/{name}.png" for name in "abcd"], ["pictures/b.png", "pictures/d.png"]]
    pd.testing.assert_frame_equal(read_manifest(out), first)
    Image.new("L", (80, 80), 7).save(root / "pictures" / "d.png")
    do(root, out)
    assert done[2] == ["pictures/d.png"]
    assert len(read_manifest(out)) == 4
    assert read_report(out)["left_out"] == []


def test_a_changed_mask_and_a_lost_one_are_prepared_anew(root, tmp_path):
    """The table and the picture are as they were; only the mask's own file is another."""
    out = tmp_path / "out"

    def stored():
        with Image.open(out / read_manifest(out)["mask_path"][0]) as image:
            return np.asarray(image).copy()

    do(root, out)
    first = stored()
    Image.fromarray(np.full((50, 100), 255, np.uint8)).save(root / "pictures" / "m.png")
    assert "2 images are prepared already" in do(root, out)
    assert first.mean() < 100
    assert (stored() == 255).all()
    (out / read_manifest(out)["mask_path"][0]).unlink()
    do(root, out)
    assert (stored() == 255).all()


def test_tables_are_read_anew_at_every_call(root, tmp_path):
    out = tmp_path / "out"
    do(root, out)
    rows = pd.read_csv(root / "table.csv", keep_default_na=False)
    rows.loc[0, ["report", "label_Effusion", "boxes", "split"]] = ["FINDINGS: Clear.", "0", "[]", "val"]
    rows.to_csv(root / "table.csv", index=False)
    assert "3 images are prepared already" in do(root, out)
    row = read_manifest(out).iloc[0]
    assert (row["findings"], row["label_Effusion"], row["boxes"], row["split"]) == ("Clear.", 0, "[]", "val")


def test_identifiers_are_counted_by_study_and_never_printed(root, tmp_path):
    rows = pd.read_csv(root / "table.csv", keep_default_na=False)
    rows["report"] = [
        "NAME: Quincy Sample\nMRN: 0012345\nFINDINGS: Clear.", "FINDINGS: Seen by Dr. Quincy on 12/03/2019.",
        "FINDINGS: Call 617-555-0123.", "FINDINGS: ___ clear.",
    ]  # fmt: skip
    rows.to_csv(root / "table.csv", index=False)
    text = " ".join(do(root, tmp_path / "out").split())
    studies = read_report(tmp_path / "out")["identifiers"]
    assert studies == {
        "date": ["table:pictures/b"],
        "telephone number": ["table:pictures/c"],
        "name after a title": ["table:pictures/b"],
        "name after a label": ["table:pictures/a"],
        "record number": ["table:pictures/a"],
    }
    assert "warning: reports of 1 studies seem to hold a record number: table:pictures/a" in text
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for secret in ("Quincy", "0012345", "12/03", "0123"):
        assert secret not in text
        assert secret not in page


def test_two_processes_give_the_same_files(root, tmp_path):
    for number in range(40):
        Image.new("L", (70, 70), number).save(root / "pictures" / f"n{number}.png")
    rows = pd.read_csv(root / "table.csv")
    more = pd.DataFrame({"Path": [f"pictures/n{n}.png" for n in range(40)], "patient_id": "p9", "split": "train"})
    pd.concat([rows, more]).to_csv(root / "table.csv", index=False)
    do(root, tmp_path / "one")
    do(root, tmp_path / "two", PrepareOptions(size=64, lossless=True, workers=2))
    one, two = read_manifest(tmp_path / "one"), read_manifest(tmp_path / "two")
    pd.testing.assert_frame_equal(one, two)
    for path in one["image_path"]:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


@pytest.mark.slow
def test_ray_gives_the_same_manifest(root, tmp_path):
    ray = pytest.importorskip("ray")
    do(root, tmp_path / "one")
    try:
        do(root, tmp_path / "ray", PrepareOptions(size=64, lossless=True, engine="ray"))
    finally:
        ray.shutdown()
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "one"), read_manifest(tmp_path / "ray"))


def test_sixteen_bits_are_kept_lossless_and_not_black_as_jpeg(root, tmp_path):
    ramp = np.tile(np.arange(4096, dtype=np.uint16), (8, 1))[:, ::16]
    Image.fromarray(ramp).save(root / "pictures" / "b.png")
    do(root, tmp_path / "png", PrepareOptions(size=256, lossless=True))
    do(root, tmp_path / "jpeg", PrepareOptions(size=256))
    with Image.open(tmp_path / "png" / read_manifest(tmp_path / "png")["image_path"][1]) as image:
        stored = np.asarray(image).astype(int)
    assert len(np.unique(stored)) == 256
    assert abs(stored - ramp.astype(int) * 65535 // 4080).max() <= 1
    with Image.open(tmp_path / "jpeg" / read_manifest(tmp_path / "jpeg")["image_path"][1]) as image:
        assert abs(np.asarray(image).astype(int) - (ramp >> 4)).max() <= 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mimic"}, "mimic-cxr"),
        ({"root": "gone"}, "--root .*gone: no such folder"),
        ({"options": PrepareOptions(size=8)}, "--size 8"),
        ({"name": "nih", "options": PrepareOptions(columns={"a": "b"})}, "--column has no effect on nih"),
        ({"out": "mine"}, "choose another"),
        ({"out": "mine/prepared"}, "choose another"),
        ({"name": "nih", "root": "mine/table.csv"}, "is a file; nih needs the folder"),
        ({"options": PrepareOptions(rules="klingon")}, "no rule file klingon"),
    ],
)
@pytest.mark.usefixtures("root")
def test_calls_that_cannot_work_are_refused(tmp_path, changes, message):
    call = {"name": "table", "root": "mine", "out": "out", "options": OPTIONS} | changes
    with pytest.raises(UserError, match=message):
        prepare(call["name"], tmp_path / call["root"], tmp_path / call["out"], call["options"], quiet())


def test_another_dataset_or_a_file_at_out_is_refused(root, tmp_path):
    do(root, tmp_path / "out")
    with pytest.raises(UserError, match="holds table already, which nih would replace"):
        prepare("nih", root, tmp_path / "out", OPTIONS, quiet())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*file: cannot be written .there is a file of that name"):
        do(root, tmp_path / "file")


def test_no_image_at_all_is_an_error_that_says_why(root, tmp_path):
    rows = pd.read_csv(root / "table.csv")
    rows["Path"] = rows["Path"] + ".gone"
    rows.to_csv(root / "table.csv", index=False)
    with pytest.raises(UserError, match=r"no image is left for a manifest .table.csv, row 1: no such file"):
        do(root, tmp_path / "out")


def test_reasons_and_old_shards_are_named(root, tmp_path):
    do(root, tmp_path / "out", PrepareOptions(size=64, shards=2))
    text = do(root, tmp_path / "out", PrepareOptions(size=32))
    assert "left out: 1 x truncated PNG" in text
    assert "shards is of an earlier call" in text.replace("\n", " ")


def test_nothing_left_is_an_error_that_says_why(root, tmp_path):
    rows = pd.read_csv(root / "table.csv")
    rows[rows["Path"].str.contains("d.png")].to_csv(root / "table.csv", index=False)
    with pytest.raises(UserError, match=r"no image is left.*truncated"):
        do(root, tmp_path / "out")
