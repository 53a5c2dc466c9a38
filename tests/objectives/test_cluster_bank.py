"""The cluster bank: when it starts, how it moves, what it remembers."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.centroids import assign_two, move_centroids
from cmcgns.objectives.cluster_bank import ClusterBank
from support.objectives import Golden, assert_value, clusters_of, new_bank, unit


def observe(
    bank: ClusterBank, z1: Tensor, z2: Tensor, mask: Tensor | None = None, text: Tensor | None = None
) -> None:
    mask = torch.ones(len(z1), dtype=torch.bool) if mask is None else mask
    text = torch.arange(len(z1)) + 1000 * int(bank.steps) if text is None else text
    bank.observe(z1, z2, mask, text)


def started_bank(dim: int = 8, clusters: int = 4) -> ClusterBank:
    bank = new_bank(dim, clusters, start_cosine=1.0, check_every=1, rate=0.1)
    vectors = unit(40, dim, seed=3)
    observe(bank, vectors, vectors)
    assert bank.is_started
    return bank


def later_steps(golden: Golden) -> range:
    return range(1, len(golden["z_sentence"]))


def golden_bank(golden: Golden, start: str, **options: object) -> ClusterBank:
    clusters, dim = golden[start].shape
    bank = new_bank(dim, clusters, **options)  # type: ignore[arg-type]
    bank.start(golden[start])
    return bank


def test_released_centroids_over_all_steps(golden: Golden) -> None:
    bank = golden_bank(golden, "centroids_after_init", rate=1e-3, update="sum")
    for step in later_steps(golden):
        observe(bank, golden["z_sentence"][step], golden["z_cross_modal"][step])
        torch.testing.assert_close(bank.centroids, golden["centroids"][step - 1], rtol=0, atol=1e-6)
        clusters = clusters_of(golden["z_sentence"][step], bank.centroids)
        assert torch.equal(clusters.own, golden["cluster_index"][step - 1])
        assert torch.equal(clusters.hard, golden["hard_negative_index"][step - 1])


def test_described_centroids_over_all_steps(golden: Golden) -> None:
    bank = golden_bank(golden, "described/centroids_after_init", rate=0.05)
    for step in later_steps(golden):
        observe(bank, golden["z_sentence"][step], golden["z_cross_modal"][step])
        torch.testing.assert_close(bank.centroids, golden[f"described/step{step}/centroids"], rtol=0, atol=1e-6)
        clusters = clusters_of(golden["z_sentence"][step], bank.centroids)
        assert torch.equal(clusters.own, golden[f"described/step{step}/cluster_index"])
        assert torch.equal(clusters.hard, golden[f"described/step{step}/hard_negative_index"])


def test_mean_cosine_is_that_of_the_whole_matrix(golden: Golden) -> None:
    for step in range(len(golden["z_sentence"])):
        z1, z2 = golden["z_sentence"][step], golden["z_cross_modal"][step]
        bank = new_bank(z1.shape[1], 100)
        padded = F.pad(z1, (0, 0, 0, 3), value=0.5), F.pad(z2, (0, 0, 0, 3), value=0.5)
        observe(bank, *padded, mask=torch.arange(len(z1) + 3) < len(z1))
        assert_value(bank.mean_cosine, golden["avg_cos"][step])


def test_an_unused_centroid_is_neither_nearest_nor_second() -> None:
    centroids = torch.cat([torch.zeros(1, 8), unit(3, 8)])
    vectors = -unit(3, 8).sum(0, keepdim=True)  # farther from all real centroids than from the zero one
    found = assign_two(F.normalize(vectors, dim=-1), centroids, torch.tensor([False, True, True, True]))
    assert found.own > 0
    assert found.hard > 0
    assert found.own != found.hard


def test_pitfall_09_centroids_are_unit_means_not_sums() -> None:
    bank = new_bank(3, 2, rate=0.25)
    bank.start(torch.eye(3)[:2])
    members = F.normalize(torch.tensor([[1.0, 0.0, 0.2], [1.0, 0.0, 0.6], [0.9, 0.1, 0.0]]), dim=-1)
    observe(bank, members, members)
    expected = F.normalize(0.75 * torch.eye(3)[0] + 0.25 * members.mean(0), dim=-1)
    torch.testing.assert_close(bank.centroids, torch.stack([expected, torch.eye(3)[1]]))  # the empty one stays


def test_pitfall_09_centroids_stay_unit_however_many_members() -> None:
    bank = started_bank()
    for step in range(30):
        vectors = unit(500, 8, seed=step)
        observe(bank, vectors, vectors)
        torch.testing.assert_close(bank.centroids.norm(dim=-1), torch.ones(4))


def test_released_move_adds_the_sum() -> None:
    moved = move_centroids(torch.eye(2), torch.tensor([[3.0, 1.0], [0.0, 0.0]]), torch.tensor([4.0, 0.0]), 0.1, "sum")
    torch.testing.assert_close(moved, torch.tensor([[0.9 + 0.3, 0.1], [0.0, 1.0]]))


def test_pitfall_09_centroids_follow_planted_groups() -> None:
    centers = unit(4, 16, seed=1)
    bank = new_bank(16, 4, rate=0.2, start_cosine=1.0, check_every=1)
    for step in range(60):
        group = torch.arange(40) % 4
        vectors = F.normalize(centers[group] + 0.3 * unit(40, 16, seed=step + 10), dim=-1)
        observe(bank, vectors, vectors)
    assert (bank.centroids @ centers.T).max(1).values.min() > 0.98
    assert len((bank.centroids @ centers.T).argmax(1).unique()) == 4


def test_pitfall_09_few_sentences_queue_up_over_batches() -> None:
    bank = new_bank(8, 10, start_cosine=1.0, check_every=1)
    for step in range(4):
        assert not bank.is_started
        vectors = unit(3, 8, seed=step)
        observe(bank, vectors, vectors)
    assert bank.is_started
    assert bank.active.all()
    queue = torch.cat([unit(3, 8, seed=step) for step in range(4)])
    assert (bank.centroids @ queue.T).max(1).values.min() > 1 - 1e-6
    assert len((bank.centroids @ queue.T).argmax(1).unique()) == 10


def test_start_waits_for_its_first_allowed_step() -> None:
    bank = new_bank(8, 2, start_cosine=1.0, check_every=1, start_from_step=5)
    for step in range(5):
        assert not bank.is_started, step
        vectors = unit(6, 8, seed=step)
        observe(bank, vectors, vectors)
    assert bank.is_started


def test_verbatim_repeats_do_not_count_as_distinct_sentences() -> None:
    bank = new_bank(8, 3, start_cosine=1.0, check_every=1)
    for step in range(5):
        observe(bank, unit(4, 8, seed=step), unit(4, 8, seed=step), text=torch.tensor([7, 7, 8, 8]))
    assert not bank.is_started
    observe(bank, unit(4, 8, seed=9), unit(4, 8, seed=9), text=torch.tensor([7, 7, 8, 9]))
    assert bank.is_started


def test_padding_is_not_queued() -> None:
    bank = new_bank(8, 4, start_cosine=1.0, check_every=1, queue_size=6)
    mask = torch.tensor([True, False, True, False])
    observe(bank, unit(4, 8), unit(4, 8, seed=1), mask=mask, text=torch.tensor([6, 1, 8, 3]))
    assert bank.seeds().tolist() == [0, 2]  # every text has its place: its number, counted round
    torch.testing.assert_close(bank.queue[[0, 2]], torch.stack([unit(4, 8), unit(4, 8, seed=1)], 1)[mask])


def test_the_queue_keeps_the_newest_of_every_text() -> None:
    bank = new_bank(8, 5, start_cosine=-1.0, queue_size=64)
    vectors = unit(6, 8)
    for step, texts in enumerate(([7, 5, 7], [3, 7, 5])):  # within one step, and over steps
        part = vectors[3 * step : 3 * step + 3]
        observe(bank, part, part, text=torch.tensor(texts))
    assert bank.seeds().tolist() == [3, 5, 7]
    torch.testing.assert_close(bank.queue[[3, 5, 7], 0], vectors[[3, 5, 4]])


def test_sentences_that_were_not_seen_for_long_seed_nothing() -> None:
    """Their vectors are where the encoder was then; kmeans++ would take them first, as the farthest."""
    bank = new_bank(8, 2, start_cosine=-1.0, queue_size=64)
    for step in range(250):
        observe(bank, unit(1, 8), unit(1, 8), text=torch.tensor([5 if step < 100 else 9 if step < 140 else 7]))
    assert bank.seeds().tolist() == [7, 9]


def test_the_emptiest_dead_centroid_moves_to_the_sentence_that_fits_least() -> None:
    bank = new_bank(4, 3, rate=0.0, reseed=True)
    axes = torch.eye(4)
    bank.start(axes[:3], axes[:3])
    seen = F.normalize(axes[3] + 0.1 * axes[0], dim=0)
    z1, z2 = torch.stack([*axes[:2], axes[3]]), torch.stack([*axes[:2], seen])
    for _ in range(9):
        observe(bank, z1, z2, text=torch.arange(3))
        assert torch.equal(bank.centroids, axes[:3])  # until ten steps were seen all shares count as equal
    observe(bank, z1, z2, text=torch.arange(3))
    torch.testing.assert_close(bank.centroids, torch.stack([axes[0], axes[1], z2[2]]))
    torch.testing.assert_close(bank.queries[2], axes[3])
    assert bank.shares[2] == pytest.approx(1 / 3)
    before = bank.centroids.clone()
    observe(bank, z1, z2, text=torch.arange(3))
    torch.testing.assert_close(bank.centroids, before)  # all three have members now


def test_reseeding_brings_unused_centroids_to_life_and_takes_no_padding() -> None:
    bank = new_bank(4, 4, rate=0.0, reseed=True)
    axes = torch.eye(4)
    bank.start(axes[:3], axes[:3])
    far = F.normalize(axes[3] + 0.1 * axes[0], dim=0)
    rows = torch.stack([*axes[:3], far, torch.zeros(4), -axes[0]])  # padding may hold anything
    mask = torch.tensor([True, True, True, True, False, False])
    for _ in range(10):
        observe(bank, rows, rows, mask, torch.arange(6))
    assert bank.active.all()
    torch.testing.assert_close(bank.centroids, torch.stack([*axes[:3], far]))
    before = bank.centroids.clone(), bank.queries.clone(), bank.usage.clone()
    bank.usage[0] = 0.0  # a dead one, and a step without a real sentence
    observe(bank, rows, rows, torch.zeros(6, dtype=torch.bool), torch.arange(6))
    torch.testing.assert_close(bank.centroids, before[0])
    torch.testing.assert_close(bank.queries, before[1])
    assert bank.usage[0] == 0


def test_queries_are_means_of_the_sentences_whatever_is_clustered() -> None:
    """A centroid of what sentences see asks an image by the z1 of its members."""
    bank = new_bank(8, 2, rate=0.25, source="cross_modal")
    bank.start(torch.eye(8)[:2], torch.eye(8)[2:4])
    z1, near = unit(5, 8, seed=1), torch.tensor([0, 1, 0, 1, 1])
    z2 = F.normalize(torch.eye(8)[near] + 0.1 * unit(5, 8, seed=2), dim=-1)
    observe(bank, z1, z2)
    for k, query in enumerate(torch.eye(8)[2:4]):
        members = near == k
        torch.testing.assert_close(bank.queries[k], F.normalize(0.75 * query + 0.25 * z1[members].mean(0), dim=0))
        expected = F.normalize(0.75 * torch.eye(8)[k] + 0.25 * z2[members].mean(0), dim=0)
        torch.testing.assert_close(bank.centroids[k], expected)


@pytest.mark.parametrize("source", ["cross_modal", "centred"])
def test_a_bank_starts_with_the_sentences_of_its_centroids(source: str) -> None:
    bank = new_bank(8, 4, start_cosine=1.0, check_every=1, source=source)
    z1, z2 = unit(20, 8, seed=1), unit(20, 8, seed=2)
    observe(bank, z1, z2)
    assert bank.is_started
    rows = [int((z1 - query).norm(dim=1).argmin()) for query in bank.queries]
    assert len(set(rows)) == 4
    torch.testing.assert_close(bank.queries, z1[rows])
    torch.testing.assert_close(bank.centroids, bank.members(z1, z2)[rows])


def test_means_are_of_all_steps_at_first_and_then_of_about_a_hundred() -> None:
    bank = new_bank(4, 4, source="centred", start_cosine=-1.0)
    steps = [(unit(count, 4, seed=count), unit(count, 4, seed=10 + count)) for count in (2, 5, 3)]
    for z1, z2 in steps:
        observe(bank, z1, z2)
    plain = [torch.stack([step[side].mean(0) for step in steps]).mean(0) for side in (0, 1)]
    torch.testing.assert_close(bank.means, torch.stack(plain))
    before = bank.means.clone()
    observe(bank, *steps[0], mask=torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(bank.means, before)  # a step without a sentence says nothing
    bank._host_steps = 500
    observe(bank, *steps[1])
    moved = torch.stack([side.mean(0) for side in steps[1]])
    torch.testing.assert_close(bank.means, before.lerp(moved, 0.01))


def test_centred_vectors_part_what_two_modalities_have_in_common() -> None:
    """Each modality's mean is taken away, so that both weigh alike however far apart they live."""
    bank = new_bank(16, 4, source="centred")
    meaning = unit(40, 16, seed=2)
    shift = torch.stack([3 * unit(1, 16, seed=3)[0], -3 * unit(1, 16, seed=4)[0]])
    z1, z2 = (F.normalize(meaning + each, dim=-1) for each in shift)
    observe(bank, z1, z2)
    torch.testing.assert_close(bank.means, torch.stack([z1.mean(0), z2.mean(0)]))
    plain = (F.normalize(z1 + z2, dim=-1) * meaning).sum(1).mean()
    assert (bank.members(z1, z2) * meaning).sum(1).mean() > plain + 0.2
    torch.testing.assert_close(bank.members(z1, z2).norm(dim=1), torch.ones(40))


def test_rare_clusters_are_the_strongest_negatives_and_dead_ones_none() -> None:
    bank = new_bank(4, 4)
    bank.start(torch.eye(4)[:3])
    bank.usage.copy_(0.5 * torch.tensor([0.6, 0.3, 0.001, 0.099]))
    assert (bank.negative_weights(1.0) == 0).all()  # ten steps were not seen
    bank.watched.fill_(0.5)
    torch.testing.assert_close(bank.negative_weights(2.0), torch.tensor([0.0, 0.25, 0.0, 0.0]))
    torch.testing.assert_close(bank.negative_weights(0.0), torch.tensor([1.0, 1.0, 0.0, 0.0]))


def test_the_gate_waits_for_a_low_mean_cosine() -> None:
    bank = new_bank(8, 4, start_cosine=0.4, check_every=1)
    alike = F.normalize(unit(1, 8) + 0.1 * unit(20, 8, seed=1), dim=-1)
    for _ in range(5):
        observe(bank, alike, alike)
    assert not bank.is_started
    assert bank.mean_cosine > 0.4
    observe(bank, unit(20, 8, seed=2), unit(20, 8, seed=2))
    assert bank.mean_cosine <= 0.4
    assert bank.is_started


def test_the_gate_looks_at_set_intervals_only() -> None:
    bank = new_bank(8, 4, start_cosine=1.0, check_every=3)
    started = []
    for step in range(3):
        observe(bank, unit(9, 8, seed=step), unit(9, 8, seed=step))
        started.append(bank.is_started)
    assert started == [False, False, True]


def test_pitfall_09_gate_that_never_opens_starts_at_the_step_limit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cmcgns")
    bank = new_bank(8, 4, start_cosine=-1.0, start_by_step=5, check_every=100)
    for step in range(5):
        assert not bank.is_started
        observe(bank, unit(9, 8, seed=step), unit(9, 8, seed=step))
    assert bank.is_started
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "step limit" in record.getMessage()


def test_an_ordinary_start_at_the_step_limit_is_not_called_forced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cmcgns")
    bank = new_bank(8, 4, start_cosine=1.0, start_by_step=1, check_every=1)
    observe(bank, unit(9, 8), unit(9, 8))
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "step limit" not in caplog.text


def test_forced_start_with_fewer_sentences_than_clusters_uses_what_there_is(caplog: pytest.LogCaptureFixture) -> None:
    bank = new_bank(8, 10, start_by_step=1, check_every=1)
    observe(bank, unit(3, 8), unit(3, 8))
    assert bank.is_started
    assert bank.active.sum() == 3
    assert "3 of 10 centroids" in caplog.text
    found = assign_two(unit(50, 8, seed=1), bank.centroids, bank.active)
    assert bank.active[found.own].all()
    assert bank.active[found.hard].all()


def test_one_distinct_sentence_cannot_start_a_bank(caplog: pytest.LogCaptureFixture) -> None:
    bank = new_bank(8, 4, start_by_step=1, check_every=1)
    one = unit(1, 8).expand(3, 8)
    observe(bank, one, one, text=torch.ones(3, dtype=torch.long))
    assert not bank.is_started
    assert "only 1 distinct" in caplog.text


def test_pitfall_09_state_is_in_buffers_and_no_parameter() -> None:
    bank = started_bank()
    assert not list(bank.parameters())
    wanted = {"centroids", "queries", "active", "started", "steps", "queue", "queue_step", "mean_cosine"}
    assert wanted <= set(bank.state_dict())
    assert not bank.centroids.requires_grad


def test_pitfall_09_state_dict_keeps_start_and_steps() -> None:
    bank = started_bank()
    other = new_bank(8, 4, start_cosine=1.0, check_every=1, rate=0.1)
    other.load_state_dict(bank.state_dict())
    assert other.is_started
    assert other._host_steps == int(other.steps) == 1
    observe(bank, unit(30, 8, seed=8), unit(30, 8, seed=8))
    observe(other, unit(30, 8, seed=8), unit(30, 8, seed=8))
    for key, value in bank.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=0)


def test_a_bank_saved_before_its_start_goes_on_with_its_queue() -> None:
    first, second = (new_bank(8, 10, start_cosine=1.0, check_every=2) for _ in range(2))
    for step in range(3):
        observe(first, unit(3, 8, seed=step), unit(3, 8, seed=step))
    second.load_state_dict(first.state_dict())
    for bank in (first, second):
        observe(bank, unit(3, 8, seed=3), unit(3, 8, seed=3), text=torch.arange(3000, 3003))
        assert bank.is_started
    assert torch.equal(first.centroids, second.centroids)
    first.load_state_dict(new_bank(8, 10).state_dict())
    assert not first.is_started


def test_padding_does_not_move_centroids() -> None:
    bank, same = started_bank(), started_bank()
    vectors, mask = unit(9, 8, seed=4), torch.arange(9) % 3 > 0
    observe(bank, vectors, vectors, mask=mask)
    observe(same, vectors[mask], vectors[mask])
    torch.testing.assert_close(bank.centroids, same.centroids)
    torch.testing.assert_close(bank.usage, same.usage)


@pytest.mark.parametrize("steps", [12, 400])
def test_statistics_show_dead_centroids_and_a_giant_cluster(steps: int) -> None:
    """From the first steps on: a short run has few."""
    bank = started_bank()
    vectors = bank.centroids[:1].expand(20, 8).clone()
    for _ in range(steps):
        observe(bank, vectors, vectors)
    figures = bank.statistics()
    assert figures["bank_started"] == 1
    assert figures["bank_dead"] == 0.75
    assert figures["bank_largest"] > 0.999
    torch.testing.assert_close(bank.shares.sum(), torch.tensor(1.0))


def test_a_bank_that_has_seen_few_steps_says_nothing_of_its_shares() -> None:
    bank = started_bank()
    vectors = bank.centroids[:1].expand(20, 8).clone()
    for _ in range(9):
        observe(bank, vectors, vectors)
    assert bank.statistics()["bank_dead"] == 0
    torch.testing.assert_close(bank.shares, torch.full((4,), 0.25))


def test_figures_of_a_step_stay_those_of_that_step() -> None:
    """Several micro-steps are averaged after the last one."""
    bank = started_bank()
    observe(bank, unit(12, 8, seed=5), unit(12, 8, seed=6))
    noted = bank.statistics()
    before = {name: float(value) for name, value in noted.items()}
    observe(bank, unit(12, 8, seed=7), unit(12, 8, seed=8))
    assert {name: float(value) for name, value in noted.items()} == before
    assert float(bank.statistics()["mean_cosine"]) != before["mean_cosine"]


def test_mean_cosine_is_followed_after_the_start_too() -> None:
    bank = started_bank()
    z1, z2 = unit(12, 8, seed=5), unit(12, 8, seed=6)
    observe(bank, z1, z2)
    torch.testing.assert_close(bank.mean_cosine, (z1 @ z2.T).mean(), rtol=1e-4, atol=1e-6)
