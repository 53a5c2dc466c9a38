"""Weights of other programs: towers as transformers gives them, maps, scores, and what is refused."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from cmcgns.cli.app import app
from cmcgns.common.errors import UserError
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.phantom import write_dataset
from cmcgns.pretrained.foreign import ForeignPair, pool_alone
from support.foreign import TEXTS, change_json, folder_of

KINDS = ("clip", "siglip", "dual")


def opened(kind: str, folder: Path) -> tuple[FrozenEncoder, ForeignPair]:
    encoder = open_encoder(f"transformers:{folder_of(kind, folder)}")
    assert isinstance(encoder.pretrained, ForeignPair)
    return encoder, encoder.pretrained


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def images_of(encoder: FrozenEncoder, count: int = 3) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 40, 40), dtype=np.uint8)
    return encoder.tensors(pixels)


def test_images_come_to_the_tower_with_its_own_size_and_statistics(tmp_path: Path) -> None:
    encoder, _ = opened("clip", tmp_path)
    pixels = np.full((1, 40, 40), 51, dtype=np.uint8)  # a fifth of white
    expected = (torch.full((3,), 0.2) - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.25])
    found = encoder.tensors(pixels)
    assert found.shape == (1, 3, 32, 32)
    torch.testing.assert_close(found, expected[None, :, None, None].expand_as(found))


def test_embeddings_are_what_the_library_gives(kind: str, tmp_path: Path) -> None:
    encoder, pair = opened(kind, tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    images = images_of(encoder)
    padding = {"padding": "max_length", "max_length": 24} if kind == "siglip" else {"padding": True}
    given = tokenizer(TEXTS, return_tensors="pt", **padding)
    with torch.no_grad():
        image = F.normalize(model.get_image_features(pixel_values=images).pooler_output, dim=-1)
        text = F.normalize(model.get_text_features(**given).pooler_output, dim=-1)
    np.testing.assert_allclose(pair.embed_tensors(images), image, atol=1e-6)
    np.testing.assert_allclose(pair.embed_text(TEXTS), text, atol=1e-6)
    np.testing.assert_allclose(pair.embed_text(TEXTS, batch_size=1), text, atol=1e-5)


def test_tokens_are_the_patches_in_order_and_maps_are_hidden_states(kind: str, tmp_path: Path) -> None:
    encoder, pair = opened(kind, tmp_path)
    images = images_of(encoder)
    with torch.no_grad():
        found = pair.pair.vision_model(pixel_values=images, output_hidden_states=True)
    tokens = encoder.tokens(images)
    assert tokens.shape == (3, 16, 16)
    torch.testing.assert_close(tokens, found.last_hidden_state[:, -16:])
    assert encoder.strides == (8, 8, 8, 8)
    for level, block in zip(encoder.maps(images), (1, 2, 3, 4), strict=True):  # of five, as of timm's transformers
        torch.testing.assert_close(level.flatten(2).transpose(1, 2), found.hidden_states[block + 1][:, -16:])


def test_a_patch_alone_is_treated_as_the_class_token_is(tmp_path: Path) -> None:
    for name in ("clip", "dual"):
        encoder, pair = opened(name, tmp_path / name)
        images = images_of(encoder)
        with torch.no_grad():
            classes = pair.pair.vision_model(pixel_values=images).last_hidden_state[:, :1]
            found = F.normalize(pool_alone(pair.pair, classes)[:, 0], dim=-1)
        np.testing.assert_allclose(found, pair.embed_tensors(images), atol=1e-6)


def test_siglips_head_sees_one_patch_at_a_time(tmp_path: Path) -> None:
    encoder, pair = opened("siglip", tmp_path)
    tokens = encoder.tokens(images_of(encoder))
    with torch.no_grad():
        found = pool_alone(pair.pair, tokens)
        torch.testing.assert_close(found[1, 5], pair.pair.vision_model.head(tokens[1:2, 5:6])[0])


def test_maps_are_cosines_of_patches_with_phrases(kind: str, tmp_path: Path) -> None:
    encoder, pair = opened(kind, tmp_path)
    tokens, phrases = encoder.tokens(images_of(encoder)), pair.encode_texts(TEXTS)
    maps = pair.patch_maps(tokens, phrases, pair.map)
    assert pair.map == "pooled"
    assert maps.shape == (3, 3, 16)
    alone = pool_alone(pair.pair, tokens)[2, 7]
    assert float(maps[2, 1, 7]) == pytest.approx(float(F.cosine_similarity(alone, phrases[1][1], dim=0)), abs=1e-5)


def test_long_texts_are_cut_and_that_is_said(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, pair = opened(kind, tmp_path)
    caplog.clear()
    pair.embed_text(TEXTS)
    assert not caplog.messages
    pair.embed_text([TEXTS[0], " ".join(TEXTS * 9)])
    assert caplog.messages == ["1 of 2 texts have more than 24 word pieces: cut"]
    with pytest.raises(UserError, match=r"text 1 \('- '\) holds no words"):
        pair.embed_text([TEXTS[0], "- "])


def test_an_image_encoder_alone_has_no_text(tmp_path: Path) -> None:
    encoder = open_encoder(f"transformers:{folder_of('dinov2', tmp_path / 'random-vit')}")
    assert encoder.pretrained is None
    assert not encoder.seen_nothing  # whatever its folder is called
    assert "no report encoder" in encoder.lacks_report_encoder()
    larger = encoder.at_size(48)
    assert larger.tokens(torch.zeros(1, 3, 48, 48)).shape == (1, 36, 16)


def test_a_pair_is_judged_by_everything_that_needs_text(tmp_path: Path) -> None:
    folder, data, out = folder_of("clip", tmp_path / "pair"), tmp_path / "data", tmp_path / "out"
    write_dataset(data, {"train": 24, "val": 8, "test": 24}, size=48)
    protocols = "phantom-zero-shot/v1,retrieval/v1,phantom-grounding/v1,phantom-presence/v1"
    call = ["evaluate", f"transformers:{folder}", "--protocol", protocols, "--data", str(data), "--out", str(out)]
    answer = CliRunner().invoke(app, call)
    assert answer.exit_code == 0, answer.output
    said = (out / "results.csv").read_text()
    for measure in ("auroc", "report_to_image_r@10", "pointing_default", "map_auroc"):
        assert f",{measure}," in said
    call[call.index(protocols)] = "retrieval/v1"
    answer = CliRunner().invoke(app, [*call[:-1], str(tmp_path / "other"), "--set", "settings.by=local"])
    assert answer.exit_code == 1
    assert "weights of another program have a global score alone" in " ".join(answer.output.split())


def set_tokenizer(folder: Path, **settings: Any) -> None:
    change_json(folder / "tokenizer_config.json", **settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("[]"), "settings are a JSON object"),
        (lambda folder: (folder / "preprocessor_config.json").write_text('{"size": 32}'), "image_mean"),
        (lambda folder: (folder / "model.safetensors").unlink(), "a folder without a weights file"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "its tokenizer cannot be opened"),
        (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "its tokenizer knows no word piece"),
        (
            partial(set_tokenizer, pad_token=None),
            "its tokenizer names no pad_token",
        ),
        (
            partial(set_tokenizer, model_max_length="many"),
            "its tokenizer has model_max_length 'many', no count",
        ),
        (
            partial(set_tokenizer, model_max_length=0),
            "its tokenizer has model_max_length 0, no count",
        ),
    ],
)
def test_what_is_missing_is_named(change: Any, said: str, tmp_path: Path) -> None:
    folder_of("clip", tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=said):
        open_encoder(f"transformers:{tmp_path}")


def without(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if part not in name}


def with_nan(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"visual_projection.weight": tensors["visual_projection.weight"] * math.nan}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (partial(without, "projection"), r"lack text_projection\.weight, visual_projection\.weight of CLIPModel"),
        (partial(without, "text_model"), r"the weights lack text_model.* and \d+ more of CLIPModel"),
        (lambda tensors: {f"module.{name}": value for name, value in tensors.items()}, r"lack .*; it has module\."),
        (with_nan, "the weights of visual_projection.weight are not finite"),
    ],
)
def test_weights_that_are_not_all_there_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    """What stays as it was drawn would be judged as if it had been trained."""
    file = folder_of("clip", tmp_path) / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=said):
        open_encoder(f"transformers:{tmp_path}")


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder; `hf download"):
        open_encoder(f"transformers:{tmp_path / 'none'}")
    folder = folder_of("clip", tmp_path / "clip")
    with pytest.raises(UserError, match="says size and normalisation"):
        open_encoder(f"transformers:{folder}", image_size=64)
