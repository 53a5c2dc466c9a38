"""The published probe: the same steps as PyTorch's own layer and optimiser, faster."""

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.protocols.task_settings import LegacySettings
from cmcgns.evaluation.tasks.linear import legacy
from cmcgns.evaluation.tasks.linear.legacy import Lesson, train_probe
from cmcgns.metrics.ranking import mean_auroc


def lesson(outcome="binary", n=150, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(9).normal(size=(8, 3))
    x = rng.normal(size=(n + 60, 8)).astype(np.float32)
    logits = x @ truth
    y = (logits > 0).astype(float) if outcome == "binary" else np.eye(3)[logits.argmax(1)]
    if outcome == "binary":
        y[rng.random(y.shape) < missing] = np.nan
    return Lesson(x[:n], y[:n], np.arange(n), x[n:], y[n:], outcome)


def reference(task: Lesson, seed: int, settings: LegacySettings) -> tuple[torch.nn.Linear, list[float]]:
    """A plain loop over batches with PyTorch's layer, loss and optimiser."""
    classes = task.labels.shape[1]
    layer = torch.nn.Linear(task.train.shape[1], classes)
    start = legacy._start(classes, task.train.shape[1], seed).parameters
    with torch.no_grad():
        layer.weight.copy_(start[:-classes].view_as(layer.weight))
        layer.bias.copy_(start[-classes:])
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
    task, settings = lesson(outcome), LegacySettings(epochs=6, learning_rate=0.01, weight_decay=0.1, batch_size=32)
    layer, losses = reference(task, 3, settings)
    found = train_probe(task, 3, settings)
    assert (found.epochs, found.best_epoch) == (6, 6)  # still falling: the best epoch is the last
    assert found.val_loss == pytest.approx(losses[-1], abs=1e-5)
    np.testing.assert_allclose(found.weight, layer.weight.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(found.bias, layer.bias.detach().numpy(), atol=1e-4)


def test_it_learns():
    task = lesson(n=600)
    found = train_probe(task, 0, LegacySettings(learning_rate=0.02))
    assert mean_auroc(found.logits(task.val), task.val_labels)[0] > 0.98


def test_it_stops_after_the_patience_and_keeps_the_best_epoch():
    task = lesson(n=30)
    noise = (np.random.default_rng(1).random(task.val_labels.shape) < 0.5).astype(float)
    task = Lesson(task.train, task.labels, task.rows, task.val, noise)
    settings = LegacySettings(learning_rate=0.05, patience=4)
    losses = []
    found = train_probe(task, 0, settings, progress=lambda _, loss: losses.append(loss))
    assert found.epochs == found.best_epoch + 4 < 100
    assert found.val_loss == min(losses) == losses[found.best_epoch - 1]
    cut = train_probe(task, 0, LegacySettings(learning_rate=0.05, epochs=found.best_epoch))
    np.testing.assert_array_equal(found.weight, cut.weight)


def test_a_seed_decides_everything():
    task, settings = lesson(), LegacySettings(epochs=3)
    first, again, other = (train_probe(task, seed, settings) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.weight, again.weight)
    assert (first.weight != other.weight).any()


def test_only_the_wanted_rows_are_learnt_from():
    whole = lesson()
    rows = np.arange(0, 150, 3)
    settings = LegacySettings(epochs=3)
    part = train_probe(Lesson(whole.train, whole.labels, rows, whole.val, whole.val_labels), 0, settings)
    cut = Lesson(whole.train[rows], whole.labels[rows], np.arange(50), whole.val, whole.val_labels)
    np.testing.assert_array_equal(part.weight, train_probe(cut, 0, settings).weight)


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(legacy, "_SAVE_AFTER", -1.0)
    task, settings, file = lesson(), LegacySettings(epochs=8), tmp_path / "state.pt"
    whole = train_probe(task, 0, settings)

    def stop(epoch, _):
        if epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_probe(task, 0, settings, file, "key", stop)
    epochs = []
    resumed = train_probe(task, 0, settings, file, "key", lambda epoch, _: epochs.append(epoch))
    assert epochs == [5, 6, 7, 8]
    np.testing.assert_array_equal(resumed.weight, whole.weight)
    epochs.clear()
    train_probe(task, 0, settings, file, "other key", lambda epoch, _: epochs.append(epoch))
    assert epochs[0] == 1


def test_bad_input_is_refused():
    task = lesson()
    blind = Lesson(task.train, task.labels, task.rows, task.val, task.val_labels * np.nan)
    with pytest.raises(UserError, match="no validation image has a label"):
        train_probe(blind, 0, LegacySettings())
    endless = Lesson(task.train * np.float32(np.inf), task.labels, task.rows, task.val, task.val_labels)
    with pytest.raises(UserError, match="diverged in epoch 1"):
        train_probe(endless, 0, LegacySettings())
