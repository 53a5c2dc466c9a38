"""The published probe: the steps of a plain loop, stopped by validation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.task_settings.learned import LegacySettings
from cmcgns.evaluation.tasks.linear.legacy import LayerData, LayerHead
from cmcgns.evaluation.tasks.train_head import Schedule, train_head
from cmcgns.metrics.ranking import mean_auroc


def layer_data(outcome="binary", n=150, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(9).normal(size=(8, 3))
    x = rng.normal(size=(n + 60, 8)).astype(np.float32)
    logits = x @ truth
    y = (logits > 0).astype(float) if outcome == "binary" else np.eye(3)[logits.argmax(1)]
    if outcome == "binary":
        y[rng.random(y.shape) < missing] = np.nan
    return LayerData(x[:n], y[:n], np.arange(n), x[n:], y[n:], outcome)


def parameters(head: LayerHead) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, F) and biases (C,)."""
    weight, bias = (head.model.state_dict()[name].numpy().copy() for name in ("weight", "bias"))
    return weight, bias


def train(task: LayerData, seed: int, settings: LegacySettings, **schedule):
    """The trained layer, and how the training went."""
    head = LayerHead(task, settings, seed)
    return head, train_head(head, Schedule(settings.epochs, settings.patience, seed, **schedule))


def reference(task: LayerData, seed: int, settings: LegacySettings) -> tuple[torch.nn.Linear, list[float]]:
    """A plain loop over batches with PyTorch's layer, loss and optimiser."""
    classes = task.labels.shape[1]
    layer = torch.nn.Linear(task.train.shape[1], classes)
    weight, bias = parameters(LayerHead(task, settings, seed))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def loss_of(x, y):
        logits, y = layer(torch.from_numpy(x)), torch.from_numpy(y).float()
        if task.outcome == "multiclass":
            return torch.nn.functional.cross_entropy(logits, y.argmax(1))
        known = ~y.isnan()
        return torch.nn.functional.binary_cross_entropy_with_logits(logits[known], y[known])

    losses = []
    for epoch in range(settings.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(task.rows))
        for first in range(0, len(order), settings.batch_size):
            rows = task.rows[order[first : first + settings.batch_size]]
            optimizer.zero_grad()
            loss_of(task.train[rows], task.labels[rows]).backward()
            optimizer.step()
        losses.append(loss_of(task.val, task.val_labels).item())
    return layer, losses


@pytest.mark.parametrize("outcome", ["binary", "multiclass"])
def test_steps_are_those_of_pytorch_and_the_last_batches_count(outcome):
    task = layer_data(outcome)
    settings = LegacySettings(epochs=6, learning_rate=0.01, weight_decay=0.1, batch_size=32)
    layer, losses = reference(task, 3, settings)
    head, found = train(task, 3, settings)
    assert (found.epochs, found.best_epoch) == (6, 6)  # still falling: the best epoch is the last
    assert found.best == pytest.approx(losses[-1], abs=1e-5)
    weight, bias = parameters(head)
    np.testing.assert_allclose(weight, layer.weight.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(bias, layer.bias.detach().numpy(), atol=1e-4)


def test_it_learns():
    task = layer_data(n=600)
    head, _ = train(task, 0, LegacySettings(learning_rate=0.02))
    assert mean_auroc(head.logits(task.val), task.val_labels)[0] > 0.98


def test_it_stops_after_the_patience_and_keeps_the_best_epoch():
    task = layer_data(n=30)
    noise = (np.random.default_rng(1).random(task.val_labels.shape) < 0.5).astype(float)
    task = replace(task, val_labels=noise)
    losses = []
    settings = LegacySettings(learning_rate=0.05, patience=4)
    head, found = train(task, 0, settings, progress=lambda _, loss: losses.append(loss))
    assert found.epochs == found.best_epoch + 4 < 100
    assert found.best == min(losses) == losses[found.best_epoch - 1]
    cut, _ = train(task, 0, LegacySettings(learning_rate=0.05, epochs=found.best_epoch))
    np.testing.assert_array_equal(parameters(head)[0], parameters(cut)[0])


def test_a_seed_decides_everything():
    task, settings = layer_data(), LegacySettings(epochs=3)
    first, again, other = (parameters(train(task, seed, settings)[0])[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_only_the_wanted_rows_are_learnt_from():
    whole, rows, settings = layer_data(), np.arange(0, 150, 3), LegacySettings(epochs=3)
    part, _ = train(replace(whole, rows=rows), 0, settings)
    cut, _ = train(
        replace(whole, train=whole.train[rows], labels=whole.labels[rows], rows=np.arange(50)), 0, settings
    )
    np.testing.assert_array_equal(parameters(part)[0], parameters(cut)[0])


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    task, settings = layer_data(), LegacySettings(epochs=8)
    kept = {"checkpoint": tmp_path / "state.pt", "key": "key", "save_seconds": 0}
    whole, _ = train(task, 0, settings)

    def stop(epoch, _):
        if epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task, 0, settings, progress=stop, **kept)
    epochs = []
    resumed, _ = train(task, 0, settings, progress=lambda epoch, _: epochs.append(epoch), **kept)
    assert epochs == [6, 7, 8]
    np.testing.assert_array_equal(parameters(resumed)[0], parameters(whole)[0])


def test_a_training_that_diverges_names_the_setting():
    task = layer_data()
    with pytest.raises(UserError, match=r"is nan in epoch 1; a lower settings\.adamw\.learning_rate than 0\.0005"):
        train(replace(task, train=task.train * np.float32(np.inf)), 0, LegacySettings())
