"""Class prototypes: what the network's output looks like, on average, for each class (Eq. 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

IGNORE_LABEL = 255
"""Label of padding and of voxels that nobody labelled: it takes part in no sum of this package."""

_VERY_FAR = 1e6

AllReduce = Callable[[Tensor], object]
"""Adds a tensor up over all ranks, in place (``torch.distributed.all_reduce`` is one)."""


def class_masks(labels: Tensor, num_classes: int) -> Tensor:
    """m of Eq. 5: one mask a class, 1 where a voxel has that class, and 0 in all of them where it is to be ignored.

    Args:
        labels: class indices ``[B, *S]``, any integer type; `IGNORE_LABEL` (or any other value that is no class) is
            in no mask.
        num_classes: C, the background included.

    Returns:
        float32 ``[B, C, N]``, N the voxels of a sample.
    """
    classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype).view(1, -1, 1)
    return (labels.flatten(1).unsqueeze(1) == classes).float()


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Context within which autocast, if the trainer has it on, lowers no precision on this device."""
    # PyTorch before 2.4 knows autocast on these two only, and cannot say so.
    known = getattr(torch.amp, "is_autocast_available", lambda kind: kind in ("cpu", "cuda"))
    return torch.autocast(device.type, enabled=False) if known(device.type) else nullcontext()


def centred(logits: Tensor) -> Tensor:
    """Logits less their mean over the classes (which softmax does not see), float32 ``[B, C, *S]``."""
    logits = logits.detach().float()
    return logits - logits.mean(dim=1, keepdim=True)


class Prototypes:
    """Running mean and spread of the features of each class, kept in float32 whatever the network computes in.

    A class that is absent from a batch is left as it was (0/0 would stay NaN in a running mean for ever), and so is a
    class whose features are not finite. Sums are pooled over the batch, and over the ranks, before they are divided.

    Args:
        num_classes: C, the background included.
        feature_size: D, the length of a voxel's feature vector (C where the features are the logits).
        beta: share of the old value that an update keeps (Eq. 6).
        warm_up: whether an update of a class seen t times keeps only ``min(beta, (1 + t) / (10 + t))``, which forgets
            the zero it starts from. False is the paper's text: from zero, with plain beta.
        min_pixels: a class with fewer voxels than this in a batch (of all ranks) counts as absent.
        device: where the state lies.

    Attributes:
        mean: mu, ``[C, D]``, in the features' unit.
        variance: s2, ``[C]``: mean of ``||f - mu_k||^2 / D`` over the voxels of class k.
        count: t, ``[C]`` int64: updates that each class has had.
    """

    def __init__(
        self,
        num_classes: int,
        feature_size: int,
        *,
        beta: float = 0.99,
        warm_up: bool = True,
        min_pixels: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.beta = beta
        self.warm_up = warm_up
        self.min_pixels = max(1, min_pixels)
        self.mean = torch.zeros(num_classes, feature_size, dtype=torch.float32, device=device)
        self.variance = torch.zeros(num_classes, dtype=torch.float32, device=device)
        self.count = torch.zeros(num_classes, dtype=torch.int64, device=device)

    @classmethod
    def from_tensors(cls, mean: Tensor, variance: Tensor, count: Tensor) -> Prototypes:
        """Prototypes as a model package holds them, for scoring: ``mean [C, D]``, ``variance [C]``, ``count [C]``."""
        kind = Prototypes if mean.shape[1] else LearnedPrototypes
        prototypes = kind(*mean.shape, device=mean.device)
        prototypes.load_state_dict({"mean": mean, "variance": variance, "count": count})
        return prototypes

    @property
    def num_classes(self) -> int:
        """C, the background included."""
        return self.mean.shape[0]

    @property
    def feature_size(self) -> int:
        """D, the length of a voxel's feature vector."""
        return self.mean.shape[1]

    @property
    def initialised(self) -> Tensor:
        """``[C]`` bool: the classes that have been seen at all."""
        return self.count > 0

    def distances(self, features: Tensor) -> Tensor:
        """d2: squared distance of every voxel to every prototype, divided by D.

        By ``||f||^2 - 2 f.mu + ||mu||^2``: no array of B x C x D x N is ever made.

        Args:
            features: f, float32 ``[B, D, N]``.

        Returns:
            float32 ``[B, C, N]``, at least 0.
        """
        mean = self.mean.to(features.device)
        f2 = features.square().sum(1, keepdim=True)
        mu2 = mean.square().sum(1).view(1, -1, 1)
        cross = torch.matmul(mean, features)
        return (f2 + mu2).sub_(cross, alpha=2).clamp_min_(0).div_(self.feature_size)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, all_reduce: AllReduce | None = None) -> None:
        """Take one batch into the running mean and spread (Eq. 5, then Eq. 6).

        Args:
            features: f, ``[B, D, *S]``, any float type.
            labels: class indices ``[B, *S]``, `IGNORE_LABEL` where nothing is known.
            all_reduce: sums a tensor over the ranks in place, in a distributed training.

        Raises:
            ValueError: if the shapes do not fit each other or the prototypes.
        """
        self._check(features, labels)
        with full_precision(features.device):
            current_mean, current_square, pixels = self._current(features, labels, all_reduce)
            seen = (pixels >= self.min_pixels) & current_mean.isfinite().all(dim=1) & current_square.isfinite()
            keep = torch.where(seen, self._beta(), 1.0)
            # where, not a product with 0: the values of an absent class may be NaN.
            current_mean = torch.where(seen[:, None], current_mean, self.mean)
            self.mean = keep[:, None] * self.mean + (1 - keep[:, None]) * current_mean
            spread = current_square - 2 * (current_mean * self.mean).sum(1) + self.mean.square().sum(1)
            spread = torch.where(seen, spread.clamp_min(0) / max(1, self.feature_size), self.variance)
            self.variance = keep * self.variance + (1 - keep) * spread
            self.count = self.count + seen

    def _current(self, features: Tensor, labels: Tensor, all_reduce: AllReduce | None) -> tuple[Tensor, Tensor, Tensor]:
        """mu^cur (Eq. 5) ``[C, D]``, mean of ``||f||^2`` ``[C]`` and voxels ``[C]`` of each class in this batch."""
        f = features.detach().flatten(2).float()
        masks = class_masks(labels, self.num_classes)
        sums = torch.bmm(masks, f.transpose(1, 2)).sum(0)
        squares = torch.bmm(masks, f.square().sum(1).unsqueeze(2)).sum(0)
        totals = torch.cat([sums, squares, masks.sum((0, 2)).unsqueeze(1)], dim=1)
        if all_reduce is not None:
            all_reduce(totals)
        pixels = totals[:, -1]
        means = totals[:, :-1] / pixels.clamp_min(1).unsqueeze(1)
        return means[:, :-1], means[:, -1], pixels

    def _beta(self) -> Tensor:
        """beta of Eq. 6 for each class, ``[C]``: by the updates of that class, so that rare classes warm up as well."""
        if not self.warm_up:
            return torch.full_like(self.variance, self.beta)
        return ((1 + self.count) / (10 + self.count)).clamp_max(self.beta).to(self.variance.dtype)

    def _check(self, features: Tensor, labels: Tensor) -> None:
        expected = (features.shape[0], self.feature_size, *labels.shape[1:])
        if features.shape[0] != labels.shape[0] or features.shape != expected:
            msg = (
                f"features {tuple(features.shape)} and labels {tuple(labels.shape)} do not fit prototypes of "
                f"{self.feature_size} features"
            )
            raise ValueError(msg)

    def to(self, device: torch.device | str) -> Prototypes:
        """Move the state to a device (the type stays float32)."""
        self.mean, self.variance, self.count = (t.to(device) for t in (self.mean, self.variance, self.count))
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, as tensors and plain types."""
        return {"mean": self.mean.clone(), "variance": self.variance.clone(), "count": self.count.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, bit for bit.

        Raises:
            ValueError: if it was written for another number of classes or features.
        """
        for name, tensor in self.state_dict().items():
            if state[name].shape != tensor.shape:
                msg = f"{name} of the stored prototypes has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
                raise ValueError(msg)
        self.mean, self.variance, self.count = (
            state[name].detach().to(device=tensor.device, dtype=tensor.dtype, copy=True)
            for name, tensor in self.state_dict().items()
        )


class LearnedPrototypes(Prototypes):
    """The spread of distances to prototypes that the network has learnt itself, and measures the distances to.

    What takes the place of the features is d2 ``[B, C, *S]``: the squared distance of each voxel to what the network
    knows of each class, such as a distribution. There is no mean to be kept, ``mean`` is ``[C, 0]``; s2 is a running
    mean of d2 of the own class, so that T1 and T2 are in units of the usual distance whatever the network calls far.
    """

    def distances(self, features: Tensor) -> Tensor:
        """d2 as the network measured it, ``[B, C, N]``, and very far where it was infinite.

        A copy, for callers compute in place.
        """
        return features.nan_to_num(posinf=_VERY_FAR)

    def _current(self, features: Tensor, labels: Tensor, all_reduce: AllReduce | None) -> tuple[Tensor, Tensor, Tensor]:
        """Nothing ``[C, 0]``, mean d2 of the own class ``[C]`` and voxels ``[C]`` of each class in this batch."""
        masks = class_masks(labels, self.num_classes)
        sums = (masks * features.detach().flatten(2).float()).sum((0, 2))
        totals = torch.stack([sums, masks.sum((0, 2))])
        if all_reduce is not None:
            all_reduce(totals)
        return self.mean, totals[0] / totals[1].clamp_min(1), totals[1]

    def _check(self, features: Tensor, labels: Tensor) -> None:
        if features.shape != (len(labels), self.num_classes, *labels.shape[1:]):
            shapes = f"distances {tuple(features.shape)} and labels {tuple(labels.shape)}"
            msg = f"{shapes} do not fit {self.num_classes} classes"
            raise ValueError(msg)
