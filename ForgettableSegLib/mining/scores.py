"""How hard a sample and each of its voxels is for the network, by four terms and their sum (Eq. 7 to 11).

Everything is computed in float32 without gradients, whatever the network computes in. Three modes:

``bounded`` (default)
    Every term lies in [0, 1] and none needs an epsilon: Eq. 7 and 8 measure distances in units of the class's own
    spread s2.
``zscore``
    The squared distances of Eq. 7 and 8 as they are, every term standardised by its running mean and deviation.
``paper``
    Eq. 7 to 10 read literally: one scalar prototype a class (the class's own logit), masked features, the zeros
    that masking leaves included.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ForgettableSegLib.mining.prototypes import AllReduce, Prototypes, centred, class_masks, full_precision

ScoreMode = Literal["bounded", "zscore", "paper"]
Reduce = Literal["class", "pixel"]

TERMS = ("T1", "T2", "T3", "T4", "score")
"""Names of the five channels of what `difficulty_scores` returns."""

_TINY = 1e-12


class Scores(NamedTuple):
    """Scores of a batch: channels `TERMS`, float32.

    Args:
        samples: ``[B, 5]``.
        voxels: ``[B, 5, *S]``, 0 where the label is to be ignored; None if not asked for.
    """

    samples: Tensor
    voxels: Tensor | None


class TermStatistics:
    """Running mean and variance of each of T1 to T4 over samples, for the mode ``zscore``.

    Args:
        beta: share of the old value that an update keeps, at most (the first batches replace it).
        frozen: whether scoring leaves the statistics as they are (audit) or takes the batch in first (training).
    """

    def __init__(self, *, beta: float = 0.99, frozen: bool = False) -> None:
        self.beta = beta
        self.frozen = frozen
        self.mean = torch.zeros(4)
        self.square = torch.zeros(4)
        self.count = 0

    def update(self, terms: Tensor, all_reduce: AllReduce | None = None) -> None:
        """Take the terms ``[B, 4]`` of a batch in, pooled over the ranks."""
        self.mean, self.square = self.mean.to(terms.device), self.square.to(terms.device)
        terms = terms[terms.isfinite().all(dim=1)]
        totals = torch.cat([terms.sum(0), terms.square().sum(0), terms.new_tensor([float(len(terms))])])
        if all_reduce is not None:
            all_reduce(totals)
        if totals[-1] == 0:
            return
        keep = min(self.beta, self.count / (10 + self.count))
        self.mean = keep * self.mean + (1 - keep) * totals[:4] / totals[-1]
        self.square = keep * self.square + (1 - keep) * totals[4:8] / totals[-1]
        self.count += 1

    def standardise(self, terms: Tensor) -> Tensor:
        """Terms ``[B, 4, ...]`` in deviations from their running mean; 0 for a term that never varied."""
        shape = (1, 4) + (1,) * (terms.ndim - 2)
        deviation = (self.square - self.mean.square()).clamp_min(0).sqrt().to(terms.device)
        scale = torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0)
        return (terms - self.mean.to(terms.device).view(shape)) * scale.view(shape)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything, as tensors and plain types."""
        return {"mean": self.mean.clone(), "square": self.square.clone(), "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state_dict` returned, bit for bit."""
        self.mean = state["mean"].clone()
        self.square = state["square"].clone()
        self.count = int(state["count"])


def true_class(values: Tensor, index: Tensor) -> Tensor:
    """The channel of each voxel's own class: ``values [B, C, N]`` at ``index [B, N]`` (int64), ``[B, N]``."""
    return values.gather(1, index.unsqueeze(1)).squeeze(1)


def t1_bounded(relative: Tensor, index: Tensor) -> Tensor:
    """Eq. 7 in units of the class's spread: how far a voxel lies from the prototype of its own class.

    ``t1 = d2_y / (d2_y + s2_y)``, in [0, 1]; 1/2 at the class's usual distance.

    Args:
        relative: ``d2_k / (d2_k + s2_k)``, ``[B, C, N]``.
        index: y, ``[B, N]``.
    """
    return true_class(relative, index)


def t2_bounded(relative: Tensor, index: Tensor, initialised: Tensor) -> Tensor:
    """Eq. 8 with eps := s2, times s2: how close a voxel lies to the prototypes of the other classes.

    ``t2 = mean_{k != y} s2_k / (d2_k + s2_k)`` over the classes that have a prototype, in [0, 1]; 0 if there is none.

    Args:
        relative: ``d2_k / (d2_k + s2_k)``, ``[B, C, N]``.
        index: y, ``[B, N]``.
        initialised: classes that have a prototype, ``[C]`` bool.
    """
    known = initialised.to(relative.dtype)
    own = known[index]
    near = known.sum() - torch.einsum("c,bcn->bn", known, relative) - own * (1 - true_class(relative, index))
    return (near / (known.sum() - own).clamp_min(1)).clamp(0, 1)


def t1_distance(distances: Tensor, index: Tensor) -> Tensor:
    """Eq. 7 with vector prototypes: ``t1 = d2_y``, ``[B, N]``, at least 0."""
    return true_class(distances, index)


def t2_distance(distances: Tensor, index: Tensor, initialised: Tensor, eps: float) -> Tensor:
    """Eq. 8 with vector prototypes: ``t2 = mean_{k != y} 1 / (d2_k + eps)``, ``[B, N]``, in [0, 1/eps]."""
    known = initialised.to(distances.dtype)
    near = known.view(1, -1, 1) / (distances + eps)
    others = known.sum() - known[index]
    return (near.sum(1) - true_class(near, index)).clamp_min(0) / others.clamp_min(1)


def t3(confidence: Tensor) -> Tensor:
    """Eq. 9 at the voxel's own class: squared error of the probability, ``(1 - p_y)^2`` in [0, 1]."""
    return (1 - confidence).square()


def t4(confidence: Tensor) -> Tensor:
    """Eq. 10 at the voxel's own class: lack of confidence, ``1 - p_y`` in [0, 1]."""
    return 1 - confidence


def t1_paper(own_logit: Tensor, mean: Tensor, index: Tensor) -> Tensor:
    """Eq. 7 read literally, one voxel's share of it: ``1/C sum_c (z_c m_c - mu_c)^2``.

    ``z_c m_c`` is the true class's logit at c = y and 0 elsewhere, so this is
    ``1/C [(z_y - mu_y)^2 + sum_{c != y} mu_c^2]``: the second part only counts voxels of each class.

    Args:
        own_logit: z_y, ``[B, N]``.
        mean: scalar prototypes mu_c, ``[C]``.
        index: y, ``[B, N]``.
    """
    own_mean = mean[index]
    return ((own_logit - own_mean).square() + mean.square().sum() - own_mean.square()) / len(mean)


def t2_paper(own_logit: Tensor, mean: Tensor, index: Tensor, eps: float) -> Tensor:
    """Eq. 8 read literally, one voxel's share of it: ``1/(C(C-1)) sum_{c != c'} 1/((z_c m_c - mu_c')^2 + eps)``.

    With ``a_c = 1/(mu_c^2 + eps)`` the masked zeros (c != y) sum to ``(C - 2) sum_c a_c + a_y``.

    Args:
        own_logit: z_y, ``[B, N]``.
        mean: scalar prototypes mu_c, ``[C]``.
        index: y, ``[B, N]``.
        eps: the paper's epsilon (not stated there); the squared logits' unit.
    """
    num_classes = len(mean)
    a = 1 / (mean.square() + eps)
    near = 1 / ((own_logit.unsqueeze(1) - mean.view(1, -1, 1)).square() + eps)
    from_voxel = near.sum(1) - true_class(near, index)
    return (from_voxel + (num_classes - 2) * a.sum() + a[index]) / (num_classes * (num_classes - 1))


def t3_paper(confidence: Tensor, num_classes: int) -> Tensor:
    """Eq. 9 read literally, one voxel's share of it: ``1/C sum_c (p_c m_c - m_c)^2 = (1 - p_y)^2 / C``."""
    return (1 - confidence).square() / num_classes


def t4_paper(confidence: Tensor, num_classes: int) -> Tensor:
    """Eq. 10 read literally, one voxel's share of it: ``1 - 1/C sum_c p_c m_c = 1 - p_y / C``, in [1 - 1/C, 1]."""
    return 1 - confidence / num_classes


@torch.no_grad()
def difficulty_scores(
    logits: Tensor,
    labels: Tensor,
    prototypes: Prototypes,
    *,
    features: Tensor | None = None,
    mode: ScoreMode = "bounded",
    reduce: Reduce = "class",
    eps: float = 1.0,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    statistics: TermStatistics | None = None,
    all_reduce: AllReduce | None = None,
    voxels: bool = True,
) -> Scores:
    """T1 to T4 and their weighted sum (Eq. 7 to 11) for every sample and every voxel, in one pass.

    Args:
        logits: z, ``[B, C, *S]``, any float type.
        labels: y, class indices ``[B, *S]``; `IGNORE_LABEL` takes no part.
        prototypes: already updated with this batch (Algorithm 1's order).
        features: f, ``[B, D, *S]``, what the prototypes are means of; the logits if None (centred over the classes,
            but as they are in mode ``paper``).
        mode: see the module.
        reduce: a sample's term is the mean over its voxels (``pixel``, the paper) or the mean over its classes of the
            mean over the class's voxels (``class``: small structures count as much as large ones).
        eps: epsilon of Eq. 8, in the modes ``paper`` and ``zscore``.
        weights: of T1 to T4 in the sum (Eq. 11: all 1).
        statistics: required in mode ``zscore``, where it is updated with this batch unless it is frozen.
        all_reduce: pools the statistics of mode ``zscore`` over the ranks.
        voxels: whether the voxel scores are wanted.

    Returns:
        Scores; a sample without any labelled voxel scores 0.

    Raises:
        ValueError: for an unknown mode or reduction, or zscore without statistics.
    """
    if reduce not in ("class", "pixel"):
        msg = f"unknown reduction {reduce!r}"
        raise ValueError(msg)
    with full_precision(logits.device):
        masks = class_masks(labels, prototypes.num_classes)
        index = labels.flatten(1).long().clamp(0, prototypes.num_classes - 1)
        terms = _terms(logits.detach().float(), features, index, prototypes, mode=mode, eps=eps)
        known = torch.ones_like(prototypes.initialised) if mode == "paper" else prototypes.initialised
        samples = _reduce(terms, masks, known.to(logits.device), reduce)
        if mode == "zscore":
            if statistics is None:
                msg = "the score mode zscore needs the running statistics of its terms"
                raise ValueError(msg)
            if not statistics.frozen:
                statistics.update(samples, all_reduce)
            samples = statistics.standardise(samples)
        sample_scores = _with_sum(samples, weights)
        if not voxels:
            return Scores(sample_scores, None)
        if mode == "zscore":
            terms = statistics.standardise(terms)
        voxel_scores = _with_sum(terms, weights) * masks.sum(1, keepdim=True)
        return Scores(sample_scores, voxel_scores.unflatten(2, labels.shape[1:]))


def _terms(
    logits: Tensor, features: Tensor | None, index: Tensor, prototypes: Prototypes, *, mode: ScoreMode, eps: float
) -> Tensor:
    """t1 to t4 of every voxel, ``[B, 4, N]``."""
    z = logits.flatten(2)
    confidence = true_class(z.log_softmax(1), index).exp()
    if mode == "paper":
        own_logit, mean = true_class(z, index), prototypes.mean.to(z.device).diagonal()
        if prototypes.feature_size != prototypes.num_classes:
            msg = "the score mode paper needs prototypes of the logits, with as many features as classes"
            raise ValueError(msg)
        c = prototypes.num_classes
        return torch.stack(
            [
                t1_paper(own_logit, mean, index),
                t2_paper(own_logit, mean, index, eps),
                t3_paper(confidence, c),
                t4_paper(confidence, c),
            ],
            dim=1,
        )
    f = centred(logits) if features is None else features.detach().float()
    distances = prototypes.distances(f.flatten(2))
    initialised = prototypes.initialised.to(z.device)
    if mode == "bounded":
        spread = prototypes.variance.to(z.device).view(1, -1, 1)
        relative = distances.div_((distances + spread).clamp_min_(_TINY))
        t1, t2 = t1_bounded(relative, index), t2_bounded(relative, index, initialised)
    elif mode == "zscore":
        t1, t2 = t1_distance(distances, index), t2_distance(distances, index, initialised, eps)
    else:
        msg = f"unknown score mode {mode!r}"
        raise ValueError(msg)
    return torch.stack([t1, t2, t3(confidence), t4(confidence)], dim=1)


def _reduce(terms: Tensor, masks: Tensor, known: Tensor, reduce: Reduce) -> Tensor:
    """Voxel terms ``[B, 4, N]`` to sample terms ``[B, 4]``.

    Classes without a prototype (``known [C]`` False) have no T1 and T2 and are left out of those two.
    """
    sums = torch.bmm(masks, terms.transpose(1, 2))
    pixels = masks.sum(2)
    counted = torch.stack([known, known, torch.ones_like(known), torch.ones_like(known)], dim=1).unsqueeze(0)
    if reduce == "class":
        sums = sums / pixels.clamp_min(1).unsqueeze(2)
        pixels = (pixels > 0).to(sums.dtype)
    weight = pixels.unsqueeze(2) * counted
    return torch.where(counted, sums, 0.0).sum(1) / weight.sum(1).clamp_min(1)


def _with_sum(terms: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Append Eq. 11, the weighted sum, as fifth channel: ``[B, 4, ...]`` to ``[B, 5, ...]``."""
    weight = torch.tensor(weights, dtype=terms.dtype, device=terms.device)
    return torch.cat([terms, torch.einsum("t,bt...->b...", weight, terms).unsqueeze(1)], dim=1)


@torch.no_grad()
def estimated_difficulty(logits: Tensor, prototypes: Prototypes, *, features: Tensor | None = None) -> Tensor:
    """What can be said of a voxel's difficulty without a reference, with the predicted class in the place of y.

    Args:
        logits: z, ``[B, C, *S]``.
        prototypes: of the trained model.
        features: f, ``[B, D, *S]``, what the prototypes are means of; the centred logits if None.

    Returns:
        float32 ``[B, 2, *S]`` in [0, 1]: lack of confidence ``1 - p_yhat``, and the prototype ratio
        ``d_yhat / (d_yhat + d_nearest other)``: 0 on the prototype of the predicted class, 1/2 where another class's
        is as close. A predicted class without a prototype has ratio 1; without a prototype of another class it is 0.
    """
    with full_precision(logits.device):
        z = logits.detach().float().flatten(2)
        predicted = z.max(1).indices
        confidence = true_class(z.log_softmax(1), predicted).exp()
        f = centred(logits) if features is None else features.detach().float()
        distances = prototypes.distances(f.flatten(2)).sqrt_()
        unknown = ~prototypes.initialised.to(z.device)
        distances[:, unknown] = torch.inf
        own = true_class(distances, predicted)
        other = distances.scatter(1, predicted.unsqueeze(1), torch.inf).amin(1)
        ratio = torch.where(own.isinf(), 1.0, own / (own + other).clamp_min(_TINY))
        return torch.stack([1 - confidence, ratio], dim=1).unflatten(2, logits.shape[2:])
