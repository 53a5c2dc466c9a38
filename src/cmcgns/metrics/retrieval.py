"""Image-to-report and report-to-image retrieval: is a right item among the k nearest?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.ranking import BoolArray, FloatArray

_CHUNK_CELLS = 1 << 23  # queries × gallery compared at once
_TIE = 1e-6  # cosines closer than this are equal: single precision cannot tell them apart


def recall_at_k(
    query: npt.ArrayLike,
    gallery: npt.ArrayLike,
    query_ids: npt.ArrayLike,
    gallery_ids: npt.ArrayLike,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[int, FloatArray]:
    """Whether each query finds a right item among its k nearest by cosine.

    A wrong item that ties with the best right item counts as ahead of it. Otherwise an encoder that maps
    everything to one point would get a perfect recall.

    Args:
        query: (n, D), any length but zero.
        gallery: (m, D).
        query_ids: (n,) integers; an item is right for a query if their ids are equal.
        gallery_ids: (m,) integers; repeats are allowed (equal reports, several images of a study).
        ks: how far to look.

    Returns:
        For each k the hits (n,), 1.0 or 0.0: their mean is the recall, and
        :func:`cmcgns.metrics.intervals.mean_interval` gives its interval.

    Raises:
        UserError: shapes disagree, an embedding is zero or not finite, a k < 1, a query without a right item.
    """
    return _hits(_similarities(query, gallery, query_ids, gallery_ids, ks), ks)


def recall_of_scores(
    scores: npt.ArrayLike, query_ids: npt.ArrayLike, gallery_ids: npt.ArrayLike, ks: Sequence[int] = (1, 5, 10)
) -> dict[int, FloatArray]:
    """What :func:`recall_at_k` gives, where a score of every query with every item takes the place of the cosine.

    Args:
        scores: (n, m), higher is nearer, on any scale: a millionth of the largest absolute value, or of 1, is a tie.
        query_ids: (n,) integers; an item is right for a query if their ids are equal.
        gallery_ids: (m,) integers; repeats are allowed.
        ks: how far to look.

    Returns:
        For each k the hits (n,), 1.0 or 0.0.

    Raises:
        UserError: shapes disagree, a score is not finite, a k < 1, a query without a right item.
    """
    _check_ks(ks)
    table = np.asarray(scores)
    wanted, offered = _check_ids(query_ids, gallery_ids)
    if table.shape != (len(wanted), len(offered)):
        raise UserError(f"scores must be (n, m) = ({len(wanted)}, {len(offered)}), not {table.shape}")
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise UserError(f"the score of query {row} and item {column} is not finite")
    scale = max(1.0, float(np.abs(table).max()))
    step = max(1, _CHUNK_CELLS // len(offered))
    parts = (slice(start, start + step) for start in range(0, len(wanted), step))
    return _hits(((table[part] / scale, wanted[part, None] == offered[None, :]) for part in parts), ks)


def _hits(similar: Iterable[tuple[npt.NDArray[np.floating], BoolArray]], ks: Sequence[int]) -> dict[int, FloatArray]:
    """Of similarities and right items (q, m) of some queries at a time: for each k whether a right one is within."""
    ahead = np.concatenate([_wrong_ahead(similarity, right) for similarity, right in similar])
    return {k: (ahead < k).astype(np.float64) for k in ks}


def precision_at_k(
    query: npt.ArrayLike,
    gallery: npt.ArrayLike,
    query_classes: npt.ArrayLike,
    gallery_classes: npt.ArrayLike,
    ks: Sequence[int] = (1, 5, 10),
    skip_self: bool = False,
) -> dict[int, FloatArray]:
    """Share of each query's k nearest items that are of its class (as for CheXpert-5x200, Huang et al., ICCV 2021).

    A wrong item that ties with a right one counts as ahead of it. The share is of k, also where the gallery holds
    fewer than k right items.

    Args:
        query: (n, D), any length but zero.
        gallery: (m, D).
        query_classes: (n,) integers.
        gallery_classes: (m,) integers.
        ks: how far to look.
        skip_self: query i is item i of the gallery, and does not find itself.

    Returns:
        For each k the shares (n,).

    Raises:
        UserError: shapes disagree, an embedding is zero or not finite, a k < 1, a query without a right item.
    """
    similar = _similarities(query, gallery, query_classes, gallery_classes, ks, skip_self)
    places = np.concatenate([_places(similarity, right, max(ks)) for similarity, right in similar])
    return {k: (places < k).sum(axis=1) / k for k in ks}


def chance_precision(query_classes: npt.ArrayLike, gallery_classes: npt.ArrayLike, skip_self: bool = False) -> float:
    """Expected precision of a random ranking, at any k up to the size of the gallery.

    Args:
        query_classes: (n,) integers.
        gallery_classes: (m,) integers.
        skip_self: as of :func:`precision_at_k`.
    """
    wanted, offered = _check_ids(query_classes, gallery_classes)
    unique, repeats = np.unique(offered, return_counts=True)
    right = repeats[np.searchsorted(unique, wanted)]
    return float(np.mean((right - skip_self) / max(1, len(offered) - skip_self)))


def chance_recall(query_ids: npt.ArrayLike, gallery_ids: npt.ArrayLike, k: int) -> float:
    """Expected recall at k of a random ranking, exact when ids repeat.

    A query with r right items among m misses all of them with probability C(m-r, k) / C(m, k).

    Args:
        query_ids: (n,) integers.
        gallery_ids: (m,) integers.
        k: how far to look.

    Raises:
        UserError: k < 1, ids not one-dimensional, or a query without a right item.
    """
    _check_ks([k])
    wanted, offered = _check_ids(query_ids, gallery_ids)
    unique, repeats = np.unique(offered, return_counts=True)
    right, queries = np.unique(repeats[np.searchsorted(unique, wanted)], return_counts=True)
    drawn = np.arange(min(k, len(offered)))
    wrong_left = np.maximum(len(offered) - right[:, None] - drawn, 0)
    miss = (wrong_left / (len(offered) - drawn)).prod(axis=1)
    return float(np.average(1 - miss, weights=queries))


def _similarities(
    query: npt.ArrayLike,
    gallery: npt.ArrayLike,
    query_ids: npt.ArrayLike,
    gallery_ids: npt.ArrayLike,
    ks: Sequence[int],
    skip_self: bool = False,
) -> Iterator[tuple[npt.NDArray[np.floating], BoolArray]]:
    """Cosines (q, m) of some queries at a time with all items, and which items are right."""
    _check_ks(ks)
    queries, items = _unit(query, "query"), _unit(gallery, "gallery")
    if queries.shape[1] != items.shape[1]:
        raise UserError(f"queries have {queries.shape[1]} dimensions, the gallery {items.shape[1]}")
    wanted, offered = _check_ids(query_ids, gallery_ids)
    if len(wanted) != len(queries) or len(offered) != len(items):
        found = f"{len(wanted)} and {len(offered)} ids for {len(queries)} queries and {len(items)} items"
        raise UserError(f"one id per embedding is needed, not {found}")
    if skip_self and len(queries) != len(items):
        raise UserError(f"{len(queries)} queries are not the {len(items)} items of the gallery")
    step = max(1, _CHUNK_CELLS // len(items))
    for start in range(0, len(queries), step):
        rows = np.arange(start, min(start + step, len(queries)))
        similarity = queries[rows] @ items.T
        if skip_self:
            similarity[rows - start, rows] = -np.inf
        yield similarity, wanted[rows, None] == offered[None, :]


def _wrong_ahead(similarity: npt.NDArray[np.floating], right: BoolArray) -> npt.NDArray[np.int64]:
    """Per query, wrong items at least as near as the nearest right one. (q, m), (q, m) -> (q,)."""
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(((similarity >= best - _TIE) & ~right).sum(axis=1))


def _places(similarity: npt.NDArray[np.floating], right: BoolArray, k: int) -> npt.NDArray[np.int64]:
    """Places (q, k), from 0, of the k nearest right items, exact below k; of items that are not there very large."""
    k = min(k, similarity.shape[1])
    near_right = _largest(np.where(right, similarity, -np.inf), k)
    near_wrong = _largest(np.where(right, -np.inf, similarity), k)
    ahead = (near_wrong[:, None, :] >= near_right[:, :, None] - _TIE).sum(axis=2)
    return np.asarray(np.where(np.isfinite(near_right), ahead + np.arange(k), np.iinfo(np.int64).max))


def _largest(values: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.floating]:
    """(q, m) -> (q, k), falling."""
    if k < values.shape[1]:
        values = np.partition(values, -k, axis=1)[:, -k:]
    return np.asarray(-np.sort(-values, axis=1))


def _unit(embeddings: npt.ArrayLike, name: str) -> npt.NDArray[np.floating]:
    vectors = np.asarray(embeddings)
    if vectors.ndim != 2 or vectors.size == 0:
        raise UserError(f"{name} embeddings must be (n, D) and not empty, not {vectors.shape}")
    if vectors.dtype != np.float64:
        vectors = vectors.astype(np.float32)  # half precision neither multiplies fast nor adds up well
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        raise UserError(f"a {name} embedding is zero or not finite")
    return np.asarray(vectors / lengths)


def _check_ids(
    query_ids: npt.ArrayLike, gallery_ids: npt.ArrayLike
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    wanted, offered = np.asarray(query_ids), np.asarray(gallery_ids)
    if wanted.ndim != 1 or offered.ndim != 1 or len(wanted) == 0 or len(offered) == 0:
        raise UserError(f"ids must be (n,) and (m,), not {wanted.shape} and {offered.shape}")
    alone = np.flatnonzero(~np.isin(wanted, offered))
    if len(alone):
        raise UserError(f"query {alone[0]} has no right item in the gallery ({len(alone)} such queries)")
    return wanted, offered


def _check_ks(ks: Sequence[int]) -> None:
    if len(ks) == 0 or min(ks) < 1:
        raise UserError(f"k must be 1 or more, not {list(ks)}")
