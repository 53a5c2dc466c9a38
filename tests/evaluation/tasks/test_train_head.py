"""The trainer of all heads: it stops early, keeps the best weights, and goes on where it was interrupted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.evaluation.tasks.train_head import Head, Schedule, even_batches, train_head


class Regression(Head[np.ndarray]):
    """A layer with dropout; validation may be scripted."""

    def __init__(self, figures=(), rate=0.05, nothing_at=()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        super().__init__(model, torch.optim.AdamW(model.parameters(), lr=rate), f"rate than {rate:g}")
        self.x = torch.randn(24, 4)
        self.y = self.x.sum(1, keepdim=True)
        self.figures, self.nothing_at, self.weights, self.modes = dict(enumerate(figures)), nothing_at, [], []
        self.epoch = 0

    def batches(self, epoch):
        self.epoch = epoch
        return np.array_split(np.random.default_rng(epoch).permutation(24), 3)

    def loss(self, batch):
        self.modes.append(self.model.training)
        return None if self.epoch in self.nothing_at else ((self.model(self.x[batch]) - self.y[batch]) ** 2).mean()

    def validate(self):
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.weights.append({name: value.clone() for name, value in self.model.state_dict().items()})
        real = float(((self.model(self.x) - self.y) ** 2).mean())
        return self.figures.get(self.epoch, real)


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_it_learns_and_ends_in_eval_mode():
    head = Regression()
    seen = []
    trained = train_head(head, Schedule(40, 40, progress=lambda *state: seen.append(state)))
    assert [epoch for epoch, _ in seen] == list(range(1, 41))
    assert trained.best == min(figure for _, figure in seen) < seen[0][1] / 4
    assert all(head.modes)
    assert not head.model.training


def test_it_stops_after_the_patience_with_the_weights_of_the_best_epoch():
    head = Regression([3.0, 2.0, 2.5, 2.0, 2.2, 1.0])
    trained = train_head(head, Schedule(6, 3))
    assert (trained.epochs, trained.best_epoch, trained.best) == (5, 2, 2.0)
    assert same(head.model.state_dict(), head.weights[1])
    assert not same(head.weights[1], head.weights[4])


class Interrupted(Exception):
    pass


def interrupted_after(epoch, head, schedule):
    def stop(done, _):
        if done == epoch:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_head(head, replace(schedule, progress=stop))


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    schedule = Schedule(8, 8, seed=3, checkpoint=tmp_path / "a" / "head.pt", key="k", save_seconds=0)
    figures = [5, 4, 1, 3, 3, 3, 0.5, 2]
    straight = Regression(figures)
    whole = train_head(straight, replace(schedule, checkpoint=None))
    interrupted_after(5, Regression(figures), schedule)
    resumed, epochs = Regression(figures), []
    torch.manual_seed(99)  # nothing depends on the global random state
    trained = train_head(resumed, replace(schedule, progress=lambda epoch, _: epochs.append(epoch)))
    assert epochs == [6, 7, 8]
    assert same(straight.model.state_dict(), resumed.model.state_dict())
    assert (trained.epochs, trained.best_epoch, trained.best) == (whole.epochs, whole.best_epoch, whole.best)
    assert trained.seconds > 0


def test_the_best_weights_outlive_an_interruption(tmp_path):
    schedule = Schedule(8, 4, checkpoint=tmp_path / "head.pt", key="k", save_seconds=0)
    first = Regression([5, 1, 3, 3, 3, 3])
    interrupted_after(4, first, schedule)
    second = Regression([5, 1, 3, 3, 3, 3])
    assert train_head(second, schedule).best_epoch == 2
    assert same(second.model.state_dict(), first.weights[1])


def test_a_checkpoint_of_another_key_or_a_damaged_one_is_not_used(tmp_path):
    file = tmp_path / "head.pt"
    schedule = Schedule(3, 3, checkpoint=file, key="k", save_seconds=0)
    interrupted_after(2, Regression(), schedule)
    content = file.read_bytes()
    alone = Regression()
    train_head(alone, replace(schedule, checkpoint=None))
    for key, damaged in (("other", content), ("k", content[:1000]), ("k", b"")):
        file.write_bytes(damaged)
        head = Regression()
        train_head(head, replace(schedule, key=key))
        assert len(head.weights) == 3  # all epochs
        assert same(head.model.state_dict(), alone.model.state_dict())


def test_between_two_checkpoints_some_time_passes(tmp_path):
    train_head(Regression(), Schedule(3, 3, checkpoint=tmp_path / "head.pt", save_seconds=60))
    assert not list(tmp_path.iterdir())


def test_nothing_but_the_seed_decides_and_the_global_random_state_stays():
    weights = []
    for before, seed in ((1, 0), (2, 0), (1, 5)):
        head = Regression()
        torch.manual_seed(before)
        state = torch.get_rng_state()
        train_head(head, Schedule(2, 2, seed))
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(head.model.state_dict())
    assert same(weights[0], weights[1])
    assert not same(weights[0], weights[2])


def test_a_loss_that_is_not_finite_stops_the_training_with_a_way_out():
    with pytest.raises(
        UserError, match=r"the training loss is (nan|inf) in epoch 1; a lower rate than 1e\+30 may help"
    ):
        train_head(Regression(rate=1e30), Schedule(3, 3))
    with pytest.raises(UserError, match="the validation loss is nan in epoch 2"):
        train_head(Regression([1.0, float("nan")]), Schedule(3, 3))


def test_batches_that_teach_nothing_are_passed_over():
    head = Regression(nothing_at=(0,))
    before = {name: value.clone() for name, value in head.model.state_dict().items()}
    train_head(head, Schedule(1, 1))
    assert same(before, head.model.state_dict())


@pytest.mark.parametrize(
    ("rows", "size", "sizes"), [(1, 8, [2]), (5, 2, [3, 2]), (9, 8, [5, 4]), (16, 8, [8, 8]), (3, 1, [3])]
)
def test_no_batch_has_a_single_image(rows, size, sizes):
    """BatchNorm of one image is undefined, or a matter of its places alone."""
    batches = even_batches(np.arange(rows) + 7, size, seed=0, epoch=1)
    assert [len(batch) for batch in batches] == sizes
    assert set(np.concatenate(batches)) == set(range(7, 7 + rows))
