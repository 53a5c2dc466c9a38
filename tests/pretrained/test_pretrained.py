"""`cmcgns.load(run)`: embeddings of images and texts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm.data
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256
from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.loader import make_loader
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.models.model import embed
from cmcgns.phantom.dataset import write_dataset
from cmcgns.pretrained import Pretrained
from cmcgns.pretrained.embed import timm_config
from cmcgns.pretrained.phrase_maps import patch_maps
from cmcgns.settings.recipe import parse_recipe
from cmcgns.training.data import prepare_data
from cmcgns.training.pretrain import pretrain
from support.image_faults import dicom, dicom_bytes

RECIPE = {
    "data": {"image_size": 32, "resize": 38, "max_tokens": 128, "max_sentences": 12},
    "image_encoder": {
        "name": "resnet10t", "channels": 1, "output_stride": 8,
        "options": {"channels": [8, 8, 16, 24], "stem_width": 8},
    },
    "report_encoder": {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300},
    "objective": {"dim": 32, "decoder_width": 16, "bank": {"clusters": 4, "start_from_step": 0, "start_by_step": 2}},
    "alignment": {"epochs": 1, "learning_rate": 1e-3},
    "reconstruction": {"epochs": 1, "learning_rate": 1e-3},
    "training": {"batch_size": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("studies"), {"train": 24, "val": 9}, size=44).parent


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(parse_recipe(RECIPE, "test"), data, out, accelerator="cpu", quiet=True)


@pytest.fixture(scope="module")
def loaded(run: Path) -> Pretrained:
    """The run in use; not to be changed."""
    return cmcgns.load(run)


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


def test_embeddings_are_those_of_training_time_evaluation(run: Path, data: Path, images: list[Path]) -> None:
    """Resizing, padding, cropping, normalisation and tokens are the same from files and from the data set."""
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
        "card.md", "state", "report_encoder.json", "left_out.csv", "seen.parquet", "tensorboard",
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


def test_timm_prepares_images_for_the_encoder_as_the_run_did(run: Path) -> None:
    """timm's own transform, made from what the encoder carries, gives the tensor that the run gives."""
    model = cmcgns.load(run)
    settings = timm.data.resolve_model_data_config(model.image_encoder)
    assert settings["input_size"] == (1, 32, 32)
    assert (settings["mean"], settings["std"], settings["interpolation"]) == ((0.5,), (0.5,), "bilinear")
    assert settings["crop_pct"] == pytest.approx(32 / 38)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90)).astype(np.uint8)
    mine, theirs = model.images([pixels])[0], timm.data.create_transform(**settings)(Image.fromarray(pixels))
    assert theirs.shape == mine.shape
    assert (mine - theirs).abs().max() <= 2 / 127.5  # two gray values: Pillow reduces in two steps
    assert "url" not in model.image_encoder.pretrained_cfg, "these are no weights of timm's"


@pytest.mark.parametrize(("size", "resize"), [(64, 72), (128, 144), (224, 256), (224, 224), (31, 37), (100, 103)])
def test_timm_scales_to_exactly_the_run_s_size(size: int, resize: int) -> None:
    recipe = parse_recipe({"data": {"image_size": size, "resize": resize}}, "test")
    settings = timm_config(recipe, {"url": "x", "first_conv": "conv1"})
    assert int(np.floor(size / settings["crop_pct"])) == resize
    assert settings["input_size"] == (3, size, size)
    assert settings["mean"] == (0.5, 0.5, 0.5)
    assert settings["first_conv"] == "conv1"


def test_preprocess_json_says_what_is_done_to_an_image(run: Path) -> None:
    """Followed by hand, it gives what the run embeds."""
    said = json.loads((run / "preprocess.json").read_text())
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90)).astype(np.uint8)
    assert said["antialias"] is True  # as Pillow's filters are
    long_side = said["resize_long_side"]
    size = (long_side, round(60 * long_side / 90))
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling[said["resampling"].upper()]))
    square = np.zeros((long_side, long_side))
    top = (long_side - size[1]) // 2
    square[top : top + size[1]] = resized
    first = (long_side - said["crop"]) // 2
    crop = square[first : first + said["crop"], first : first + said["crop"]] / 255
    expected = (crop - said["mean"]) / said["std"]
    found = cmcgns.load(run).images([pixels])[0, 0].numpy()
    assert np.abs(found - expected).max() <= 2 / 127.5


def test_a_copy_to_train_is_thawed_and_the_run_stays_frozen(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    before = model.embed_image(images)
    encoder = model.trainable_image_encoder()
    assert encoder.training
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.training and norm.track_running_stats for norm in norms)
    running = norms[0].running_mean.clone()
    assert all(p.requires_grad for p in encoder.parameters())
    encoder(torch.rand(4, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert not torch.equal(norms[0].running_mean, running)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    assert not any(p.requires_grad for p in model.image_encoder.parameters())
    assert not model.image_encoder.training
    np.testing.assert_array_equal(model.embed_image(images), before)
    assert timm.data.resolve_model_data_config(encoder)["input_size"] == (1, 32, 32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.embed_text(["Normal.", None]), r"embed_text: text 1 is None \(a missing value\); a string is"),
        (lambda m: m.embed_text([float("nan")]), r"embed_text: text 0 is nan \(a missing value\)"),
        (lambda m: m.embed_text(pd.Series(["Normal.", None], index=[7, 8])), "embed_text: text 1 is .*missing value"),
        (lambda m: m.embed_text([3]), r"embed_text: text 0 is a int \(3\)"),
        (lambda m: m.embed_text([b"Normal."]), "embed_text: text 0 is a bytes;"),
        (lambda m: m.embed_text(["Normal.", ""]), r"embed_text: text 1 \(''\) holds no words"),
        (lambda m: m.embed_text(b"Normal."), "embed_text takes a list, not a single bytes"),
        (lambda m: m.embed_text(["Normal."], batch_size=0), "embed_text: batch_size is 0"),
        (lambda m: m.embed_text(["Normal."], batch_size=1.5), r"batch_size is 1\.5; a whole number"),
        (lambda m: m.zero_shot("a.png", (x for x in "ab")), r"list of labels, for example zero_shot\(paths, \['Eff"),
        (lambda m: m.embed_text(None), "embed_text takes a list, not a single NoneType"),
        (lambda m: m.embed_image([np.zeros((8, 8), np.uint8), None]), "picture 1: a picture is a path.*NoneType"),
        (lambda m: m.embed_image([np.zeros((8, 8), np.uint8)] * 3 + [float("nan")], 2), "picture 3: .*not float"),
        (lambda m: m.embed_image([""]), "picture 0: "),
        (lambda m: m.embed_image(np.zeros((8, 8), np.uint8)), r"not a single array of shape \(8, 8\)"),
        (lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), ["Edema", None]), "zero_shot: label 1 is None"),
        (lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), [" "]), "zero_shot: label 0 is ' '; a name is expected"),
        (lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), None), "zero_shot takes a list of labels"),
        (
            lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), {"Edema": ("Edema.", "No edema.")}),
            r"zero_shot: label Edema needs two lists.*\(\['Edema\.'\], \['No edema\.'\]\)",
        ),
        (lambda m: m.zero_shot(None, ["Edema"]), "picture 0: a picture is a path"),
        (lambda m: m.zero_shot([], ["Edema"]), "got an empty list"),
        (lambda m: m.ground(np.zeros((8, 8), np.uint8), None), "ground: the phrase is None"),
        (lambda m: m.ground(np.zeros((8, 8), np.uint8), "Edema.", against=None), "ground: against is None"),
        (lambda m: m.ground(np.zeros((8, 8), np.uint8), "Edema.", kind="heat"), "no map of kind heat; choose pooled"),
        (lambda m: m.ground(None, "Edema."), "a picture is a path, .*NoneType"),
    ],
)  # fmt: skip
def test_cells_that_hold_nothing_usable_are_named(loaded: Pretrained, call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(loaded)


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:77", "meta:3:4"])
def test_a_device_that_is_not_there_is_named(run: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"load: the device {device} cannot be used: "):
        cmcgns.load(run, device)


def test_columns_of_tables_and_arrays_are_lists_too(loaded: Pretrained, images: list[Path]) -> None:
    expected = loaded.embed_text(TEXTS)
    for texts in (tuple(TEXTS), pd.Series(TEXTS, index=[5, 9, 2]), np.array(TEXTS), np.array(TEXTS, dtype=object)):
        np.testing.assert_array_equal(loaded.embed_text(texts), expected)
    paths = pd.Series([str(path) for path in images], index=range(7, 7 + len(images)))
    np.testing.assert_array_equal(loaded.embed_image(paths), loaded.embed_image(images))


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


def test_bad_input_has_a_clear_message(run: Path, tmp_path: Path) -> None:
    model = cmcgns.load(run)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"missing\.png: no such file"):
        model.embed_image([tmp_path / "missing.png"])
    with pytest.raises(UserError, match=r"broken\.png: not a PNG"):
        model.embed_image([broken])
    with pytest.raises(UserError, match=r"embed_image takes a list, for example embed_image\(\['a\.png'\]\)"):
        model.embed_image("a.png")
    with pytest.raises(UserError, match="embed_text takes a list"):
        model.embed_text("Normal.")
    with pytest.raises(UserError, match="embed_image got an empty list"):
        model.embed_image([])
    with pytest.raises(UserError, match=r"embed_text: text 1 \('\?!'\) holds no words"):
        model.embed_text(["Normal.", "?!"])


def test_pictures_in_memory_are_embedded_as_their_files(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    expected = model.embed_image(images)
    opened = [Image.open(path) for path in images]
    np.testing.assert_array_equal(model.embed_image(opened), expected)
    np.testing.assert_array_equal(model.embed_image([np.asarray(image) for image in opened]), expected)
    colour = [np.asarray(image.convert("RGB")) for image in opened]
    np.testing.assert_array_equal(model.embed_image(colour), expected)
    gray = [np.asarray(image).astype(np.float64) for image in opened]
    stretched = [np.rint((each - each.min()) * 255 / np.ptp(each)).astype(np.uint8) for each in gray]
    deep = [each.astype(np.uint16) * 13 + 700 for each in gray]  # 16 bits: least value black, greatest white
    np.testing.assert_allclose(model.embed_image(deep), model.embed_image(stretched), atol=0.02)


def test_dicom_is_embedded_as_the_picture_that_it_holds(run: Path, images: list[Path], tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(images[0]).convert("L"))
    inverted = dicom(255 - pixels, PhotometricInterpretation="MONOCHROME1")
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(inverted))
    model = cmcgns.load(run)
    np.testing.assert_array_equal(model.embed_image([tmp_path / "a.dcm"]), model.embed_image(images[:1]))
    assert model.ground(tmp_path / "a.dcm", "No effusion.").shape == pixels.shape


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4)), r"\(H, W\) or \(H, W, 3\) uint8.*float64"),
        (np.zeros((4, 4, 4), np.uint8), r"not \(4, 4, 4\) uint8"),
        (np.zeros((0, 4), np.uint8), r"not \(0, 4\) uint8"),
        (Image.new("F", (4, 4)), "mode F does not say what is white"),
        (3, "a picture is a path, an array or a Pillow image, not int"),
    ],
)
def test_other_pictures_are_refused(run: Path, picture: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cmcgns.load(run).embed_image([picture])  # type: ignore[list-item]


def test_a_single_picture_in_place_of_a_list_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="embed_image takes a list"):
        cmcgns.load(run).embed_image(Image.new("L", (8, 8)))  # type: ignore[arg-type]


def test_evaluation_embeds_as_users_do(run: Path, data: Path, images: list[Path]) -> None:
    """Bit by bit: the same resize, crop, normalisation and batches."""
    encoder = open_encoder(str(run))
    settings = {"id": "t/v1", "title": "t", "task": "zero_shot", "split": {"rule": "any", "test": ["val"], "val": []}}
    protocol = EvaluationProtocol.model_validate(settings)
    found = TaskData(protocol, data, encoder.image_size, encoder.resize).test
    embedded = encoder.embed_pixels(found.pixels, lambda _: None)
    np.testing.assert_array_equal(embedded, cmcgns.load(run).embed_image(images))


def test_zero_shot_is_the_softmax_of_both_prompts(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    labels = {"Effusion": (["Pleural effusion."], ["No pleural effusion."]), "Big heart": (["Big."], ["Normal."])}
    table = model.zero_shot(images, labels)
    assert table.columns.tolist() == list(labels)
    assert table.index.tolist() == [str(path) for path in images]
    cosines = model.embed_image(images) @ model.embed_text(["Big.", "Normal."]).T
    softmax = np.exp(cosines / model.temperature) / np.exp(cosines / model.temperature).sum(1, keepdims=True)
    np.testing.assert_allclose(table["Big heart"], softmax[:, 0], rtol=1e-4)
    turned = model.zero_shot(images, {"Effusion": labels["Effusion"][::-1]})
    np.testing.assert_allclose(turned["Effusion"], 1 - table["Effusion"], rtol=1e-6)


def test_zero_shot_takes_names_and_one_picture(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    table = model.zero_shot(images[0], ["Effusion", "Scimitar sign"])
    assert table.shape == (1, 2)
    assert ((table > 0) & (table < 1)).all(axis=None)
    unknown = model.zero_shot(images[0], {"Scimitar sign": (["Scimitar sign."], ["No scimitar sign."])})
    assert table["Scimitar sign"].iloc[0] == pytest.approx(unknown["Scimitar sign"].iloc[0])
    for labels in ("Effusion", []):
        with pytest.raises(UserError, match="zero_shot takes a list of labels"):
            model.zero_shot(images[0], labels)


@pytest.mark.parametrize("kind", ["pooled", "patches", "attention"])
def test_grounding_maps_have_the_size_of_the_picture(run: Path, kind: str) -> None:
    model = cmcgns.load(run)
    picture = np.random.default_rng(0).integers(0, 255, (30, 50), dtype=np.uint8)
    found = model.ground(picture, "Left pleural effusion.", kind=kind)
    assert found.shape == (30, 50)
    assert np.isfinite(found).all()
    assert found.std() > 0
    bound = (0, 1) if kind == "attention" else (-1, 1)
    assert bound[0] <= found.min() <= found.max() <= bound[1]
    against = model.ground(picture, "Left pleural effusion.", against="Normal.", kind=kind)
    np.testing.assert_allclose(against, found - model.ground(picture, "Normal.", kind=kind), atol=1e-5)
    assert np.abs(model.ground(picture, "Normal.", against="Normal.", kind=kind)).max() < 1e-6


def test_grounding_says_what_this_run_cannot_give(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    objective = model.recipe.objective.model_copy(update={"weight_report": 0.0})
    model.recipe = model.recipe.model_copy(update={"objective": objective})
    with pytest.raises(UserError, match=r"no map of kind attention: the run has objective\.weight_report 0"):
        model.ground(images[0], "Normal.", kind="attention")
    assert model.ground(images[0], "Normal.").shape == (44, 44)


def test_maps_of_a_phrase_follow_the_patches(run: Path) -> None:
    """Shuffled tokens give shuffled maps; other phrases in the same call change nothing."""
    model = cmcgns.load(run)
    tokens = model.task.model.image_encoder.tokens(torch.randn(2, 1, 32, 32))
    order = torch.randperm(tokens.shape[1])
    for kind in ("pooled", "patches", "attention"):
        maps = patch_maps(model, tokens, model.encode_texts(TEXTS), kind)
        assert maps.shape == (2, 3, tokens.shape[1])
        shuffled = patch_maps(model, tokens[:, order], model.encode_texts(TEXTS), kind)
        torch.testing.assert_close(shuffled, maps[:, :, order])
        alone = patch_maps(model, tokens[1:], model.encode_texts(TEXTS[2:]), kind)
        torch.testing.assert_close(alone, maps[1:, 2:], atol=1e-5, rtol=1e-4)
