"""Single-head cross-modal attention between sentences and patches (PRIOR, Cheng et al., ICCV 2023)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.objectives.numerics import by_images, products, seen_cosines

AttentionKind = Literal["sigmoid", "softmax"]


class CrossModalAttention(nn.Module):
    """Lets each sentence look at the image and each patch look at the report.

    With `sigmoid` every weight is a gate of its own and the sum is not normalised:
    `f_I2R[m] = Σ_p sigmoid(q_R(m)·k_I(p)/√D) v_I(p)`. With `softmax` the weights of a query sum to 1.

    Args:
        dim: width D of both modalities.
        kind: `sigmoid` (the method) or `softmax`.
        patches: number P of patches whose keys say where they are, beside what they show; None for keys without.
        unit_values: whether the values of patches are unit vectors. A value near 0 makes its gate free: it may be
            open, and adds nothing to the sum or its length.
    """

    positions: "PatchPositions | None"

    def __init__(
        self, dim: int, kind: AttentionKind = "sigmoid", patches: int | None = None, unit_values: bool = False
    ) -> None:
        super().__init__()
        self.kind = kind
        self.scale = dim**-0.5
        self.unit_values = unit_values
        self.image_query, self.image_key, self.image_value = (nn.Linear(dim, dim) for _ in range(3))
        self.text_query, self.text_key, self.text_value = (nn.Linear(dim, dim) for _ in range(3))
        self.positions = PatchPositions(patches, dim) if patches else None

    def image_to_text(self, patches: Tensor, sentences: Tensor, sentence_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Sentence looks at image.

        Args:
            patches: (B, P, D).
            sentences: (B, M, D).
            sentence_mask: (B, M) true for real sentences.

        Returns:
            f_I2R (B, M, D) and the weights (B, M, P); rows of padding are 0 in both.
        """
        weights = self._weigh(self.text_query(sentences), self._keys(patches)) * sentence_mask[:, :, None]
        return weights @ self._values(patches), weights

    def text_to_image(self, patches: Tensor, sentences: Tensor, sentence_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Patch looks at report; arguments as in `image_to_text`.

        Returns:
            f_R2I (B, P, D) and the weights (B, P, M), exactly 0 for padding.
        """
        weights = self._weigh(self.image_query(patches), self.text_key(sentences), sentence_mask[:, None, :])
        return weights @ self.text_value(sentences), weights

    def score(self, patches: Tensor, queries: Tensor) -> Tensor:
        """Every sentence looks at every image.

        With the gates w(n, b) of sentence n over the patches of image b, `s(n, b)` is the cosine of z1_n with
        `sum_p w_p v_bp` (:func:`~cmcgns.objectives.numerics.seen_cosines`).

        Args:
            patches: (B, P, D).
            queries: (N, D) unit vectors z1.

        Returns:
            (B, N) cosines.
        """
        return by_images(lambda part: self._score(part, queries), patches, len(queries))

    def weights(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, P, N) gates w(n, b); arguments as of :meth:`score`."""
        scores = products(self._keys(patches), self.text_query(queries)) * self.scale
        weights: Tensor = scores.sigmoid() if self.kind == "sigmoid" else scores.softmax(1)
        return weights

    def gated_products(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, P, N) `w_p z1_n·v_bp`: what every patch adds to the numerator of :meth:`score`, whose arguments it has.

        Not divided by the length of what the sentence sees, so that images compare: a sentence that nothing in the
        image bears out has small ones everywhere.
        """
        return self.weights(patches, queries) * products(self._values(patches), queries)

    def _score(self, patches: Tensor, queries: Tensor) -> Tensor:
        values, weights = self._values(patches), self.weights(patches, queries)
        return seen_cosines(weights, values, weights * products(values, queries))

    def _keys(self, patches: Tensor) -> Tensor:
        keys: Tensor = self.image_key(patches)
        return keys if self.positions is None else keys + self.positions.position

    def _values(self, patches: Tensor) -> Tensor:
        values: Tensor = self.image_value(patches)
        return F.normalize(values, dim=-1) if self.unit_values else values

    def _weigh(self, query: Tensor, key: Tensor, key_mask: Tensor | None = None) -> Tensor:
        scores: Tensor = query @ key.transpose(1, 2) * self.scale
        if self.kind == "sigmoid":
            weights = scores.sigmoid()
        else:
            # A finite floor instead of -inf: a study without any sentence gets weights, not NaN; the mask
            # below turns them into zeros.
            floor = torch.finfo(scores.dtype).min
            weights = (scores if key_mask is None else scores.masked_fill(~key_mask, floor)).softmax(-1)
        return weights if key_mask is None else weights * key_mask


class PatchPositions(nn.Module):
    """Learned position embedding of P patches, (P, D); it starts at 0.

    Patches of a convolutional encoder look alike wherever they are; a sentence that names a side cannot be borne out
    by what a patch shows alone.
    """

    def __init__(self, patches: int, dim: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(patches, dim))
