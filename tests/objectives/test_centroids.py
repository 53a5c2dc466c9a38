"""First centroids: released chain, farthest points, k-means++."""

import pytest
import torch
from torch import Tensor

from cmcgns.objectives.centroids import Seeding, farthest_point, kmeans_plus_plus, least_similar_chain, seed_centroids
from support.objectives import Golden, unit


def test_released_chain_gives_the_golden_centroids(golden: Golden) -> None:
    vectors, expected = golden["z_cross_modal"][0], golden["centroids_after_init"]
    chosen = least_similar_chain(vectors, len(expected), int(golden["init_first_index"]))
    torch.testing.assert_close(vectors[chosen], expected, rtol=0, atol=1e-6)


def test_farthest_point_gives_the_golden_centroids(golden: Golden) -> None:
    """As far as rounding decides nothing: two of the last golden choices lie within 1e-7 of another one."""
    vectors, expected = golden["z_cross_modal"][0], golden["described/centroids_after_init"]
    chosen = farthest_point(vectors, len(expected), int(golden["init_first_index"])).tolist()
    cosines = vectors.double() @ vectors.double().T
    for place in range(1, len(chosen)):
        nearest = cosines[chosen[:place]].max(0).values
        nearest[chosen[:place]] = torch.inf
        least, second = nearest.sort().values[:2].tolist()
        assert nearest[chosen[place]] - least < 1e-6  # what was chosen is farthest from all before it
        if second - least < 1e-6:
            break
        torch.testing.assert_close(vectors[chosen[place]], expected[place], rtol=0, atol=1e-6)
    assert place >= 4
    assert len(set(chosen)) == len(chosen)


def planted_groups(groups: int = 16, members: int = 24) -> tuple[Tensor, Tensor]:
    """Tight groups around random directions, in random order, and the group of each."""
    centers = unit(groups, 32, seed=5).repeat_interleave(members, dim=0)
    vectors = centers + 0.05 * unit(groups * members, 32, seed=6)
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(7))
    group = torch.arange(groups).repeat_interleave(members)
    return torch.nn.functional.normalize(vectors, dim=-1)[order], group[order]


@pytest.mark.parametrize("kind", ["farthest_point", "kmeans++"])
def test_pitfall_09_seeding_finds_16_planted_groups(kind: Seeding) -> None:
    vectors, group = planted_groups()
    found = []
    for seed in range(5):
        chosen = seed_centroids(vectors, 16, kind, torch.Generator().manual_seed(seed))
        found.append(len(group[chosen].unique()))
    # k-means++ draws: it may take a group twice now and then.
    assert min(found) == 16 if kind == "farthest_point" else min(found) >= 14, found


def test_released_chain_misses_planted_groups() -> None:
    vectors, group = planted_groups()
    assert len(group[least_similar_chain(vectors, 16, 0)].unique()) < 14


@pytest.mark.parametrize("kind", ["farthest_point", "kmeans++", "chain"])
def test_no_vector_is_taken_twice_even_among_equal_ones(kind: Seeding) -> None:
    vectors = unit(1, 8).expand(6, 8).clone()
    chosen = seed_centroids(vectors, 6, kind, torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == list(range(6))


@pytest.mark.parametrize("kind", ["farthest_point", "kmeans++", "chain"])
def test_the_generator_decides(kind: Seeding) -> None:
    vectors = unit(200, 8)
    draws = [seed_centroids(vectors, 5, kind, torch.Generator().manual_seed(s)).tolist() for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_kmeans_plus_plus_draws_by_squared_distance() -> None:
    angle = torch.tensor([0.0, 0.5, 3.14159])
    vectors = torch.stack([angle.cos(), angle.sin()], dim=1)
    generator = torch.Generator().manual_seed(0)
    second = torch.tensor([int(kmeans_plus_plus(vectors, 2, 0, generator)[1]) for _ in range(2000)])
    expected = (2 - 2 * angle[1].cos()) / ((2 - 2 * angle[1].cos()) + 4)
    assert abs(float((second == 1).float().mean()) - float(expected)) < 0.02
