"""A minimal model that isolates attention: no MLP, no normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slay.registry import get_attention_class


class AttentionOnly(nn.Module):
    """h = token + position; h = h + attention(h), n_layers times; logits = W h.

    With no MLP, whatever it solves is solved by attention. Layer l draws its random features from
    seed + l.
    """

    def __init__(
        self,
        vocab_size: int,
        seq_len: int,
        *,
        attention: str,
        embed_dim: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__()
        cls = get_attention_class(attention)
        self.token = nn.Embedding(vocab_size, embed_dim)
        self.position = nn.Embedding(seq_len, embed_dim)
        self.layers = nn.ModuleList(
            cls(embed_dim, n_heads, seed=seed + layer, **options) for layer in range(n_layers)
        )
        self.head = nn.Linear(embed_dim, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, L), int64. Returns logits: (B, L, V)."""
        h = self.embed(tokens)
        for attention in self.layers:
            h = h + attention(h)  # (B, L, E)
        return self.head(h)

    def embed(self, tokens: Tensor) -> Tensor:
        """Sum of token and position embeddings: (B, L) -> (B, L, E)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.token(tokens) + self.position(places)
