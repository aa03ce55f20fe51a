"""ProLearn: guidance by prototypes of what reports say, for images that come without a report.

After "ProLearn" (ICCV 2025, arXiv 2507.11055), as METHOD B.1 reads it. There are P pairs of a query q_p (what an image
looks like: the mean of its bottleneck) and a response r_p (what its report says: an embedding of L numbers). For an
image I:

- query          q* = mean over the positions of f_visual(I), without gradient: the network's own encoder, frozen here;
- similarity     s_p = cos(q*, q_p) over the pairs that are alive;
- answer         the k = 3 most similar, with weights w = softmax(s / tau), tau = 0.1;
- fusion         f' = f_visual + attention of each position (query) to the tokens LN(Linear(r_p)) (keys and values), the
                 logarithm of w_p added to the logits of token p, so that attention is shared out by w;
- a given text   takes the place of the answer: one token, its own embedding.

The answer depends on the image, so each patch has guidance of its own. Responses are parameters: they learn. In the
released code they are in no optimiser, and the weights w are not used at all. With P = 1 this is the fusion
``visual_query`` with one prompt.

The query is that of the network itself; another encoder would take the place of `PrototypeFusion.embed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ForgettableSegLib.network.fusion import sin_cos_position

NEIGHBOURS = 3
"""k, pairs that answer."""
TEMPERATURE = 0.1


class Told(NamedTuple):
    """What reports say of the images of a batch.

    Args:
        vectors: [B, L], embeddings; anything where nothing is told.
        is_told: [B] bool.
    """

    vectors: Tensor
    is_told: Tensor

    def part(self, first: int, last: int) -> Told:
        """Samples `first` to `last` of the batch."""
        return Told(self.vectors[first:last], self.is_told[first:last])


class PrototypeFusion(nn.Module):
    """Attention of the encoder's output to the responses of the most similar prototypes.

    A new one is the plain U-Net, as the other fusions that keep f_visual are.

    Args:
        channels: d, of f_visual.
        prototypes: P, pairs that there is room for.
        length: L, of an embedding.
        num_heads: of the attention; divides ``channels``.

    Attributes:
        queries: [P, d].
        alive: [P], 1 for the pairs that there are.
        responses: [P, L], learnt.
        told: what reports say of the images that come, None where nothing is known of any; see `telling`.
    """

    mode = "prototypes"

    def __init__(self, *, channels: int, prototypes: int, length: int, num_heads: int) -> None:
        super().__init__()
        self.register_buffer("queries", torch.zeros(prototypes, channels))
        self.register_buffer("alive", torch.zeros(prototypes))
        self.responses = nn.Parameter(torch.zeros(prototypes, length))
        self.text_projection = nn.Linear(length, channels)
        self.text_norm = nn.LayerNorm(channels)
        self.visual_norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, num_heads, batch_first=True, add_zero_attn=True)
        nn.init.zeros_(self.attention.out_proj.weight)
        self.told: Told | None = None

    def set_text(self, vectors: Tensor) -> None:
        """Nothing to do: the prompts of the classes take no part."""

    @property
    def is_fitted(self) -> bool:
        """Whether there is any pair."""
        return bool((self.alive > 0).any())

    @torch.no_grad()
    def set_pairs(self, queries: Tensor, responses: Tensor | None = None) -> None:
        """Put pairs in place.

        Args:
            queries: [n, d], n up to P.
            responses: [n, L], None to keep those that there are.
        """
        count = len(queries)
        self.queries.zero_()
        self.alive.zero_()
        self.queries[:count], self.alive[:count] = queries.to(self.queries), 1
        if responses is not None:
            self.responses[:count] = responses.to(self.responses)

    @staticmethod
    def embed(visual: Tensor) -> Tensor:
        """q*, [B, d], of f_visual [B, d, *S]."""
        return visual.detach().float().flatten(2).mean(2)

    @torch.no_grad()
    def look_up(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Which pairs answer, and how much.

        Args:
            query: q*, [B, d].

        Returns:
            Indices and weights, [B, min(k, P)] each; the weights add up to 1, those of pairs that are not alive are 0.
        """
        cosines = functional.normalize(query.float(), dim=1) @ functional.normalize(self.queries, dim=1).t()
        cosines = cosines.masked_fill(self.alive <= 0, -torch.inf)
        best, index = cosines.topk(min(NEIGHBOURS, len(self.queries)), dim=1)
        return index, (best / TEMPERATURE).softmax(1)

    def forward(self, visual: Tensor) -> Tensor:
        """f_visual [B, d, *S] to f' of the same shape; while there are no pairs, nothing answers."""
        tokens, weights = self._guidance(visual)
        keys = self.text_norm(self.text_projection(tokens))
        positions = self.visual_norm(visual.flatten(2).transpose(1, 2))
        query = positions + sin_cos_position(visual.shape[2:], visual.shape[1], device=visual.device).to(
            positions.dtype
        )
        heads = self.attention.num_heads
        mask = weights.clamp_min(1e-30).log().to(query.dtype)[:, None].expand(-1, query.shape[1], -1)
        fused = self.attention(query, keys, keys, need_weights=False, attn_mask=mask.repeat_interleave(heads, dim=0))[0]
        return visual + fused.transpose(1, 2).reshape(visual.shape)

    def _guidance(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, k, L] and their weights [B, k]: the answer, or in its place what is told."""
        if self.is_fitted:
            index, weights = self.look_up(self.embed(visual))
            tokens = self.responses[index]
        else:
            tokens = self.responses[:NEIGHBOURS].expand(len(visual), -1, -1)
            weights = torch.zeros(tokens.shape[:2], device=visual.device)
        if self.told is None:
            return tokens, weights
        is_told = self.told.is_told.to(visual.device)[:, None]
        first = torch.zeros_like(weights)
        first[:, 0] = 1
        vectors = self.told.vectors.to(tokens)[:, None].expand_as(tokens)
        return torch.where(is_told[..., None], vectors, tokens), torch.where(is_told, first, weights)


@contextmanager
def telling(network: nn.Module, told: Told | None) -> Iterator[None]:
    """Let a network, or each of several, know within this block what is said of the images that come."""
    fusions = [module for module in network.modules() if isinstance(module, PrototypeFusion)] if told else []
    for fusion in fusions:
        fusion.told = told
    try:
        yield
    finally:
        for fusion in fusions:
            fusion.told = None
