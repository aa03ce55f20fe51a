"""SCDL: a learnable distribution of each class, which the features of its voxels are drawn to.

After "SCDL" (arXiv 2603.05202), as METHOD B.2 reads it. A token x_l is the mean of the penultimate features over a
block of 4 voxels an axis, its soft label w_lc the share of class c among the block's labelled voxels, so that small
structures are never rounded away. With e_l the token's embedding and (mu_c, sigma_c) the proxies of class c:

- samples   e_cs = mu_c + sigma_c xi_s, sigma_c = softplus(.), S = 50, everything divided by its length;
- cosines   a_lc = mean_s cos(e_l, e_cs) = e_l . m_c with m_c = mean_s e_cs / |e_cs|: samples cost nothing a token;
- CDBA      L_proxy = mean_cl exp(-(2 w_lc - 1) a_lc),   L_dist = mean_l sum_c w_lc (1 - a_lc);
- SAC       anchor_c = encoder(mean of labelled tokens of c), detached;  L_anchor = mean_c (1 - cos(anchor_c, mu_c));
- total     L = L_proxy + 0.1 L_dist + 0.1 L_anchor.

The assignments of CDBA go in two directions: E2P_lc = softmax over the classes of a_lc / tau, and P2E_cl = softmax over
the TOKENS of the same. The released code normalises both over the classes, which makes them equal, their divergence 0
and their product a mere square. Their product, normalised over the classes, is the pseudo label of a token without
label, and exp(-divergence) how far it is trusted.

What differs from the released code, besides that: embeddings of 32 numbers instead of 256 (the features have 16 or 32),
no dropout in the encoder, and no map of priors in front of the output layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

EMBEDDING = 32
SAMPLES = 50
STRIDE = 4
"""Voxels of an axis that make a token."""
TEMPERATURE = 0.2
DISTANCE_WEIGHT = ANCHOR_WEIGHT = 0.1

_POOLING = {2: functional.avg_pool2d, 3: functional.avg_pool3d}


class Tokens(NamedTuple):
    """A batch as SCDL sees it.

    Args:
        inputs: x, [B, D, L].
        cosines: a, [B, C, L], in [-1, 1].
    """

    inputs: Tensor
    cosines: Tensor


class ClassDistributions(nn.Module):
    """The encoder of tokens, and mean and deviation of each class.

    Args:
        num_classes: C, the background included.
        feature_size: D of the penultimate features.
    """

    def __init__(self, num_classes: int, feature_size: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(feature_size, 2 * EMBEDDING),
            nn.ReLU(),
            nn.Linear(2 * EMBEDDING, 2 * EMBEDDING),
            nn.ReLU(),
            nn.Linear(2 * EMBEDDING, EMBEDDING),
        )
        self.mean = nn.Parameter(torch.empty(num_classes, EMBEDDING))
        self.spread = nn.Parameter(torch.empty(num_classes, EMBEDDING))
        if not self.mean.is_meta:
            nn.init.xavier_uniform_(self.mean)
            nn.init.xavier_uniform_(self.spread)

    @property
    def deviation(self) -> Tensor:
        """sigma, [C, 32], above 0."""
        return functional.softplus(self.spread)

    def embed(self, features: Tensor) -> Tensor:
        """Features [B, D, L] to embeddings [B, 32, L] of length 1."""
        return functional.normalize(self.encoder(features.transpose(1, 2)), dim=2).transpose(1, 2)

    def sampled_mean(self, noise: Tensor) -> Tensor:
        """m_c = mean_s of (mu_c + sigma_c xi_s) divided by its length, [C, 32], of noise xi [S, C, 32]."""
        return functional.normalize(self.mean + self.deviation * noise, dim=2).mean(0)

    def forward(self, features: Tensor) -> Tokens:
        """Penultimate features [B, D, *S] to tokens and their cosines to freshly drawn samples of the proxies."""
        inputs = pooled(features).flatten(2)
        noise = torch.randn(SAMPLES, *self.mean.shape, device=self.mean.device)
        return Tokens(inputs, torch.einsum("cz,bzl->bcl", self.sampled_mean(noise), self.embed(inputs)))

    @torch.no_grad()
    def distances(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distance of voxels to each class's distribution, a coordinate.

        ``d2_k = 1/32 sum_d (e_d - mu_kd / |mu_k|)^2 / (sigma_kd / |mu_k|)^2``: on the sphere that cosines live on.

        Args:
            features: [B, D, *S].

        Returns:
            float32 [B, C, *S], at least 0.
        """
        e = self.embed(features.float().flatten(2))
        length = self.mean.norm(dim=1, keepdim=True).clamp_min(1e-6)
        mean, weight = self.mean / length, (length / self.deviation).square()
        squares = torch.einsum("cz,bzn->bcn", weight, e.square()) + (weight * mean.square()).sum(1).view(1, -1, 1)
        d2 = squares - 2 * torch.einsum("cz,bzn->bcn", weight * mean, e)
        return (d2.clamp_min(0) / EMBEDDING).unflatten(2, features.shape[2:])


def pooled(values: Tensor) -> Tensor:
    """Means over blocks of 4 voxels an axis, those at the far border over what there is: [B, D, *S] to [B, D, *T]."""
    return _POOLING[values.ndim - 2](values, STRIDE, ceil_mode=True, count_include_pad=False)
