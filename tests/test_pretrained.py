"""`cmcgns.load(run)`: embeddings of images and texts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import cmcgns
from cmcgns.data.dataset import make_loader
from cmcgns.data.order import evaluation_order
from cmcgns.data.phantom.dataset import write_dataset
from cmcgns.errors import UserError
from cmcgns.evaluation.embed import embed
from cmcgns.files import sha256
from cmcgns.recipe import parse_recipe
from cmcgns.training.prepare import prepare_data
from cmcgns.training.pretrain import pretrain

RECIPE = {
    "data": {"image_size": 32, "resize": 38, "max_tokens": 128, "max_sentences": 12},
    "image_encoder": {
        "name": "resnet10t", "channels": 1, "output_stride": 8,
        "options": {"channels": [8, 8, 16, 24], "stem_width": 8},
    },
    "report_encoder": {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300},
    "objective": {"dim": 32, "decoder_width": 16, "bank": {"clusters": 4, "start_by_step": 2}},
    "alignment": {"epochs": 1, "learning_rate": 1e-3},
    "reconstruction": {"epochs": 1, "learning_rate": 1e-3},
    "training": {"batch_size": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("studies"), {"train": 24, "val": 9}, size=44).parent


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMCGNS_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("runs") / "run"
        return pretrain(parse_recipe(RECIPE, "test"), data, out, accelerator="cpu", quiet=True)


@pytest.fixture(scope="module")
def images(data: Path) -> list[Path]:
    frame = pd.read_parquet(data / "manifest.parquet")
    return [data / path for path in frame.loc[frame["split"] == "val", "image_path"]]


TEXTS = ["No pleural effusion.", "Large right pneumothorax. The heart is enlarged.", "Normal."]


def test_embeddings_are_unit_vectors(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    for found, count in ((model.embed_image(images), len(images)), (model.embed_text(TEXTS), len(TEXTS))):
        assert found.shape == (count, 32)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert not any(p.requires_grad for p in model.task.parameters())
    assert not model.task.training


def test_embeddings_do_not_depend_on_the_batch(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    np.testing.assert_allclose(model.embed_image(images, 2), model.embed_image(images, 64), atol=1e-6)
    np.testing.assert_allclose(model.embed_text(TEXTS, 1), model.embed_text(TEXTS, 64), atol=1e-6)
    np.testing.assert_allclose(model.embed_image(images[::-1]), model.embed_image(images)[::-1], atol=1e-6)


def test_embeddings_are_those_of_training_time_evaluation(
    run: Path, data: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resizing, padding, cropping, normalisation and tokens are the same from files and from the data set."""
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path))
    model = cmcgns.load(run)
    prepared = prepare_data(model.recipe, data, run / "tokenizer")
    rows = prepared.validation
    found = embed(model.task.model, make_loader(rows, evaluation_order(len(rows), 8)))
    np.testing.assert_allclose(model.embed_image(images), found.image, atol=1e-6)
    texts = prepared.pairs.frame["text"].iloc[rows.rows].tolist()
    np.testing.assert_allclose(model.embed_text(texts), found.report, atol=1e-6)


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


def test_run_folder_is_complete(run: Path, data: Path) -> None:
    wanted = {
        "config.yaml", "model.safetensors", "preprocess.json", "tokenizer", "metrics.jsonl", "provenance.json",
        "card.md", "state", "report_encoder.json", "left_out.csv", "tensorboard",
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


def test_image_encoder_is_the_plain_timm_module(run: Path) -> None:
    encoder = cmcgns.load(run).image_encoder
    assert type(encoder).__module__.startswith("timm.")
    with torch.no_grad():
        assert encoder(torch.zeros(2, 1, 32, 32)).shape == (2, 24)


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


def test_bad_input_has_a_clear_message(run: Path, tmp_path: Path) -> None:
    model = cmcgns.load(run)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"missing\.png: no such image"):
        model.embed_image([tmp_path / "missing.png"])
    with pytest.raises(UserError, match=r"broken\.png: unreadable image"):
        model.embed_image([broken])
    with pytest.raises(UserError, match=r"embed_image takes a list, for example embed_image\(\['a\.png'\]\)"):
        model.embed_image("a.png")
    with pytest.raises(UserError, match="embed_text takes a list"):
        model.embed_text("Normal.")
    with pytest.raises(UserError, match="embed_image got an empty list"):
        model.embed_image([])
    with pytest.raises(UserError, match=r"embed_text: text 1 \('\?!'\) holds no words"):
        model.embed_text(["Normal.", "?!"])
