import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.metrics import retrieval
from cmcgns.metrics.retrieval import chance_precision, chance_recall, precision_at_k, recall_at_k, recall_of_scores


def embeddings(seed: int = 0, n: int = 40, m: int = 60) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    gallery_ids = np.concatenate([np.arange(15), rng.integers(0, 15, size=m - 15)])
    return rng.normal(size=(n, 5)), rng.normal(size=(m, 5)), rng.integers(0, 15, size=n), gallery_ids


def obvious_hit(similarity: np.ndarray, right: np.ndarray, k: int) -> float:
    order = sorted(range(len(right)), key=lambda j: (-similarity[j], right[j]))  # wrong ones first among equals
    return float(right[order[:k]].any())


@pytest.mark.parametrize("cells", [1, 180, 1 << 23])
def test_agrees_with_sorting_each_query(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_CHUNK_CELLS", cells)
    query, gallery, ids, gallery_ids = embeddings()
    hits = recall_at_k(query, gallery, ids, gallery_ids, ks=(1, 3, 10))
    lengths = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
    similarity = query @ gallery.T / lengths
    for k, found in hits.items():
        expected = [obvious_hit(s, i == gallery_ids, k) for s, i in zip(similarity, ids, strict=True)]
        np.testing.assert_array_equal(found, expected)


def test_a_perfect_encoder_finds_everything() -> None:
    same = np.eye(7)
    hits = recall_at_k(same, same, np.arange(7), np.arange(7))
    assert {k: v.tolist() for k, v in hits.items()} == dict.fromkeys((1, 5, 10), [1.0] * 7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_constant_encoder_gets_nothing_rather_than_everything(dtype: type) -> None:
    constant = np.tile(np.random.default_rng(0).normal(size=37), (101, 1)).astype(dtype)
    hits = recall_at_k(constant, constant, np.arange(101), np.arange(101), ks=(1, 10, 100))
    assert all(hit.sum() == 0 for hit in hits.values())


def test_right_items_that_tie_with_each_other_do_not_hurt() -> None:
    hits = recall_at_k([[1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [4], [4, 4, 5], ks=(1,))
    assert hits[1].tolist() == [1.0]


def test_chance_is_the_share_of_random_rankings_that_hit() -> None:
    _, _, ids, gallery_ids = embeddings(1)
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(gallery_ids, (4000, 1)), axis=1)[:, :5]
    simulated = np.mean([(orders == i).any(axis=1).mean() for i in ids])
    assert chance_recall(ids, gallery_ids, 5) == pytest.approx(simulated, abs=0.01)


def test_chance_of_simple_cases() -> None:
    assert chance_recall(np.arange(20), np.arange(20), 5) == pytest.approx(0.25)
    assert chance_recall([0], [0, 1, 1], 3) == 1.0
    assert chance_recall([0], [0, 1, 1], 50) == 1.0
    assert chance_recall([1], [0, 1, 1], 2) == 1.0  # two of three are right: two draws cannot miss
    assert chance_recall([0, 1], [0, 1, 1], 1) == pytest.approx(0.5)


def test_bad_input_is_refused() -> None:
    one, two = np.ones((1, 2)), np.ones((2, 2))
    with pytest.raises(UserError, match="query 0 has no right item"):
        recall_at_k(one, two, [3], [1, 2])
    with pytest.raises(UserError, match="k must be 1 or more"):
        recall_at_k(one, two, [1], [1, 2], ks=(0,))
    with pytest.raises(UserError, match="gallery embedding is zero or not finite"):
        recall_at_k(one, np.zeros((2, 2)), [1], [1, 2])
    with pytest.raises(UserError, match="query embedding is zero or not finite"):
        recall_at_k(one * np.nan, two, [1], [1, 2])
    with pytest.raises(UserError, match="dimensions"):
        recall_at_k(one, np.ones((2, 3)), [1], [1, 2])
    with pytest.raises(UserError, match="one id per embedding"):
        recall_at_k(one, two, [1, 1], [1, 2])
    with pytest.raises(UserError, match="query 1 has no right item"):
        chance_recall([1, 9], [1, 2], 1)
    with pytest.raises(UserError, match="ids must be"):
        chance_recall([], [1], 1)


def obvious_precision(similarity: np.ndarray, right: np.ndarray, k: int) -> float:
    order = sorted(range(len(right)), key=lambda j: (-similarity[j], right[j]))
    return float(np.sum(right[order[:k]])) / k


@pytest.mark.parametrize("cells", [1, 180, 1 << 23])
@pytest.mark.parametrize("skip_self", [False, True])
def test_precision_agrees_with_sorting_each_query(
    cells: int, skip_self: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "_CHUNK_CELLS", cells)
    rng = np.random.default_rng(0)
    query = rng.integers(-1, 2, size=(30, 4)) + 0.5  # few values: many ties
    gallery = query if skip_self else rng.integers(-1, 2, size=(50, 4)) + 0.5
    classes = rng.integers(0, 3, 30)
    offered = classes if skip_self else rng.integers(0, 3, 50)
    ks = (1, 7, 25, 80)
    found = precision_at_k(query, gallery, classes, offered, ks, skip_self)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, gallery)]
    similarity = np.round(unit[0] @ unit[1].T, 9)
    for k in ks:
        for i in range(30):
            keep = np.arange(len(offered)) != i if skip_self else np.full(len(offered), True)
            expected = obvious_precision(similarity[i][keep], (offered == classes[i])[keep], k)
            assert found[k][i] == pytest.approx(expected)


def test_a_constant_encoder_has_no_precision() -> None:
    constant = np.ones((20, 3))
    found = precision_at_k(constant, constant, np.arange(20) % 2, np.arange(20) % 2, (1, 10))
    assert found[1].sum() == found[10].sum() == 0


def test_precision_of_chance() -> None:
    assert chance_precision([0, 1], [0, 0, 1, 1, 1]) == pytest.approx((2 / 5 + 3 / 5) / 2)
    assert chance_precision([0, 0, 1, 1], [0, 0, 1, 1], skip_self=True) == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    classes = np.arange(300) % 3
    vectors = rng.normal(size=(300, 50))
    found = precision_at_k(vectors, vectors, classes, classes, (5,), skip_self=True)[5].mean()
    assert found == pytest.approx(chance_precision(classes, classes, skip_self=True), abs=0.03)


def test_precision_refuses_bad_input() -> None:
    one, two = np.ones((1, 2)), np.ones((2, 2))
    with pytest.raises(UserError, match="one id per embedding"):
        precision_at_k(one, two, [1, 1], [1, 1])
    with pytest.raises(UserError, match="are not the 2 items"):
        precision_at_k(one, two, [1], [1, 1], skip_self=True)
    with pytest.raises(UserError, match="query 0 has no right item"):
        precision_at_k(one, two, [3], [1, 1])


def test_recall_of_scores_is_that_of_cosines_and_of_sorting() -> None:
    rng = np.random.default_rng(3)
    query, gallery = rng.normal(size=(50, 8)), rng.normal(size=(40, 8))
    wanted, offered = rng.integers(0, 12, 50), np.arange(40) % 12
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, gallery)]
    scores = unit[0] @ unit[1].T
    cosines = recall_at_k(query, gallery, wanted, offered, (1, 3))
    for factor in (1.0, 1e-3, 1e4):
        found = recall_of_scores(scores * factor, wanted, offered, (1, 3))
        for k in (1, 3):
            nearest = np.argsort(-scores, axis=1)[:, :k]
            slow = [float((offered[row] == one).any()) for row, one in zip(nearest, wanted, strict=True)]
            assert found[k].tolist() == slow == cosines[k].tolist()


def test_ties_of_scores_count_against_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_CHUNK_CELLS", 1)
    assert recall_of_scores(np.full((4, 4), 17.0), range(4), range(4), (1, 4))[1].tolist() == [0] * 4
    assert recall_of_scores(np.full((4, 4), 17.0), range(4), range(4), (4,))[4].tolist() == [1] * 4


@pytest.mark.parametrize(
    ("scores", "ids", "ks", "message"),
    [
        (np.zeros((2, 3)), [0, 1], (1,), r"scores must be \(n, m\) = \(2, 2\), not \(2, 3\)"),
        (np.array([[0, 1], [np.nan, 1]]), [0, 1], (1,), "score of query 1 and item 0 is not finite"),
        (np.zeros((2, 2)), [0, 1], (0,), "k must be 1 or more"),
    ],
)
def test_bad_scores_are_named(scores: np.ndarray, ids: list[int], ks: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recall_of_scores(scores, ids, ids, ks)
