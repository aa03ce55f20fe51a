"""A model as the judge of labels: how suspicious each slice, region and case is, and what the model wants instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.labels import to_label_values
from ForgettableSegLib.cases.preprocessing import Prepared, prepare_case
from ForgettableSegLib.evaluation.pages import Picture
from ForgettableSegLib.inference.run import LoadedModel, Watch, network_outputs
from ForgettableSegLib.mining.suspects import at_stake, surprise, suspect_regions, suspicion

PICTURES_A_CASE = 6


@dataclass(frozen=True)
class Judgement:
    """What a model says of the labels of a case.

    Args:
        case: its id.
        score: suspicion of all of it.
        slices: a row a slice with labelled or predicted foreground, the most suspicious first: "case", "axis" and
            "slice" (of the file), "class" and "wanted" (the pair of classes that surprises most), "score", "share" (of
            the foreground of either that differs), "position_lps" (mm, where it surprises most).
        regions: the same of connected regions, with "voxels" and "volume_ml" instead of "share".
        pictures: of the first slices, by (axis, slice).
        predicted: label values of the model's task ``[z, y, x]`` on the grid of the image.
        geometry: of the image.
        notes: a sentence for everything that was done differently from the plan.
    """

    case: str
    score: float
    slices: list[dict[str, Any]]
    regions: list[dict[str, Any]]
    pictures: dict[tuple[str, int], Picture]
    predicted: NDArray | None
    geometry: Geometry
    notes: tuple[str, ...]


def judge_case(model: LoadedModel, case: Case, *, watch: Watch, pictures: bool = True) -> Judgement:
    """Judge the labels of a case.

    Args:
        model: the judge, which should not have learnt from these labels.
        case: with a label.
        watch: follows the work.
        pictures: keep pictures of the most suspicious slices.

    Raises:
        ForgettableSegError: what is wrong with the case; OUT_OF_MEMORY.
        Cancelled: when asked for.
    """
    watch.begin("prepare")
    prepared = prepare_case(case, model.task, model.preprocessing)
    found = _surprise(model, prepared, watch)
    watch.begin("review")
    names = ["background", *(each.name for each in model.task.classes)]
    slices = _slice_rows(case.case_id, found, prepared, names)
    kept = slices[:PICTURES_A_CASE] if pictures else []
    axis = model.preprocessing.slice_axis
    shown = {
        (row["axis"], row["slice"]): slice_picture(prepared, prepared.label, found[1], row["prepared_slice"], axis)
        for row in kept
    }
    judged = Judgement(
        case=case.case_id,
        score=float(suspicion(found[0].sum(dtype=np.float64), at_stake(prepared.label, found[1], len(names)).sum())),
        slices=slices,
        regions=_region_rows(case.case_id, found, prepared, names),
        pictures=shown,
        predicted=to_label_values(prepared.grid.to_native(found[1], nearest=True), model.task),
        geometry=prepared.grid.native,
        notes=tuple(watch.notes),
    )
    watch.end()
    return judged


def file_place(grid: PreparedGrid, index: Sequence[float]) -> tuple[str, int, list[float]]:
    """Axis (i, j or k) along which slices are counted in the file, the slice there, and the position in LPS mm."""
    native = grid.index_to_native(index)
    axis = 2 - grid.axes[0]
    return "ijk"[axis], round(float(native[axis])), grid.native.index_to_physical(native).round(3).tolist()


def _surprise(model: LoadedModel, prepared: Prepared, watch: Watch) -> tuple[NDArray, NDArray]:
    """Excess and predicted classes on the prepared grid."""
    shape = prepared.grid.shape
    excess, predicted = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    for where, logits in network_outputs(model, prepared, watch):
        labels = torch.from_numpy(np.ascontiguousarray(prepared.label[where])).to(logits.device)
        found = surprise(logits, labels)
        for target, values in zip((excess, predicted), found, strict=True):
            target[where] = values.cpu()
    return excess, predicted


def _slice_rows(
    case_id: str, found: tuple[NDArray, NDArray], prepared: Prepared, names: Sequence[str]
) -> list[dict[str, Any]]:
    excess, predicted = found
    stake = at_stake(prepared.label, predicted, len(names))
    scores = suspicion(excess.sum((1, 2), dtype=np.float64), stake.sum((1, 2)))
    rows = []
    for index in np.argsort(-scores, kind="stable").tolist():
        label, own = prepared.label[index], predicted[index]
        if not stake[index].any():
            continue
        differs = (label != own) & (label < len(names))
        pair = _main_pair(label, own, excess[index] * differs, len(names))
        hottest = np.unravel_index(int(excess[index].argmax()), label.shape)
        axis, file_slice, position = file_place(prepared.grid, (index, *hottest))
        rows.append(
            {
                "case": case_id,
                "axis": axis,
                "slice": file_slice,
                "class": names[pair[0]],
                "wanted": names[pair[1]],
                "score": float(scores[index]),
                "share": float(differs.sum() / stake[index].sum()),
                "position_lps": position,
                "prepared_slice": index,
            }
        )
    return rows


def _main_pair(label: NDArray, own: NDArray, excess: NDArray, count: int) -> tuple[int, int]:
    """The pair of labelled and wanted class with most of the excess; the same class twice where nothing differs."""
    places = (label.astype(np.int64) * count + own)[excess != 0]
    if not len(places):
        most = int(np.bincount(own[own > 0]).argmax()) if own.any() else 0
        return most, most
    sums = np.bincount(places, weights=excess[excess != 0], minlength=count**2)
    return divmod(int(sums.argmax()), count)


def _region_rows(
    case_id: str, found: tuple[NDArray, NDArray], prepared: Prepared, names: Sequence[str]
) -> list[dict[str, Any]]:
    volume = float(np.prod(prepared.grid.spacing)) / 1000
    rows = []
    for region in suspect_regions(*found, prepared.label, num_classes=len(names)):
        axis, file_slice, position = file_place(prepared.grid, region.centre)
        rows.append(
            {
                "case": case_id,
                "axis": axis,
                "slice": file_slice,
                "class": names[region.label],
                "wanted": names[region.wanted],
                "score": region.score,
                "voxels": region.voxels,
                "volume_ml": region.voxels * volume,
                "position_lps": position,
            }
        )
    return rows


def slice_picture(prepared: Prepared, label: NDArray, predicted: NDArray, index: int, slice_axis: int) -> Picture:
    """A prepared slice with the head up: its image, and label and predicted classes ``[S, H, W]`` there."""
    rows = slice(None) if slice_axis == 0 else slice(None, None, -1)
    return Picture(
        image=np.array(prepared.image[0, index][rows]),
        label=np.array(label[index][rows]),
        predicted=np.array(predicted[index][rows]),
        spacing=tuple(prepared.grid.spacing[1:]),
    )
