"""Attention pooling: the mean token asks, all tokens answer (as CLIP pools its ResNet features)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def start_plain(layer: nn.Linear) -> None:
    """Xavier weights and no bias, as PyTorch starts its own attention.

    The usual start of `nn.Linear` shrinks its input and adds a random shift that all studies share: embeddings then
    begin with cosines of 0.998 among each other, and the contrast has hardly anything to work with.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class AttentionPool(nn.Module):
    """Pools (B, T, C) tokens into (B, C) with one multi-head attention whose only query is the mean token.

    Args:
        width: C, divisible by `heads`.
        tokens: number of tokens T if they have places (a learned position embedding is added); None if not.
        heads: attention heads.
    """

    positional_embedding: nn.Parameter | None

    def __init__(self, width: int, tokens: int | None = None, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            start_plain(layer)
        self.positional_embedding = None
        if tokens is not None:
            self.positional_embedding = nn.Parameter(torch.randn(tokens + 1, width) * width**-0.5)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool.

        Args:
            tokens: (B, T, C).
            mask: (B, T) true for real tokens; a row without any attends to its (zero) mean alone.

        Returns:
            (B, C), not normalised.
        """
        if mask is None:
            mean = tokens.mean(1, keepdim=True)
            key_mask = None
        else:
            count = mask.sum(1, keepdim=True).clamp(min=1)
            mean = ((tokens * mask[:, :, None]).sum(1) / count)[:, None]
            key_mask = F.pad(mask, (1, 0), value=True)[:, None, None, :]
        tokens = torch.cat([mean.to(tokens.dtype), tokens], dim=1)
        if self.positional_embedding is not None:
            tokens = tokens + self.positional_embedding
        query = self._split(self.q_proj(tokens[:, :1]))
        keys, values = self._split(self.k_proj(tokens)), self._split(self.v_proj(tokens))
        pooled = F.scaled_dot_product_attention(query, keys, values, attn_mask=key_mask)
        return self.c_proj(pooled.transpose(1, 2).flatten(1))  # type: ignore[no-any-return]

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads)."""
        heads: Tensor = tokens.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)
