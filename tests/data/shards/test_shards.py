"""Shards hold the prepared files byte for byte, can be written in several goes, and are refused when damaged."""

import gc
import json
import tarfile

import numpy as np
import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256
from cmcgns.data.manifest import read_manifest
from cmcgns.data.shards import write as program
from cmcgns.data.shards.index import open_shards
from cmcgns.data.shards.write import write_shards
from support.shards import verify_shards, write_prepared


@pytest.fixture
def prepared(tmp_path):
    return write_prepared(tmp_path / "prepared", {"train": 11, "val": 4})


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_every_row_is_in_one_shard_of_its_split_with_its_bytes_and_facts(prepared, tmp_path):
    index = write_shards(prepared, tmp_path / "shards", per_shard=4)
    before, after = read_manifest(prepared), read_manifest(tmp_path / "shards")
    assert index == tmp_path / "shards" / "shards.json"
    assert after["study_id"].tolist() == before["study_id"].tolist()
    names = [f"{split}-{number:06d}.tar" for split, number in (("train", 0), ("train", 1), ("train", 2), ("val", 0))]
    assert [shard["name"] for shard in json.loads(index.read_text())["shards"]] == names
    seen = []
    for name in names:
        with tarfile.open(tmp_path / "shards" / name) as tar:
            members = tar.getmembers()
            for position, (image, text) in enumerate(zip(members[::2], members[1::2], strict=True)):
                key = image.name.split(".")[0]
                assert text.name == f"{key}.json"
                row = after.index[(after["shard"] == name) & (after["position"] == position)].item()
                facts = json.load(tar.extractfile(text))
                assert after["image_path"][row] == f"{name}/{image.name}"
                assert tar.extractfile(image).read() == (prepared / before["image_path"][row]).read_bytes()
                assert facts["study_id"] == before["study_id"][row]
                assert facts["findings"] == f"Größe {row}. Normal."
                assert facts.get("label_Edema") == (1 if row % 2 else None)
                assert "image_path" not in facts
                assert facts["split"] == name.split("-")[0]
                assert (image.mtime, image.uid, image.uname, image.mode) == (0, 0, "", 0o644)
                seen.append((row, key))
    assert sorted(row for row, _ in seen) == list(range(15))
    assert len({key for _, key in seen}) == 15
    first = [row for row, _ in seen[:11]]
    assert first != sorted(first), "rows of a split are shuffled"
    assert after["mask_path"].eq("").all()
    columns = [name for name in before if name not in ("image_path", "mask_path")]
    pd.testing.assert_frame_equal(after[columns], before[columns])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdataset_reads_them(prepared, tmp_path):
    library = pytest.importorskip("webdataset")
    write_shards(prepared, tmp_path / "shards", per_shard=4)
    urls = sorted(str(file) for file in (tmp_path / "shards").glob("train-*.tar"))
    samples = list(library.WebDataset(urls, shardshuffle=False))
    frame = read_manifest(tmp_path / "shards").query("split == 'train'")
    assert len(samples) == 11
    for sample in samples:
        kind = "png" if "png" in sample else "jpg"
        row = frame["study_id"].tolist().index(json.loads(sample["json"])["study_id"])
        source = read_manifest(prepared).query("split == 'train'")["image_path"].iloc[row]
        assert sample[kind] == (prepared / source).read_bytes()
        assert frame["image_path"].iloc[row].endswith(f"{sample['__key__']}.{kind}")
    gc.collect()


def test_the_same_input_gives_the_same_bytes(prepared, tmp_path):
    for name in ("a", "b"):
        write_shards(prepared, tmp_path / name, per_shard=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_second_call_writes_only_what_is_missing_or_damaged(prepared, tmp_path, monkeypatch):
    out = tmp_path / "shards"
    write_shards(prepared, out, per_shard=4)
    whole, written, write = contents(out), [], program.write_shard
    monkeypatch.setattr(
        program, "write_shard", lambda plan, *rest: (written.append(plan.name), write(plan, *rest))[1]
    )
    write_shards(prepared, out, per_shard=4)
    assert written == []
    (out / "train-000001.tar").unlink()
    content = bytearray(whole["val-000000.tar"])
    content[700] ^= 1
    (out / "val-000000.tar").write_bytes(content)
    write_shards(prepared, out, per_shard=4)
    assert written == ["train-000001.tar", "val-000000.tar"]
    assert contents(out) == whole


def test_an_interrupted_call_is_refused_by_readers_and_finished_by_the_next(prepared, tmp_path, monkeypatch):
    write_shards(prepared, tmp_path / "whole", per_shard=4)
    out, write, names = tmp_path / "shards", program.write_shard, []

    def dying(plan, *rest):
        if plan.number == 2:
            raise KeyboardInterrupt
        names.append(plan.name)
        return write(plan, *rest)

    monkeypatch.setattr(program, "write_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        write_shards(prepared, out, per_shard=4)
    with pytest.raises(UserError, match=r"shards\.json: the shards are not finished"):
        open_shards(out)
    monkeypatch.setattr(program, "write_shard", lambda plan, *rest: (names.append(plan.name), write(plan, *rest))[1])
    write_shards(prepared, out, per_shard=4)
    assert names == ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar"]
    assert contents(out) == contents(tmp_path / "whole")


def test_other_settings_replace_the_old_shards_and_leave_other_files(prepared, tmp_path):
    out = tmp_path / "shards"
    write_shards(prepared, out, per_shard=2)
    (out / "mine.tar").write_bytes(b"mine")
    write_shards(prepared, out, per_shard=8)
    assert sorted(file.name for file in out.glob("*.tar")) == [
        "mine.tar",
        "train-000000.tar",
        "train-000001.tar",
        "val-000000.tar",
    ]
    assert verify_shards(open_shards(out)) == []


def test_images_that_cannot_be_read_are_left_out_with_their_reasons(prepared, tmp_path):
    (prepared / "images/1.x.jpg").unlink()
    content = (prepared / "images/4.x.jpg").read_bytes()
    (prepared / "images/4.x.jpg").write_bytes(content[: len(content) // 2])
    (prepared / "images/6.x.png").write_bytes(b"text")
    index = json.loads(write_shards(prepared, tmp_path / "shards", per_shard=4).read_text())
    reasons = {entry["row"]: entry["reason"] for entry in index["left_out"]}
    assert set(reasons) == {2, 5, 7}
    assert "no such file" in reasons[2]
    assert "truncated" in reasons[5].lower()
    assert all(f"{row - 1}.x" in reason for row, reason in reasons.items())
    frame = read_manifest(tmp_path / "shards")
    assert frame["study_id"].tolist() == [f"d:s{row}" for row in range(15) if row + 1 not in reasons]
    assert sum(shard["count"] for shard in index["shards"]) == 12
    assert verify_shards(open_shards(tmp_path / "shards")) == []
    write_shards(prepared, tmp_path / "shards", per_shard=4)
    assert read_manifest(tmp_path / "shards").equals(frame), "going on keeps what was left out"
    for file in prepared.glob("images/*"):
        file.unlink()
    with pytest.raises(UserError, match=r"no image could be read \(.*no such file"):
        write_shards(prepared, tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_shard": 0}, "--shards 0: at least one"),
        ({"out": "prepared"}, "manifest of their own; choose another folder"),
        ({"manifest_folder": "nothing"}, "nothing: no such folder"),
    ],
)
@pytest.mark.usefixtures("prepared")
def test_impossible_calls_are_named(tmp_path, options, message):
    arguments = {"manifest_folder": "prepared", "out": "shards"} | options
    folders = {name: tmp_path / arguments.pop(name) for name in ("manifest_folder", "out")}
    with pytest.raises(UserError, match=message):
        write_shards(**folders, **arguments)


def test_a_split_that_is_no_file_name_is_refused(prepared, tmp_path):
    frame = pd.read_parquet(prepared / "manifest.parquet").assign(split="../x")
    frame.to_parquet(prepared / "manifest.parquet")
    with pytest.raises(UserError, match=r"split '\.\./x' cannot be part"):
        write_shards(prepared, tmp_path / "shards")


def change_index(folder, **changes):
    index = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps(index | changes))


def test_a_corrupt_index_or_another_manifest_is_refused(prepared, tmp_path):
    out = tmp_path / "shards"
    write_shards(prepared, out)
    whole = (out / "shards.json").read_bytes()
    shard = json.loads(whole)["shards"][0]
    faults = {
        "corrupt": b"{", "corrupt ": b"[]", "format 99": json.dumps(json.loads(whole) | {"format": 99}).encode(),
        "corrupt \\(.*name": json.dumps(json.loads(whole) | {"shards": [shard | {"name": "../x.tar"}]}).encode(),
        "corrupt \\(.*count": json.dumps(json.loads(whole) | {"shards": [shard | {"count": -1}]}).encode(),
        "corrupt \\(.*split": json.dumps(json.loads(whole) | {"shards": [{"name": "x.tar"}]}).encode(),
        "corrupt \\(.*recursion": b"[" * 200_000,
    }  # fmt: skip
    for message, content in faults.items():
        (out / "shards.json").write_bytes(content)
        with pytest.raises(UserError, match=rf"shards\.json: {message.strip()}"):
            open_shards(out)
    (out / "shards.json").write_bytes(whole)
    read_manifest(out).iloc[1:].to_parquet(out / "manifest.parquet")
    with pytest.raises(UserError, match=r"manifest\.parquet: missing, or not the one"):
        open_shards(out)
    assert open_shards(prepared) is None
    assert open_shards(prepared / "manifest.parquet") is None


def test_a_missing_truncated_or_changed_shard_is_named_with_the_way_out(prepared, tmp_path):
    out = tmp_path / "shards"
    write_shards(prepared, out, per_shard=4)
    folder, name = open_shards(out), "train-000001.tar"
    whole = (out / name).read_bytes()
    assert len(folder.read(name)) == 4
    changed = bytearray(whole)
    changed[700] ^= 1
    for content, message in (
        (whole[:-512], "truncated"), (whole + b"\0", "longer than it was written"),
        (bytes(changed), "damaged .*sha256"),
        (bytes(len(whole)), "0 images instead of 4; write them again: cmcgns prepare"),
    ):  # fmt: skip
        (out / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: .*{message}"):
            folder.read(name)
    (out / name).unlink()
    assert [text.split(": ", 1)[1] for text in verify_shards(folder)] == ["no such file"]


def test_members_are_bounded_and_links_are_not_followed(prepared, tmp_path, monkeypatch):
    out = tmp_path / "shards"
    write_shards(prepared, out)
    with tarfile.open(out / "train-000000.tar", "w") as tar:
        link = tarfile.TarInfo("train-00000000.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    shard = json.loads((out / "shards.json").read_text())["shards"][0]
    size = (out / "train-000000.tar").stat().st_size
    change_index(out, shards=[shard | {"bytes": size, "count": 0, "sha256": sha256(out / "train-000000.tar")}])
    assert open_shards(out).read("train-000000.tar") == {}
    write_shards(prepared, tmp_path / "more")
    monkeypatch.setattr("cmcgns.data.shards.index.MAX_IMAGE", 100)
    with pytest.raises(UserError, match=r"train-00000\d+\.(jpg|png) has .* bytes; the bound is 100"):
        open_shards(tmp_path / "more").read("train-000000.tar")


def test_a_shard_that_no_reader_would_take_is_refused_when_it_is_written(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "MAX_SHARD", 5000)
    with pytest.raises(UserError, match=r"train-000000\.tar: more than the bound of 5,000 bytes; .*--shards N"):
        write_shards(prepared, tmp_path / "shards")


def test_a_tar_that_is_none_is_named(prepared, tmp_path):
    out = tmp_path / "shards"
    write_shards(prepared, out)
    file = out / "train-000000.tar"
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))
    with pytest.raises(UserError, match=r"train-000000\.tar: not a whole tar file"):
        open_shards(out).read(file.name)
