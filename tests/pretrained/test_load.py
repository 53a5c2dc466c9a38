"""`cmcgns.load(run)`: a run folder opens whole, anywhere, or says what is wrong with it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256
from cmcgns.settings.recipe import parse_recipe
from support.pretrained import RECIPE, TEXTS


def test_run_folder_is_complete(run: Path, data: Path) -> None:
    wanted = {
        "config.yaml", "model.safetensors", "preprocess.json", "tokenizer", "metrics.jsonl", "provenance.json",
        "card.md", "scores.json", "state", "report_encoder.json", "left_out.csv", "seen.parquet", "tensorboard",
    }  # fmt: skip
    assert {path.name for path in run.iterdir()} == wanted
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["model_sha256"] == sha256(run / "model.safetensors")
    assert provenance["manifest_sha256"] == sha256(data / "manifest.parquet")
    assert provenance["init"] is None
    assert provenance["data"]["train"] == 24
    assert {"started", "finished", "packages", "hardware", "command", "seed", "settings_sha256"} <= provenance.keys()
    preprocess = json.loads((run / "preprocess.json").read_text())
    assert (preprocess["resize_long_side"], preprocess["crop"], preprocess["mean"]) == (38, 32, 0.5)
    assert parse_recipe(yaml.safe_load((run / "config.yaml").read_text()), "run") == parse_recipe(RECIPE, "test")
    assert "Not a medical device" in (run / "card.md").read_text()


def test_weights_are_those_of_the_run_by_value(run: Path) -> None:
    saved = load_file(run / "model.safetensors")
    loaded = cmcgns.load(run).task.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


def test_run_moves_and_needs_nothing_else(run: Path, images: list[Path], tmp_path: Path) -> None:
    expected = cmcgns.load(run).embed_image(images)
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("state", "metrics.jsonl", "tensorboard", "card.md"))
    np.testing.assert_array_equal(cmcgns.load(moved).embed_image(images), expected)


def test_report_encoder_of_a_folder_that_is_gone_is_rebuilt(run: Path, tmp_path: Path) -> None:
    """config.yaml may name a folder of another machine; report_encoder.json suffices."""
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    settings = yaml.safe_load((moved / "config.yaml").read_text())
    settings["report_encoder"]["name"] = "/no/such/folder"
    settings["image_encoder"]["weights"] = "/no/such/file"
    (moved / "config.yaml").write_text(yaml.safe_dump(settings))
    np.testing.assert_array_equal(cmcgns.load(moved).embed_text(TEXTS), cmcgns.load(run).embed_text(TEXTS))


def change_weights(run: Path, folder: Path, change: str) -> Path:
    shutil.copytree(run, folder)
    tensors = load_file(run / "model.safetensors")
    value = tensors.pop("model.patch_projection.weight")
    if change == "renamed":
        tensors["model.patch_projektion.weight"] = value
    if change == "reshaped":
        tensors["model.patch_projection.weight"] = value[:, :-1].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"about": "{}"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 missing: model\.patch_projection\.weight"),
        ("renamed", r"1 unexpected: model\.patch_projektion\.weight"),
        ("reshaped", r"1 other shape: model\.patch_projection\.weight \(32, 23\) instead of \(32, 24\)"),
    ],
)
def test_loading_is_strict(change: str, message: str, run: Path, tmp_path: Path) -> None:
    """A key mismatch must not evaluate a random encoder in silence."""
    with pytest.raises(UserError, match=message):
        cmcgns.load(change_weights(run, tmp_path / "run", change))


def test_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing; finish the run with --resume"):
        cmcgns.load(tmp_path / "run")
    with pytest.raises(UserError, match="is no run folder"):
        cmcgns.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run / "tokenizer"), r"run/tokenizer is missing: copy it again"),
        (lambda run: (run / "tokenizer" / "tokenizer.json").write_text("{"), r"run/tokenizer is damaged: copy it"),
        (
            lambda run: (run / "report_encoder.json").write_text('{"model_type": "newer-bert"}'),
            r"report_encoder\.json: this transformers cannot build its model_type newer-bert",
        ),
    ],
)
def test_files_of_a_run_that_cannot_be_used_are_named(damage: Any, message: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        cmcgns.load(tmp_path / "run")


@pytest.mark.parametrize("value", [None, 3, b"run"])
def test_what_is_no_path_is_no_run(value: Any) -> None:
    with pytest.raises(UserError, match="load takes the path of a run folder, not "):
        cmcgns.load(value)


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:77", "meta:3:4"])
def test_a_device_that_is_not_there_is_named(run: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"load: the device {device} cannot be used: "):
        cmcgns.load(run, device)


def test_a_run_of_another_version_is_named_as_such(run: Path, tmp_path: Path) -> None:
    """Whoever opens a newer run is told to update, not that a setting was misspelt alone."""
    newer = tmp_path / "newer"
    shutil.copytree(run, newer)
    settings = yaml.safe_load((newer / "config.yaml").read_text())
    settings["objective"]["sharpness"] = 3
    (newer / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r"objective\.sharpness is no setting") as caught:
        cmcgns.load(newer)
    assert "made by" not in str(caught.value), "the same version: it was written into the file by hand"
    provenance = json.loads((newer / "provenance.json").read_text())
    provenance["packages"]["cmcgns"] = "99.0"
    (newer / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(UserError, match=rf"made by cmcgns 99\.0, this is {cmcgns.__version__}"):
        cmcgns.load(newer)
    (newer / "config.yaml").write_text((run / "config.yaml").read_text())
    assert cmcgns.load(newer).folder == newer, "a version that changed nothing which this one would miss"
    change_weights(run, tmp_path / "weights", "renamed")
    (tmp_path / "weights" / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(UserError, match=r"(?s)unexpected: model\.patch_projektion.*made by cmcgns 99\.0"):
        cmcgns.load(tmp_path / "weights")
