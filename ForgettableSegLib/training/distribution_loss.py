"""The losses of SCDL (METHOD B.2); what they are computed from, and the symbols, stand in `network.distributions`.

All are means over samples of means over tokens, so they can be summed over micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor

from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.network.distributions import (
    ANCHOR_WEIGHT,
    DISTANCE_WEIGHT,
    TEMPERATURE,
    ClassDistributions,
    Tokens,
    pooled,
)

_TINY = 1e-12


def soft_labels(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """w_lc, the share of each class among the labelled voxels of a token's block.

    Args:
        labels: (B, *S) class indices, 255 where there is no label.
        num_classes: C.

    Returns:
        (w (B, C, L), trust (B, L)): shares that add up to 1, and 1 where a block has a labelled voxel, else 0.
    """
    valid = labels != IGNORE_LABEL
    one_hot = functional.one_hot(labels.long() * valid, num_classes).movedim(-1, 1) * valid[:, None]
    shares = pooled(one_hot.float()).flatten(2)
    total = shares.sum(1)
    return shares / total.clamp_min(_TINY).unsqueeze(1), (total > 0).float()


def proxy_loss(cosines: Tensor, weights: Tensor, trust: Tensor) -> Tensor:
    """L_proxy = mean_cl exp(-(2 w_lc - 1) a_lc): e^-1 where every token lies on its class and opposite to the others.

    Args:
        cosines: a, (B, C, L).
        weights: w, (B, C, L).
        trust: (B, L), weight of each token in the mean.
    """
    return _mean(torch.exp(-(2 * weights - 1) * cosines).mean(1), trust)


def distance_loss(cosines: Tensor, weights: Tensor, trust: Tensor) -> Tensor:
    """L_dist = mean_l sum_c w_lc (1 - a_lc), in [0, 2]; arguments as for `proxy_loss`."""
    return _mean((weights * (1 - cosines)).sum(1), trust)


def anchor_loss(
    distributions: ClassDistributions,
    inputs: Tensor,
    weights: Tensor,
    trust: Tensor,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """L_anchor = mean over the classes that are present of 1 - cos(anchor_c, mu_c), in [0, 2].

    Args:
        distributions: encoder and proxies; only the means mu get a gradient.
        inputs: x, (B, D, L).
        weights: w, (B, C, L), of labelled tokens.
        trust: (B, L), 0 for a token without label.
        all_reduce: sums a tensor over the ranks.
    """
    with torch.no_grad():
        of_class = weights * trust.unsqueeze(1)
        sums = torch.einsum("bcl,bdl->cd", of_class, inputs)
        totals = torch.cat([sums, of_class.sum((0, 2)).unsqueeze(1)], dim=1)
        if all_reduce is not None:
            totals = all_reduce(totals)
        means = totals[:, :-1] / totals[:, -1:].clamp_min(_TINY)
        anchors = distributions.embed(means.t().unsqueeze(0))[0].t()
        present = (totals[:, -1] > 0).float()
    apart = 1 - functional.cosine_similarity(anchors, distributions.mean, dim=1)
    return (apart * present).sum() / present.sum().clamp_min(1)


def distribution_loss(
    distributions: ClassDistributions,
    tokens: Tokens,
    labels: Tensor,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """L = L_proxy + 0.1 L_dist + 0.1 L_anchor over the labelled tokens of a batch.

    Args:
        distributions: of the network.
        tokens: of the batch.
        labels: (B, *S) class indices, 255 where there is no label.
        all_reduce: sums a tensor over the ranks.
    """
    inputs, cosines = tokens.inputs.float(), tokens.cosines.float()
    weights, trust = soft_labels(labels, cosines.shape[1])
    anchors = anchor_loss(distributions, inputs.detach(), weights, trust, all_reduce)
    return pull_loss(cosines, weights, trust) + ANCHOR_WEIGHT * anchors


def pull_loss(cosines: Tensor, weights: Tensor, trust: Tensor) -> Tensor:
    """L_proxy + 0.1 L_dist; arguments as for `proxy_loss`."""
    return proxy_loss(cosines, weights, trust) + DISTANCE_WEIGHT * distance_loss(cosines, weights, trust)


def assignments(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Both directions of CDBA, (B, C, L) each: E2P adds up to 1 over the classes, P2E over the tokens of a sample."""
    scaled = cosines / TEMPERATURE
    return scaled.softmax(1), scaled.softmax(2)


def pseudo_labels(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Soft labels of tokens without label, and how far each is trusted; no gradient flows through either.

    With both directions as shares over the classes, p = E2P and q = P2E / sum_c P2E, the label is p q / sum_c p q and
    the trust exp(-KL), KL = 1/2 sum_c (p - q)(log p - log q), the symmetric divergence.

    Args:
        cosines: a, (B, C, L).

    Returns:
        (w (B, C, L), trust (B, L) in (0, 1]).
    """
    with torch.no_grad():
        p, q = assignments(cosines)
        q = q / q.sum(1, keepdim=True).clamp_min(_TINY)
        product = p * q
        weights = product / product.sum(1, keepdim=True).clamp_min(_TINY)
        return weights, torch.exp(-divergence(p, q))


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence of two shares over the classes in nats, (B, C, L) to (B, L)."""
    return ((p - q) * (p.clamp_min(_TINY).log() - q.clamp_min(_TINY).log())).sum(1) / 2


def _mean(values: Tensor, trust: Tensor) -> Tensor:
    """Mean over samples of the mean over tokens, (B, L), weighted by trust; 0 for a sample without any."""
    return ((values * trust).sum(1) / trust.sum(1).clamp_min(_TINY)).mean()
