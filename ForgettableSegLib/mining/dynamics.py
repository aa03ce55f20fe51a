"""Learning dynamics of a labelled case: what a network has right of it, slice by slice and class by class, over time.

The samples are the slices of a case with each class that the labels have there, and each slice once more for all that
the labels do not have there (class 0): a structure that nobody outlined shows only so. Their ids never change, and
they are looked at without augmentation, so an event is one of the network and not of the draw (Toneva et al., 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ForgettableSegLib.mining.forgetting import ForgettingStatistics
from ForgettableSegLib.mining.prototypes import IGNORE_LABEL

RIGHT_DICE = 0.75
FALSE_AREA = 0.01
# Of how often a sample could have been forgotten at most, the share from which on it is highly forgettable.
HIGHLY = 0.5
GROUPS = ("unforgettable", "moderately forgettable", "highly forgettable", "never learnt", "unknown")

_LEARNT_BEFORE = 0x80  # the highest bit of a voxel's byte; the other seven count its events


def samples_of(labels: np.ndarray) -> Tensor:
    """The samples of a case.

    Args:
        labels: class indices ``[S, H, W]``, 255 where there is none.

    Returns:
        int64 ``[n, 2]``: slice and class, sorted; every slice has class 0.
    """
    pairs = []
    for index, plane in enumerate(labels):
        present = np.flatnonzero(np.bincount(plane.reshape(-1), minlength=1)[:IGNORE_LABEL])
        pairs += [(index, 0), *((index, int(label)) for label in present if label)]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Outcomes:
    """How a network did on the samples of a case, ``[n]`` each.

    Args:
        dice: of the class; for class 0 the share of the slice's labelled voxels that is not taken for an absent class.
        confidence: mean p_y over the voxels of the class; for class 0 over those that are taken for an absent class,
            1 where there are none.
        correct: Dice at least `RIGHT_DICE`; for class 0 at most `FALSE_AREA` of the slice taken for an absent class.
        wanted: the other class that gets most of the voxels of the class (for class 0: that is taken for absent
            labels), the class itself where no other gets any.
        share: of the voxels of the class (for class 0: of the slice) that `wanted` gets.
    """

    dice: Tensor
    confidence: Tensor
    correct: Tensor
    wanted: Tensor
    share: Tensor


@torch.no_grad()
def slice_outcomes(logits: Tensor, labels: Tensor, samples: Tensor) -> Outcomes:
    """Compare logits with labels.

    Args:
        logits: z, ``[C, S, H, W]``.
        labels: class indices ``[S, H, W]``, 255 where there is none.
        samples: ``[n, 2]``, of these slices, see `samples_of`.
    """
    num_classes, device = logits.shape[0], logits.device
    flat = labels.flatten(1).long()
    valid = flat < num_classes
    truth = flat.masked_fill(~valid, 0)
    z = logits.float().flatten(2)
    own = (z.gather(0, truth.unsqueeze(0))[0] - z.logsumexp(0)).exp()
    best = z.max(0).indices
    table = _confusion(truth, best, valid, num_classes)
    sums = _sums_by_class(own * valid, torch.where(valid, truth, 0), num_classes)
    sizes, found = table.sum(2), table.sum(1)
    is_present = (sizes > 0) & (torch.arange(num_classes, device=device) > 0)
    absent = (best > 0) & valid & ~is_present.gather(1, best)
    area, total = absent.sum(1), valid.sum(1).clamp_min(1)
    where, label = samples[:, 0].to(device), samples[:, 1].to(device)
    size, both = sizes[where, label].clamp_min(1), table[where, label, label]
    dice = 2 * both / (sizes[where, label] + found[where, label]).clamp_min(1)
    confidence = sums[where, label] / size
    of_others = table[where, label].clone()
    of_others[torch.arange(len(label)), label] = 0
    # What is taken for a class that the labels do not have, whatever they have there.
    invented = (table.sum(1) * ~is_present)[where]
    invented[:, 0] = 0
    is_rest = label == 0
    counts = torch.where(is_rest.unsqueeze(1), invented, of_others)
    most = counts.max(1)
    mean_absent = (own * absent).sum(1) / area.clamp_min(1)
    dice = torch.where(is_rest, 1 - area[where] / total[where], dice)
    confidence = torch.where(is_rest, torch.where(area[where] > 0, mean_absent[where], 1.0), confidence)
    correct = torch.where(is_rest, area[where] <= FALSE_AREA * total[where], dice >= RIGHT_DICE)
    share = most.values / torch.where(is_rest, total[where], size)
    wanted = torch.where(most.values > 0, most.indices, label)
    return Outcomes(*(each.cpu() for each in (dice.float(), confidence.float(), correct, wanted, share.float())))


def _confusion(truth: Tensor, best: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Voxels of each slice by class of the labels and class of the network, ``[S, C, C]``."""
    rows = torch.arange(len(truth), device=truth.device).unsqueeze(1) * num_classes**2
    places = (rows + truth * num_classes + best)[valid]
    return torch.bincount(places, minlength=len(truth) * num_classes**2).view(-1, num_classes, num_classes)


def _sums_by_class(values: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Sums of values ``[S, N]`` over the voxels of each class, ``[S, C]``."""
    sums = torch.zeros(len(values), num_classes, device=values.device, dtype=torch.float64)
    return sums.scatter_add_(1, classes, values.double())


class CaseDynamics:
    """The history of the samples of one case.

    Args:
        samples: ``[n, 2]``, see `samples_of`.
        shape: ``(S, H, W)`` to count the forgetting events of every voxel too, one byte a voxel; None for not.

    Attributes:
        history: a row a sample, in the order of the samples.
        dice, wanted, share: of the last look, ``[n]``.
    """

    def __init__(self, samples: Tensor, *, shape: tuple[int, ...] | None = None) -> None:
        self.samples = samples
        self.history = ForgettingStatistics(len(samples))
        self.dice = torch.zeros(len(samples))
        self.wanted = torch.zeros(len(samples), dtype=torch.int64)
        self.share = torch.zeros(len(samples))
        self.voxels = None if shape is None else torch.zeros(shape, dtype=torch.uint8)

    def update(self, outcomes: Outcomes, right: Tensor | None = None) -> None:
        """Take in a look at all samples.

        Args:
            outcomes: of all samples, in their order.
            right: whether the network has each voxel right, bool ``[S, H, W]``; where voxels are counted.
        """
        self.history.update(torch.arange(len(self.samples)), outcomes.correct, outcomes.confidence)
        self.dice, self.wanted, self.share = outcomes.dice, outcomes.wanted, outcomes.share
        if self.voxels is not None and right is not None:
            was_right = self.voxels >= _LEARNT_BEFORE
            events = (self.voxels & ~_LEARNT_BEFORE) + (was_right & ~right)
            self.voxels = events.clamp_max(_LEARNT_BEFORE - 1) | (right * _LEARNT_BEFORE).to(torch.uint8)

    @property
    def forgotten(self) -> Tensor | None:
        """Forgetting events of every voxel, uint8 ``[S, H, W]``, 127 at most; None where they are not counted."""
        return None if self.voxels is None else self.voxels & ~_LEARNT_BEFORE

    def groups(self) -> list[str]:
        """The group of each sample, see `group_of`."""
        history = self.history
        rows = zip(history.presentations.tolist(), history.learnt.tolist(), history.events.tolist(), strict=True)
        return [group_of(*row) for row in rows]

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain types."""
        return {
            "samples": self.samples,
            "history": self.history.state_dict(),
            "dice": self.dice,
            "wanted": self.wanted,
            "share": self.share,
            "voxels": self.voxels,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CaseDynamics:
        """The dynamics that `state_dict` returned, bit for bit."""
        made = cls(state["samples"])
        made.history.load_state_dict(state["history"])
        for name in ("dice", "wanted", "share", "voxels"):
            value = state[name]
            setattr(made, name, value if value is None else value.clone())
        return made


def group_of(presentations: int, learnt: int, events: int, *, minimum: int = 3) -> str:
    """Which of `GROUPS` a sample belongs to.

    A sample that was looked at n times can be forgotten n / 2 times at most; it is highly forgettable from half of that
    on. With less than `minimum` looks nothing is known of it.
    """
    if presentations < minimum:
        return "unknown"
    if not learnt:
        return "never learnt"
    if not events:
        return "unforgettable"
    return "highly forgettable" if events >= HIGHLY * (presentations // 2) else "moderately forgettable"
