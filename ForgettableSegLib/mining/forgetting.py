"""What the network learnt, forgot, and never learnt, sample by sample over the training.

Forgetting events as Toneva et al. (2019) count them, confidence and variability as the dataset maps of
Swayamdipta et al. (2020). Samples need ids that stay the same over the whole training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ForgettableSegLib.mining.prototypes import full_precision
from ForgettableSegLib.mining.scores import true_class


@torch.no_grad()
def true_class_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y: mean probability of the true class over a sample's foreground, or over all its voxels if it has none.

    Args:
        logits: z, ``[B, C, *S]``.
        labels: class indices ``[B, *S]``, 0 the background, `IGNORE_LABEL` where nothing is known.

    Returns:
        float32 ``[B]`` in [0, 1]; 0 for a sample without any labelled voxel.
    """
    with full_precision(logits.device):
        z = logits.detach().float().flatten(2)
        flat = labels.flatten(1).long()
        confidence = true_class(z.log_softmax(1), flat.clamp(0, z.shape[1] - 1)).exp()
        valid = flat < z.shape[1]
        foreground = valid & (flat > 0)
        mask = torch.where(foreground.any(1, keepdim=True), foreground, valid)
        return (confidence * mask).sum(1) / mask.sum(1).clamp_min(1)


@torch.no_grad()
def is_correct(logits: Tensor, labels: Tensor, *, dice: float = 0.75, false_area: float = 0.01) -> Tensor:
    """Whether the network has a sample right: every foreground class in it at least at this Dice coefficient.

    Args:
        logits: z, ``[B, C, *S]``.
        labels: class indices ``[B, *S]``.
        dice: threshold tau.
        false_area: for a sample without foreground, the share of its labelled voxels that may be called foreground.

    Returns:
        ``[B]`` bool.
    """
    num_classes = logits.shape[1]
    valid = labels.flatten(1) < num_classes
    best = logits.max(1).indices  # On the CPU many times faster than argmax.
    reference = labels.flatten(1).long().masked_fill(~valid, num_classes)
    predicted = best.flatten(1).masked_fill(~valid, num_classes)
    both = reference.masked_fill(predicted != reference, num_classes)
    # Counted, for a mask a class costs more than the network with many classes.
    sizes, found, overlap = (_voxels_of_classes(one, num_classes) for one in (reference, predicted, both))
    coefficient = 2 * overlap / (found + sizes).clamp_min(1)
    right = ((coefficient >= dice) | (sizes == 0)).all(1)
    clean = found.sum(1) <= false_area * valid.sum(1)
    return torch.where(sizes.sum(1) > 0, right, clean)


def _voxels_of_classes(classes: Tensor, num_classes: int) -> Tensor:
    """Voxels of each foreground class in each sample, ``[B, C - 1]``; of ``[B, N]``, `num_classes` being no class."""
    rows = torch.arange(len(classes), device=classes.device).unsqueeze(1) * (num_classes + 1)
    counts = torch.bincount((classes + rows).flatten(), minlength=len(classes) * (num_classes + 1))
    return counts.view(len(classes), -1)[:, 1:num_classes]


class ForgettingStatistics:
    """Learning history of every sample, as tensors of one row a sample.

    Args:
        num_samples: N; ids are 0 to N - 1.

    Attributes:
        presentations: times a sample was looked at, int64 ``[N]``.
        learnt: times it went from wrong (or unseen) to correct.
        events: times it went from correct to wrong: forgetting events.
        correct: times it was correct.
        first_learnt: presentation (0, 1, ...) at which it was first correct, -1 if never.
        last_wrong: presentation at which it was last wrong, -1 if never (plus 1: presentations needed to learn it).
        suspected: times it was reported to the label review (`suspect`).
    """

    _COUNTS = ("presentations", "learnt", "events", "correct", "first_learnt", "last_wrong", "suspected")

    def __init__(self, num_samples: int) -> None:
        self.presentations = torch.zeros(num_samples, dtype=torch.int64)
        self.learnt = torch.zeros(num_samples, dtype=torch.int64)
        self.events = torch.zeros(num_samples, dtype=torch.int64)
        self.correct = torch.zeros(num_samples, dtype=torch.int64)
        self.first_learnt = torch.full((num_samples,), -1, dtype=torch.int64)
        self.last_wrong = torch.full((num_samples,), -1, dtype=torch.int64)
        self.suspected = torch.zeros(num_samples, dtype=torch.int64)
        self._was_correct = torch.zeros(num_samples, dtype=torch.bool)
        self._mean = torch.zeros(num_samples, dtype=torch.float64)
        self._m2 = torch.zeros(num_samples, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.presentations)

    def update(self, ids: Tensor, correct: Tensor, confidence: Tensor) -> None:
        """Take presentations in, in the order of the batch: an id that occurs twice counts as presented twice.

        Args:
            ids: int64 ``[n]``.
            correct: whether the network had the sample right, bool ``[n]`` (see `is_correct`).
            confidence: p_y, ``[n]`` (see `true_class_confidence`); not finite counts as 0.

        Raises:
            IndexError: for an id outside 0 to N - 1.
        """
        ids, correct = ids.cpu(), correct.cpu().bool()
        confidence = confidence.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
        occurrence = _occurrence(ids)
        for turn in range(int(occurrence.max()) + 1 if len(ids) else 0):
            now = occurrence == turn
            self._update_distinct(ids[now], correct[now], confidence[now])

    def _update_distinct(self, ids: Tensor, correct: Tensor, confidence: Tensor) -> None:
        seen, was_correct = self.presentations[ids], self._was_correct[ids]
        self.events[ids] += was_correct & ~correct
        self.learnt[ids] += ~was_correct & correct
        self.correct[ids] += correct
        first = correct & (self.first_learnt[ids] < 0)
        self.first_learnt[ids] = torch.where(first, seen, self.first_learnt[ids])
        self.last_wrong[ids] = torch.where(correct, self.last_wrong[ids], seen)
        self._was_correct[ids] = correct
        self.presentations[ids] = seen + 1
        # Welford's update of mean and sum of squared deviations.
        delta = confidence - self._mean[ids]
        self._mean[ids] += delta / (seen + 1)
        self._m2[ids] += delta * (confidence - self._mean[ids])

    def suspect(self, ids: Tensor) -> None:
        """Note that these samples were reported as suspects (ids may repeat)."""
        self.suspected += torch.bincount(ids.cpu(), minlength=len(self))

    @property
    def confidence(self) -> Tensor:
        """Mean of p_y over the presentations, float64 ``[N]``; 0 for a sample never presented."""
        return self._mean.clone()

    @property
    def variability(self) -> Tensor:
        """Standard deviation of p_y over the presentations, float64 ``[N]``."""
        return (self._m2 / self.presentations.clamp_min(1)).clamp_min(0).sqrt()

    @property
    def correctness(self) -> Tensor:
        """Share of the presentations at which the sample was correct, float64 ``[N]``."""
        return self.correct.double() / self.presentations.clamp_min(1)

    def never_learnt(self, *, minimum: int = 3) -> Tensor:
        """``[N]`` bool: presented at least ``minimum`` times and never correct."""
        return (self.presentations >= minimum) & (self.learnt == 0)

    def most_events(self, q: float = 0.95) -> float:
        """Quantile q of the forgetting events over the samples that were ever learnt; infinite if none was."""
        events = self.events[self.learnt > 0].double()
        return float(torch.quantile(events, q)) if len(events) else float("inf")

    def forgettable(self, ids: Tensor) -> Tensor:
        """Which samples were learnt, then forgotten, and not more often than nearly all others, ``[n]`` bool."""
        ids = ids.cpu()
        return (self.learnt[ids] >= 1) & (self.events[ids] >= 1) & (self.events[ids] <= self.most_events())

    def hopeless(self, ids: Tensor) -> Tensor:
        """Which samples were never learnt, or are forgotten more often than nearly all others, ``[n]`` bool."""
        ids = ids.cpu()
        return self.never_learnt()[ids] | (self.events[ids] > self.most_events())

    def suspects(self, *, confidence: float = 0.1, variability: float = 0.5, minimum: int = 3) -> Tensor:
        """Samples whose label is probably wrong: never learnt, low confidence, low variability.

        Args:
            confidence: the lowest share of the presented samples by confidence.
            variability: the lowest share of the presented samples by variability.
            minimum: presentations that a sample needs.

        Returns:
            ids, int64, least confident first.
        """
        presented = self.presentations >= minimum
        if not presented.any():
            return torch.zeros(0, dtype=torch.int64)
        mean, std = self.confidence, self.variability
        low = mean <= torch.quantile(mean[presented], confidence)
        steady = std <= torch.quantile(std[presented], variability)
        ids = (self.never_learnt(minimum=minimum) & low & steady).nonzero().squeeze(1)
        return ids[mean[ids].sort(stable=True).indices]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, as tensors and plain types."""
        names = (*self._COUNTS, "_was_correct", "_mean", "_m2")
        return {name.lstrip("_"): getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, bit for bit.

        Raises:
            ValueError: if it was written for another number of samples.
        """
        if len(state["presentations"]) != len(self):
            msg = f"the stored statistics are of {len(state['presentations'])} samples, not {len(self)}"
            raise ValueError(msg)
        for name in (*self._COUNTS, "_was_correct", "_mean", "_m2"):
            setattr(self, name, state[name.lstrip("_")].clone())


def _occurrence(ids: Tensor) -> Tensor:
    """How many times each id has occurred earlier in the batch, ``[n]``: 0 for the first, 1 for the second, ..."""
    order = ids.sort(stable=True).indices
    place = torch.arange(len(ids))
    first = torch.ones(len(ids), dtype=torch.bool)
    first[1:] = ids[order][1:] != ids[order][:-1]
    start = torch.where(first, place, 0).cummax(0).values if len(ids) else place
    occurrence = torch.empty_like(place)
    occurrence[order] = place - start
    return occurrence
