"""The whole task: what it learns, what it leaves untouched, and that it goes on where it stopped."""

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.regions import read_targets
from cmcgns.evaluation.tasks import train_head
from cmcgns.evaluation.tasks.segmentation.decoders import MapStore, MaskSplit, build_decoder
from cmcgns.evaluation.tasks.segmentation.task import TASK
from cmcgns.evaluation.tasks.segmentation.train import measure_overlap
from cmcgns.phantom.dataset import write_dataset
from support.evaluation import figures as figures_of
from support.evaluation import oracle, protocol_of, same

COUNTS = ("intersection", "predicted", "truth")


@pytest.fixture
def resnet():
    return open_encoder("random:resnet18", image_size=32)


def run(job):
    return list(TASK.run(job))


def figures(predictions):
    return {measure.metric: value for measure, value in figures_of(protocol_of("segmentation"), predictions).items()}


def test_an_encoder_that_keeps_everything_lets_everything_be_drawn(rectangles, make_job):
    job = make_job(rectangles, oracle(1, 32), decoder="unet", epochs=25, learning_rate=0.02, batch_size=4)
    ((cell, predictions),) = run(job)
    assert cell == Cell(100, 0)
    assert all(value > 0.98 for value in figures(predictions).values())
    truth = job.data.test.masks().sum((1, 2))
    assert np.array_equal(predictions.arrays["truth"], truth)
    assert predictions.rows.tolist() == [f"{number}.dcm" for number in range(32, 40)]
    assert predictions.patients.tolist() == [f"d:{number // 2}" for number in range(32, 40)]


@pytest.mark.parametrize("name", ["random:resnet18", "random:vit_tiny_patch16_224"])
def test_encoder_and_its_batch_statistics_stay_bit_for_bit(rectangles, make_job, name):
    encoder = open_encoder(name, image_size=32)
    before = {key: value.clone() for key, value in encoder.encoder.state_dict().items()}
    ((_, predictions),) = run(make_job(rectangles, encoder, epochs=2))
    after = encoder.encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module.training for module in encoder.encoder.modules())
    assert all(parameter.grad is None for parameter in encoder.encoder.parameters())
    assert predictions.facts["decoder"] == ("unet" if "resnet" in name else "pup")
    of_runs = predictions.arrays["mask_runs"]
    assert len(of_runs) == predictions.arrays["mask_run_counts"].sum()
    assert all(len(values) == 8 for name, values in predictions.arrays.items() if name != "mask_runs")


def test_batch_size_and_order_do_not_change_what_is_drawn(rectangles, resnet, make_job):
    job = make_job(rectangles, resnet)
    part = MaskSplit("test", job.data.test, read_targets(job.data.test, "masks", 32))
    decoder, order = build_decoder(resnet, job.protocol.task_settings, 0), np.array([5, 2, 7, 0, 1, 3, 6, 4])
    whole = measure_overlap(decoder, MapStore(resnet, 0, 8), part, np.arange(8), job.protocol.task_settings)
    for size in (1, 3):
        found = measure_overlap(decoder, MapStore(resnet, 0, size), part, order, job.protocol.task_settings)
        assert torch.allclose(found.soft, whole.soft[order], rtol=1e-4)
        assert (found.hard - whole.hard[order]).abs().max() <= 1


@pytest.mark.parametrize("limit", ["none", "some", "all"])
def test_memory_for_maps_changes_no_figure(rectangles, resnet, make_job, limit):
    job = make_job(rectangles, resnet)
    expected = run(job)[0][1]
    room = (1 << 20) // MapStore(resnet, 1, 8).image_bytes
    assert 0 < room < 32
    found = run(make_job(rectangles, resnet, cache_limit={"none": 0, "some": 1, "all": 999}[limit]))[0][1]
    assert np.allclose(found.arrays["soft_predicted"], expected.arrays["soft_predicted"], rtol=1e-3)
    kept = found.facts["images_with_maps_kept"]
    assert kept == {"none": 0, "some": room, "all": 32}[limit]


def test_maps_are_computed_once_an_image(rectangles, resnet, make_job, monkeypatch):
    seen = []
    encode = MapStore._encode
    monkeypatch.setattr(MapStore, "_encode", lambda self, pixels: (seen.append(len(pixels)), encode(self, pixels))[1])
    run(make_job(rectangles, resnet, [Cell(50, 0), Cell(50, 1), Cell(100, 0)]))
    assert sum(seen) == 1 + 24 + 8 + 8  # one to measure, then every image of the three splits


def test_goes_on_where_it_was_interrupted(rectangles, resnet, make_job, monkeypatch):
    cells = [Cell(50, 1), Cell(100, 0)]
    whole = run(make_job(rectangles, resnet, cells, epochs=6))
    monkeypatch.setattr(train_head, "SAVE_SECONDS", 0.0)

    def stop(text, _):
        if text.startswith("100-percent-seed-0: epoch 4"):
            raise KeyboardInterrupt

    job = make_job(rectangles, resnet, cells, stop, epochs=6)
    parts = []
    with pytest.raises(KeyboardInterrupt):
        parts.extend(TASK.run(job))
    checkpoint = job.scratch / "100-percent-seed-0.pt"
    assert [file.name for file in job.scratch.iterdir()] == [checkpoint.name]
    told = []
    rest = run(make_job(rectangles, resnet, cells[1:], lambda text, _: told.append(text), epochs=6))
    assert sum("epoch" in text for text in told) == 2  # four of the six were done and saved
    assert same(rest[0][1], whole[1][1])
    assert rest[0][1].facts["epoch"] == whole[1][1].facts["epoch"]
    assert not checkpoint.exists()


def test_a_seed_gives_the_same_result_twice_and_another_one_another(rectangles, resnet, make_job):
    found = [run(make_job(rectangles, resnet, [cell]))[0][1] for cell in (Cell(50, 0), Cell(50, 0), Cell(50, 1))]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_every_epoch_is_long_enough(rectangles, resnet, make_job, monkeypatch):
    shown = []
    read = MapStore.read
    monkeypatch.setattr(
        MapStore,
        "read",
        lambda self, part, *rest: (shown.append((part.name, len(rest[0]))), read(self, part, *rest))[1],
    )
    run(make_job(rectangles, resnet, [Cell(25, 0)], epochs=1, shortest_epoch=5))
    sizes = [size for name, size in shown if name == "train"]
    assert len(sizes) == 5
    assert max(sizes) <= 8


def test_changes_reach_training_images_and_nothing_else(rectangles, resnet, make_job, monkeypatch):
    changed = []
    read = MapStore.read

    def spy(self, part, rows, changes=None):
        changed.append((part.name, changes is not None))
        return read(self, part, rows, changes)

    monkeypatch.setattr(MapStore, "read", spy)
    facts = run(make_job(rectangles, resnet, augment_share=1.0))[0][1].facts
    assert set(changed) == {("train", True), ("val", False), ("test", False)}
    assert facts["images_with_maps_kept"] == 8


def test_boxes_and_stopping_by_dice(rectangles, resnet, make_job):
    found = run(make_job(rectangles, resnet, target="boxes", stop_on="dice", dice_over="image", balance="once"))[0][1]
    assert np.array_equal(found.arrays["truth"], run(make_job(rectangles, resnet, epochs=1))[0][1].arrays["truth"])
    assert 0 <= found.facts["best_score"] <= 1


def test_fractions_are_of_patients_with_and_without_a_mask(rectangles, resnet, make_job):
    found = run(make_job(rectangles, resnet, [Cell(25, seed) for seed in range(3)], epochs=1))
    for _, predictions in found:
        facts = predictions.facts
        assert facts["train_images_with_mask"] + facts["train_images_without_mask"] == 6
        assert facts["train_images_with_mask"] >= 3


def test_what_is_lacking_is_said(rectangles, resnet, make_job):
    data = make_job(rectangles, resnet).data
    assert TASK.lacks(data, resnet) == ""
    data.frame["mask_path"] = ""
    assert TASK.lacks(data, resnet) == "no image of train has masks (column mask_path)"
    boxes = make_job(rectangles, resnet, target="boxes").data
    assert TASK.lacks(boxes, resnet) == ""
    boxes.frame.loc[boxes.frame["part"] == "test", "boxes"] = "[]"
    assert TASK.lacks(boxes, resnet) == "no image of test has boxes (column boxes)"


def test_masks_without_a_pixel_and_diverging_losses_are_faults(rectangles, resnet, make_job):
    with pytest.raises(UserError, match=r"training loss is nan in epoch 1; a lower settings\.learning_rate"):
        run(make_job(rectangles, resnet, learning_rate=1e30))
    from PIL import Image

    for file in (rectangles / "images").glob("m*.png"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(file)
    with pytest.raises(UserError, match="masks of train have not a single pixel inside"):
        run(make_job(rectangles, resnet))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random:resnet18", "random:vit_tiny_patch16_224"])
def test_training_beats_the_untrained_decoder(tmp_path, make_job, name):
    write_dataset(tmp_path / "phantom", {"train": 60, "val": 20, "test": 30})
    encoder = open_encoder(name, image_size=64)
    job = make_job(tmp_path / "phantom", encoder, target="boxes", epochs=15)
    ((_, predictions),) = run(job)
    part = MaskSplit("test", job.data.test, read_targets(job.data.test, "boxes", 64))
    untrained = build_decoder(encoder, job.protocol.task_settings, 0)
    before = measure_overlap(untrained, MapStore(encoder, 0, 8), part, np.arange(30), job.protocol.task_settings)
    trained = figures(predictions)
    start = TASK.measures(
        type(predictions)(
            predictions.rows, predictions.patients, dict(zip(COUNTS, before.hard.numpy().T, strict=True))
        )
    ).compute(np.ones((1, 30)))[0]
    assert trained["dice_positive"] > start[0] + 0.1
    assert trained["dice_positive"] > 0.3
