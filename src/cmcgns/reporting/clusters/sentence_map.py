"""A map of the distinct sentences in the plane: the two directions in which their vectors differ most."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.training.cluster_log import SentenceOracle

Polarity = Literal["states", "denies", "neither", ""]


@dataclass(frozen=True)
class Plane:
    """S points in the plane.

    Attributes:
        points: (S, 2).
        explained: share of the variance along each of the two directions.
    """

    points: NDArray[np.float64]
    explained: tuple[float, float]


def principal_plane(vectors: Tensor) -> Plane:
    """The first two principal components of (S, D) vectors.

    A component has no sign of its own: the point that lies farthest out is on the positive side, so that equal
    vectors give equal maps.
    """
    centred = vectors.double() - vectors.double().mean(0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2))
    count = min(2, len(strength))
    found = (left * strength)[:, :count].numpy()
    farthest = found[np.abs(found).round(9).argmax(0), np.arange(count)]
    points[:, :count] = found * np.where(farthest < 0, -1, 1)
    variance = strength.square().numpy()
    total = variance.sum()
    shares = [float(part / total) if total > 0 else 0.0 for part in variance[:2]]
    return Plane(points, (shares[0], shares[1] if count > 1 else 0.0))


def polarity(sentence: str, oracle: SentenceOracle | None) -> Polarity:
    """Whether a sentence states or denies a finding; empty where that is not known."""
    said = oracle(sentence) if oracle is not None else None
    if said is None:
        return ""
    return "states" if said.stated else "denies" if said.denied else "neither"
