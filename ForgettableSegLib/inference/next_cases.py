"""What to label next: hard for the model, and unlike what is asked for already.

Difficulty is the mean lack of confidence over the predicted foreground, which follows the error best (METHOD E.5).
Of the hardest, those are taken that lie far from each other in the network's bottleneck (k-centre, farthest first): an
active-learning query by difficulty alone asks for ten neighbours of one hard slice (Yang et al., Suggestive annotation,
MICCAI 2017; Sener and Savarese, ICLR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.preprocessing import Prepared, prepare_case
from ForgettableSegLib.evaluation.pages import Picture
from ForgettableSegLib.inference.difficulty import CONFIDENCE, case_mean, dilate, dilation_axes, slice_means
from ForgettableSegLib.inference.judging import file_place, slice_picture
from ForgettableSegLib.inference.run import LoadedModel, Watch, network_outputs
from ForgettableSegLib.network.context import with_neighbours
from ForgettableSegLib.network.ensemble import Ensemble

# The choice is among so many times as many as are asked for, the hardest ones.
POOL = 4
SLICES_A_CASE = 3
_BATCH = 8


@dataclass(frozen=True)
class Candidate:
    """An unlabelled case as the model sees it.

    Args:
        case: its id.
        difficulty: mean over the predicted foreground, dilated by two voxels; over everything where there is none.
        percentile: of the difficulty, beside the cases held out of the training.
        found: whether the model found anything.
        feature: of the bottleneck, mean over the slices with foreground, ``[D]``.
        slices: those to label first, far from each other: "case", "axis", "slice", "difficulty", "position_lps".
        picture: of the first of them, None where not wanted.
    """

    case: str
    difficulty: float
    percentile: float
    found: bool
    feature: NDArray[np.float32]
    slices: list[dict[str, Any]]
    picture: Picture | None


def look_at(model: LoadedModel, case: Case, *, watch: Watch, picture: bool = True) -> Candidate:
    """Estimate how hard an unlabelled case is.

    Raises:
        ForgettableSegError: what is wrong with the case; OUT_OF_MEMORY.
        Cancelled: when asked for.
    """
    watch.begin("prepare")
    prepared = prepare_case(case, model.task, model.preprocessing)
    doubt, predicted = _doubt(model, prepared, watch)
    watch.begin("review")
    features = slice_features(model.network, prepared.image, model.preprocessing.spatial_dims, model.device)
    axes = dilation_axes(0, in_plane=model.preprocessing.spatial_dims == 2)
    region = dilate(predicted > 0, axes=axes)
    by_slice = np.nan_to_num(slice_means(doubt, region, slice_axis=0))
    has_foreground = predicted.any((1, 2))
    shown = np.flatnonzero(has_foreground) if has_foreground.any() else np.arange(len(predicted))
    difficulty = case_mean(doubt, region)
    chosen = [int(shown[n]) for n in spread_out(features[shown], by_slice[shown], SLICES_A_CASE, gap=shown)]
    watch.end()
    return Candidate(
        case=case.case_id,
        difficulty=difficulty,
        percentile=model.calibration.percentile(CONFIDENCE, "case", difficulty),
        found=bool(has_foreground.any()),
        feature=features[shown].mean(0),
        slices=[_slice_row(case.case_id, prepared, predicted, by_slice, index) for index in chosen],
        picture=slice_picture(prepared, np.zeros_like(predicted), predicted, chosen[0], model.preprocessing.slice_axis)
        if picture
        else None,
    )


def _slice_row(case_id: str, prepared: Prepared, predicted: NDArray, by_slice: NDArray, index: int) -> dict[str, Any]:
    voxels = np.argwhere(predicted[index] > 0)
    middle = voxels.mean(0) if len(voxels) else (np.array(predicted.shape[1:]) - 1) / 2
    axis, file_slice, position = file_place(prepared.grid, (index, *middle))
    found = {"case": case_id, "axis": axis, "slice": file_slice, "difficulty": float(by_slice[index])}
    return {**found, "position_lps": position}


def _doubt(model: LoadedModel, prepared: Prepared, watch: Watch) -> tuple[NDArray, NDArray]:
    """One minus the probability of the predicted class, and that class, ``[S, H, W]``."""
    doubt = np.empty(prepared.grid.shape, np.float32)
    predicted = np.empty(prepared.grid.shape, np.uint8)
    for where, logits in network_outputs(model, prepared, watch):
        best = logits.softmax(0).max(0)
        doubt[where], predicted[where] = (1 - best.values).cpu(), best.indices.to(torch.uint8).cpu()
    return doubt, predicted


@torch.inference_mode()
def slice_features(network: nn.Module, image: NDArray, spatial_dims: int, device: torch.device) -> NDArray[np.float32]:
    """Bottleneck features of every slice, standardised over nothing: means over the plane, ``[S, D]``.

    A 3D network gives the slices of its coarse volume, repeated to the slices of the case. A network without an encoder
    of ours gives the mean probabilities of its classes instead.
    """
    single = network.members[0] if isinstance(network, Ensemble) else network
    encode = getattr(single, "encode", None)

    def features(batch: Tensor) -> Tensor:
        return single(batch).softmax(1) if encode is None else encode(batch)[-1]

    count = image.shape[1]
    if spatial_dims == 3:
        volume = features(torch.from_numpy(np.array(image, dtype=np.float32))[None].to(device))[0]
        planes = volume.mean((2, 3)).T
        return planes[torch.arange(count) * len(planes) // count].cpu().numpy()
    parts = []
    for start in range(0, count, _BATCH):
        around = with_neighbours(image, start, min(count, start + _BATCH), getattr(single, "context_slices", 0))
        parts.append(features(torch.from_numpy(around).to(device)).flatten(2).mean(2).cpu())
    return torch.cat(parts).numpy()


def spread_out(
    features: NDArray, difficulty: NDArray, count: int, *, gap: NDArray | None = None, pool: int = POOL
) -> list[int]:
    """Choose hard ones that are far from each other.

    The hardest comes first; each next one is that of the `pool` times `count` hardest that is farthest from all chosen
    before it (k-centre).

    Args:
        features: ``[N, D]``.
        difficulty: ``[N]``.
        count: how many to choose at most.
        gap: slice numbers ``[N]``: neighbours of a chosen slice are not chosen, for a label between two labelled slices
            can be interpolated; None where there is no such order.
        pool: see above.

    Returns:
        Indices, in the order of the choice.
    """
    hardest = np.argsort(-difficulty, kind="stable")[: pool * count]
    if not len(hardest):
        return []
    values = features[hardest].astype(np.float64)
    values = (values - values.mean(0)) / (values.std(0) + 1e-6)
    chosen = [0]
    nearest = np.full(len(hardest), np.inf)
    while len(chosen) < min(count, len(hardest)):
        last = chosen[-1]
        nearest = np.minimum(nearest, np.square(values - values[last]).sum(1))
        nearest[last] = -1
        if gap is not None:
            nearest[np.abs(gap[hardest] - gap[hardest[last]]) <= 1] = -1
        farthest = int(nearest.argmax())
        if nearest[farthest] < 0:
            break
        chosen.append(farthest)
    return [int(hardest[number]) for number in chosen]


def order_of(candidates: Sequence[Candidate], budget: int) -> list[int]:
    """Which of the candidates to ask for, in order; see `spread_out`."""
    if not candidates:
        return []
    features = np.stack([each.feature for each in candidates])
    return spread_out(features, np.array([each.difficulty for each in candidates]), budget)
