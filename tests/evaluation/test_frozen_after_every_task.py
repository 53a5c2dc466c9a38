"""Whatever a task does, encoder and report encoder are afterwards what they were, BatchNorm's buffers included."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cmcgns.data.boxes import boxes_text
from cmcgns.evaluation.encoder import FrozenEncoder
from support.evaluation import predict, protocol_of, tiny_run, write_set

BOX = boxes_text([{"label": "Edema", "x": 4, "y": 6, "width": 16, "height": 12}])
EPOCH = {"epochs": 1, "patience": 1}
TASKS: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("linear", {"solver": "adamw", "adamw": EPOCH}),
    ("linear", {"finetune": True, "finetuning": EPOCH}),
    ("knn", {}),
    ("detection", EPOCH | {"head_width": 8}),
    ("detection", EPOCH | {"head_width": 8, "cache_gib": 0}),  # the encoder is asked in every epoch
    ("segmentation", EPOCH | {"target": "boxes", "unet_channels": [8], "shortest_epoch": 1}),
    ("segmentation", EPOCH | {"target": "boxes", "unet_channels": [8], "shortest_epoch": 1, "augment_share": 1}),
    ("patch_probe", {}),
    ("zero_shot", {}),
    ("retrieval", {"classes": True}),
    ("grounding", {}),
    ("presence", {}),
    ("sides", {}),
    ("zero_shot_segmentation", {}),
]


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    """Both encoders of a run, with BatchNorm statistics that are not the ones of the start."""
    found = tiny_run()
    generator = torch.Generator().manual_seed(0)
    for module in found.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.num_batches_tracked.fill_(7)
    return FrozenEncoder("tiny", found.encoder, found.image_size, found.resize, pretrained=found.pretrained)


def content_of(encoder: FrozenEncoder) -> dict[str, bytes]:
    """Weights and buffers of the whole run, bit for bit."""
    state = encoder.pretrained.task.state_dict()
    assert any("running_mean" in name for name in state)
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.parametrize(("task", "settings"), TASKS)
def test_the_encoder_is_bit_identical(
    task: str, settings: dict[str, Any], encoder: FrozenEncoder, tmp_path: Path
) -> None:
    """Pitfall: frozen encoders whose BatchNorm moved."""
    reports = [f"There is left edema of kind {number}." for number in range(26)]
    boxes = [BOX if number % 2 else "[]" for number in range(26)]
    folder = write_set(tmp_path / "data", boxes=boxes, report=reports, label_Pneumonia=[1, 0] * 13)
    before = content_of(encoder)
    predict(protocol_of(task, settings, whole_image=True), folder, encoder)
    assert content_of(encoder) == before
    assert not any(module.training for module in encoder.encoder.modules())
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in encoder.encoder.parameters()
    )
    encoder.check_unchanged()


def test_a_single_step_of_batchnorm_is_noticed(encoder: FrozenEncoder) -> None:
    """What the comparison above rests on."""
    before = content_of(encoder)
    norm = next(module for module in encoder.encoder.modules() if isinstance(module, nn.BatchNorm2d))
    norm.num_batches_tracked += 1
    try:
        assert content_of(encoder) != before
        with pytest.raises(RuntimeError, match="was changed by a task"):
            encoder.check_unchanged()
    finally:
        norm.num_batches_tracked -= 1
    encoder.check_unchanged()


def test_an_encoder_is_another_one_with_another_attention(encoder: FrozenEncoder) -> None:
    """Heat maps and local scores are made by it; pooled features are not."""
    assert encoder.pretrained is not None
    key = encoder.pretrained.task.objective.attention.image_key.weight
    before, number = (encoder.features_sha256, encoder.sha256), key[0, 0].item()
    with torch.no_grad():
        key[0, 0] += 1
    try:
        assert encoder._hashes()[0] == before[0]
        assert encoder._hashes()[1] != before[1]
    finally:
        with torch.no_grad():
            key[0, 0] = number
    encoder.check_unchanged()
