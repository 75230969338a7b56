"""Transformer parts: a pre-norm block, and three ways from tokens to one vector a scene.

Shapes: B scenes; T tokens; W width; H heads; D = W / H; Q query slots.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

POOLINGS = ("flatten", "slots", "mean")


def _attended(query_BTW: Tensor, key_BTW: Tensor, value_BTW: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of several heads, of the query's shape."""
    query_BHTD, key_BHTD, value_BHTD = (
        x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query_BTW, key_BTW, value_BTW)
    )
    mixed_BHTD = scaled_dot_product_attention(query_BHTD, key_BHTD, value_BHTD)
    return mixed_BHTD.transpose(1, 2).flatten(-2)


class Block(nn.Module):
    """Pre-norm transformer block: attention over the tokens, then a two-layer network on each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BTW: Tensor) -> Tensor:
        query, key, value = self.query_key_value(self.norm(tokens_BTW)).chunk(3, -1)
        tokens_BTW = tokens_BTW + self.dropout(self.out(_attended(query, key, value, self.heads)))
        inner_BTX = gelu(self.inner(self.norm_inner(tokens_BTW)))
        out_BTW: Tensor = tokens_BTW + self.dropout(self.outer(inner_BTX))
        return out_BTW


class Pool(nn.Module):
    """One vector a scene from its tokens.

    `flatten` keeps every token's own place, which knows its code; `slots` has learned queries, each
    with its own mean of the tokens; `mean` is blind to the tokens' order.
    """

    def __init__(self, kind: str, tokens: int, width: int, *, heads: int, slots: int) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(f"no pooling named {kind!r}; use one of {', '.join(POOLINGS)}")
        self.kind, self.heads = kind, heads
        self.features = {"flatten": tokens, "slots": slots, "mean": 1}[kind] * width
        if kind == "slots":
            self.query_QW = nn.Parameter(torch.randn(slots, width) / sqrt(width))
            self.key_value = nn.Linear(width, 2 * width)

    def forward(self, tokens_BTW: Tensor) -> Tensor:
        if self.kind == "mean":
            # A mean of T tokens is √T times smaller than each.
            return tokens_BTW.mean(1) * sqrt(tokens_BTW.shape[1])
        if self.kind == "slots":
            key, value = self.key_value(tokens_BTW).chunk(2, -1)
            query = self.query_QW.expand(len(tokens_BTW), -1, -1)
            tokens_BTW = _attended(query.to(key.dtype), key, value, self.heads)
        return tokens_BTW.flatten(1)
