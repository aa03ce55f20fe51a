"""Which samples of a batch go to the bank (Eq. 12), and which of them look like wrong labels instead."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ForgettableSegLib.mining.forgetting import ForgettingStatistics
from ForgettableSegLib.mining.scores import TERMS

Selection = Literal["score", "loss", "random", "foreground", "T1", "T2", "T3", "T4"]
Admission = Literal["topk", "band", "forgetting"]

DIFFICULTY_SELECTIONS = ("score", "loss", "T1", "T2", "T3", "T4")
"""Selections whose ranking says how hard a sample is; the others draw at random, so no window applies to them."""

SUSPECT_QUANTILE = 0.95
"""Running quantile above which a sample is too hard to be merely hard, and is reported instead."""


class Selected(NamedTuple):
    """Outcome of `select`.

    Args:
        admitted: positions in the batch of the samples for the bank, hardest first, int64 ``[<= n]``.
        suspects: positions of the samples that are too hard to be merely hard, for the label review, hardest first.
        ranking: the value that each sample was ranked by, float32 ``[B]`` on the CPU.
    """

    admitted: Tensor
    suspects: Tensor
    ranking: Tensor


class HardCount:
    """n_hard of Eq. 12 without the rounding loss: floor(B rho) is 0 for every batch smaller than 1/rho.

    What is cut off is carried to the next batch, so that after any number of batches the total is exact to less than
    one sample.

    Args:
        rho: share of the samples that is to be admitted, 0 to 1.
    """

    def __init__(self, rho: float) -> None:
        self.rho = rho
        self.carry = 0.0

    def next(self, batch_size: int) -> int:
        """Number of samples to admit from a batch of this size."""
        self.carry += batch_size * self.rho
        # The added 1e-9 keeps 0.29 * 100 at 29 (in floating point it is below).
        count = min(math.floor(self.carry + 1e-9), batch_size)
        self.carry -= count
        return count

    def give_back(self, count: int, batch_size: int) -> None:
        """Carry over what could not be admitted, up to one batch's share so that a drought is followed by no flood."""
        self.carry = min(self.carry + count, max(1.0, batch_size * self.rho))

    def state_dict(self) -> dict[str, float]:
        """Everything, as tensors and plain types."""
        return {"carry": self.carry}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned, bit for bit."""
        self.carry = float(state["carry"])


class ScoreHistory:
    """The most recent ranking values in a ring of fixed size, for running quantiles.

    Args:
        capacity: values kept.
        minimum: values below which a quantile says nothing yet.
    """

    def __init__(self, capacity: int = 1024, *, minimum: int = 64) -> None:
        self.minimum = min(minimum, capacity)
        self.values = torch.zeros(capacity)
        self.seen = 0

    @property
    def ready(self) -> bool:
        """Whether enough values are there for a quantile."""
        return self.seen >= self.minimum

    def observe(self, values: Tensor) -> None:
        """Take values in, the oldest leave; values that are not finite are skipped."""
        values = values[values.isfinite()][-len(self.values) :]
        places = (self.seen + torch.arange(len(values))) % len(self.values)
        self.values[places] = values.to(self.values)
        self.seen += len(values)

    def quantile(self, q: float) -> float:
        """Quantile q in [0, 1] of the values kept (linear interpolation).

        Raises:
            ValueError: while the ring is empty.
        """
        if self.seen == 0:
            msg = "no score has been observed yet"
            raise ValueError(msg)
        return float(torch.quantile(self.values[: min(self.seen, len(self.values))], q))

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything, as tensors and plain types."""
        return {"values": self.values.clone(), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: if it was written for another capacity.
        """
        if state["values"].shape != self.values.shape:
            msg = f"the stored score history holds {len(state['values'])} values, not {len(self.values)}"
            raise ValueError(msg)
        self.values = state["values"].clone()
        self.seen = int(state["seen"])


def admission_is_open(count: Tensor, *, minimum: int = 10, exists: Tensor | None = None) -> bool:
    """Whether the prototypes are settled enough for scores to mean something.

    Args:
        count: t_c, updates that each class has had, ``[C]``.
        minimum: updates that every class needs.
        exists: classes that occur in the training cases at all, ``[C]`` bool; all if None.
    """
    settled = count >= minimum
    return bool((settled if exists is None else settled | ~exists.to(settled.device)).all())


def ranking(
    sample_scores: Tensor,
    losses: Tensor,
    foreground: Tensor,
    *,
    selection: Selection = "score",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The value that samples are ranked by, float32 ``[B]`` on the CPU.

    Args:
        sample_scores: T1 to T4 and their sum, ``[B, 5]``.
        losses: main loss of each sample, ``[B]``.
        foreground: share (or number) of foreground voxels of each sample, ``[B]``.
        selection: ``random`` draws every sample alike; ``foreground`` draws those that hold foreground first (the
            foreground-aware random baseline).
        generator: of the random draws.

    Raises:
        ValueError: for an unknown selection.
    """
    if selection not in get_args(Selection):
        msg = f"unknown selection {selection!r}"
        raise ValueError(msg)
    if selection in ("random", "foreground"):
        draw = torch.rand(len(sample_scores), generator=generator)
        return draw + (foreground.cpu() > 0) if selection == "foreground" else draw
    if selection == "loss":
        return losses.detach().float().cpu()
    return sample_scores[:, TERMS.index(selection)].detach().float().cpu()


def select(
    sample_scores: Tensor,
    losses: Tensor,
    foreground: Tensor,
    n: int,
    *,
    selection: Selection = "score",
    admission: Admission = "band",
    window: tuple[float, float] = (0.70, 0.85),
    history: ScoreHistory | None = None,
    ids: Tensor | None = None,
    forgetting: ForgettingStatistics | None = None,
    eligible: Tensor | None = None,
    is_open: bool = True,
    generator: torch.Generator | None = None,
) -> Selected:
    """I_hard of Eq. 12: the n highest-ranked samples of the batch that the admission rule lets through.

    ``topk`` (the paper) lets all through, so wrong labels, the hardest of all, fill the bank. ``band`` admits from a
    window of running quantiles and reports what lies above it and above `SUSPECT_QUANTILE`; what lies between is
    neither. ``forgetting`` admits what was learnt and forgotten again, and reports what ranks as high but was never
    learnt or is forgotten all the time. With a random selection there is no above, so ``band`` admits like ``topk``.

    Args:
        sample_scores: T1 to T4 and their sum, ``[B, 5]``.
        losses: main loss of each sample, ``[B]``.
        foreground: share (or number) of foreground voxels of each sample, ``[B]``.
        n: n_hard, from `HardCount`.
        selection: what ranks.
        admission: what is let through.
        window: quantiles of the band.
        history: of the ranking values, updated with this batch first; required by ``band``.
        ids: row of each sample in the forgetting statistics, int64 ``[B]``; required by ``forgetting``.
        forgetting: the statistics; required by ``forgetting``.
        eligible: samples that may be admitted at all (not in the bank, not quarantined), ``[B]`` bool; all if None.
        is_open: False while the prototypes are not settled: the history is updated, nothing is admitted or reported.
        generator: of the random selections.

    Returns:
        Selected, fewer than n where the rule lets fewer through (see `HardCount.give_back`).

    Raises:
        ValueError: for an unknown selection or admission, or one whose argument is missing.
    """
    values = ranking(sample_scores, losses, foreground, selection=selection, generator=generator)
    none = torch.zeros(0, dtype=torch.int64)
    if history is not None:
        history.observe(values)
    if not is_open:
        return Selected(none, none, values)
    order = values.nan_to_num(nan=-math.inf, posinf=-math.inf).sort(descending=True, stable=True).indices
    order = order[values[order].isfinite()]
    if admission == "topk":
        allowed, suspect = torch.ones_like(values, dtype=torch.bool), torch.zeros_like(values, dtype=torch.bool)
    elif admission == "band":
        allowed, suspect = _band(values, window, history, selection)
    elif admission == "forgetting":
        allowed, suspect = _forgetting(order[:n], ids, forgetting)
    else:
        msg = f"unknown admission {admission!r}"
        raise ValueError(msg)
    if eligible is not None:
        allowed = allowed & eligible.cpu()
    return Selected(order[allowed[order]][:n], order[suspect[order]], values)


def _band(
    values: Tensor, window: tuple[float, float], history: ScoreHistory | None, selection: Selection
) -> tuple[Tensor, Tensor]:
    """Masks ``[B]`` of what lies within the window of running quantiles, and of what is too hard."""
    everything, nothing = torch.ones_like(values, dtype=torch.bool), torch.zeros_like(values, dtype=torch.bool)
    if selection not in DIFFICULTY_SELECTIONS:
        return everything, nothing
    if history is None:
        msg = "the admission band needs the history of the scores"
        raise ValueError(msg)
    if not history.ready:
        return nothing, nothing
    low, high, suspect = (history.quantile(q) for q in (*window, max(window[1], SUSPECT_QUANTILE)))
    return (values >= low) & (values <= high), values > suspect


def _forgetting(hardest: Tensor, ids: Tensor | None, forgetting: ForgettingStatistics | None) -> tuple[Tensor, Tensor]:
    """Masks ``[B]`` of what was learnt and forgotten again, and of what is among the hardest for another reason."""
    if ids is None or forgetting is None:
        msg = "the admission forgetting needs the forgetting statistics and the rows of the batch in them"
        raise ValueError(msg)
    among_hardest = torch.zeros(len(ids), dtype=torch.bool)
    among_hardest[hardest] = True
    return forgetting.forgettable(ids), forgetting.hopeless(ids) & among_hardest
