"""Fine-tuning trains a copy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.learned import FinetuneSettings
from cmcgns.evaluation.tasks import train_head
from cmcgns.evaluation.tasks.linear.finetune import Classifier, layer_groups
from cmcgns.metrics.measure import Measure
from support.evaluation import figures, oracle, run
from support.linear import make_job, write_images

SETTINGS = {"finetune": True, "finetuning": {"epochs": 4, "head_learning_rate": 0.05, "learning_rate": 0.01}}


def test_it_learns_and_the_frozen_encoder_stays_bit_identical(tmp_path):
    encoder = oracle()
    before = {name: value.clone() for name, value in encoder.encoder.state_dict().items()}
    job = make_job(write_images(tmp_path / "d"), tmp_path, settings=SETTINGS, encoder=encoder)
    predictions = run(job)[job.cells[0]]
    assert figures(job, predictions)[Measure("auroc")] > 0.95
    assert predictions.facts["finetuned"] is True
    assert all((value == before[name]).all() for name, value in encoder.encoder.state_dict().items())
    encoder.check_unchanged()
    assert not list(job.scratch.glob("*"))


def test_an_interrupted_training_goes_on_to_the_same_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(train_head, "SAVE_SECONDS", 0.0)
    folder, cell = write_images(tmp_path / "d"), Cell(100, 1)
    whole = run(make_job(folder, tmp_path / "a", settings=SETTINGS, cells=(cell,)))[cell]
    job = make_job(folder, tmp_path / "b", settings=SETTINGS, cells=(cell,))

    def stop(_, share):
        if share >= 0.5:
            raise KeyboardInterrupt

    job = replace(job, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    epochs = []
    job = replace(job, progress=lambda _, share: epochs.append(share))
    resumed = run(job)[cell]
    assert epochs == [0.75, 1.0]
    np.testing.assert_array_equal(resumed.arrays["scores"], whole.arrays["scores"])


def test_test_rows_choose_nothing(tmp_path):
    job = make_job(write_images(tmp_path / "d"), tmp_path / "a", settings=SETTINGS)
    plain = run(job)[job.cells[0]]
    again = make_job(tmp_path / "d", tmp_path / "b", settings=SETTINGS)
    again.data.test.labels[:] = again.data.test.labels[::-1].copy()
    np.testing.assert_array_equal(run(again)[job.cells[0]].arrays["scores"], plain.arrays["scores"])


@pytest.mark.parametrize(("name", "steps"), [("resnet18", 4), ("vit_tiny_patch16_224", 12)])
def test_learning_rates_fall_from_layer_to_layer(name, steps):
    encoder = open_encoder(f"random:{name}", image_size=32)
    settings = FinetuneSettings(learning_rate=1.0, layer_decay=0.5, head_learning_rate=7.0)
    model = Classifier(encoder.trainable_copy(), encoder.width, 2)
    groups = layer_groups(model, settings)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(rate) == len(wanted) == sum(len(group["params"]) for group in groups)
    body = model.encoder.body
    blocks = [body.layer1, body.layer4] if name == "resnet18" else [body.blocks[0], body.blocks[11]]
    first, last = (rate[id(next(iter(block.parameters())))] for block in blocks)
    stem = rate[id(body.conv1.weight if name == "resnet18" else body.patch_embed.proj.weight)]
    assert (last, first, stem) == (1.0, 0.5 ** (steps - 1), 0.5**steps)
    assert rate[id(model.head.weight)] == 7.0


def test_the_copy_is_in_training_mode_and_of_its_own():
    encoder = oracle()
    copy = encoder.trainable_copy()
    assert copy.training
    assert all(parameter.requires_grad for parameter in copy.parameters())
    with torch.no_grad():
        next(copy.parameters()).add_(1)
    encoder.check_unchanged()
