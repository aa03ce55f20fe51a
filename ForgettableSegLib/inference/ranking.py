"""What to look at first: slices, classes and the case ranked by difficulty, as the review file holds them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.task import SegmentClass
from ForgettableSegLib.inference.difficulty import (
    CONFIDENCE,
    HARD_PERCENTILE,
    SCORE,
    Calibration,
    ClassRegion,
    case_mean,
    class_regions,
    dilate,
    dilation_axes,
    slice_means,
)

SCHEMA = 1
SLICE_COLUMNS = ("case", "slice", "class", "difficulty", "percentile", "x", "y", "z", "area_mm2")


@dataclass(frozen=True)
class ReviewInput:
    """What a review is made from.

    Args:
        case_id: the case.
        model: name of the model.
        maps: raw difficulty per channel ``[z, y, x]`` (not percentiles); ``score`` or else ``confidence`` ranks.
        labels: label map ``[z, y, x]`` whose foreground is looked at (predicted, or the reference in an audit).
        classes: the task's classes.
        geometry: of the arrays.
        slice_axis: array axis (0 is z) along which slices are counted.
        in_plane: the model saw slices only (2D), so regions are dilated within the slice.
        calibration: turns raw difficulty into percentiles.
        learnt_classes: how many classes the model has learnt; ``classes`` are these, perhaps once a side of the body.
    """

    case_id: str
    model: str
    maps: Mapping[str, np.ndarray]
    labels: np.ndarray
    classes: Sequence[SegmentClass]
    geometry: Geometry
    slice_axis: int
    in_plane: bool
    calibration: Calibration
    learnt_classes: int = 0

    @property
    def channel(self) -> str:
        """The channel that ranks."""
        return SCORE if SCORE in self.maps else CONFIDENCE


def review(source: ReviewInput) -> dict[str, Any]:
    """The content of a case's review file: schema, channels, slices (hardest first), classes and the case itself.

    A slice's difficulty for a class is the mean of the ranking channel over the class's voxels in the slice, dilated by
    two voxels; its spot (``position_lps``, mm) is the highest value of the slightly smoothed map there. A case without
    any foreground has its whole slices ranked, under the class name ``""``.
    """
    axes = dilation_axes(source.slice_axis, in_plane=source.in_plane)
    regions = {each.value: each for each in class_regions(source.labels, _values(source), axes=axes)}
    present = [each for each in source.classes if each.value in regions]
    rows = [row for each in present for row in _slice_rows(source, each.name, regions[each.value])]
    if not regions:
        rows = _slice_rows(source, "", _everywhere(source.labels))
    rows.sort(key=lambda row: (-row["difficulty"], row["class"], row["slice"]))
    foreground = np.isin(source.labels, _values(source))
    difficulty = case_mean(source.maps[source.channel], dilate(foreground, axes=axes))
    classes = [_class_row(source, index, cls, regions.get(cls.value)) for index, cls in enumerate(source.classes)]
    verdicts = [source.calibration.verdict(source.channel, "case", difficulty), *(row["verdict"] for row in classes)]
    verdict = next((word for word in ("unlike", "hard", "usual") if word in verdicts), None) if regions else "empty"
    return {
        "schema": SCHEMA,
        "case": source.case_id,
        "model": source.model,
        "channels": list(source.maps),
        "slice_axis": source.slice_axis,
        "slices": rows,
        "classes": classes,
        "case_difficulty": {
            "difficulty": difficulty,
            "percentile": source.calibration.percentile(source.channel, "case", difficulty),
            "verdict": verdict,
        },
    }


@dataclass(frozen=True)
class Wanted:
    """What a model would call the voxels of a class instead.

    Args:
        name: the class as the reference has it.
        instead: the other class that the model gives most of its voxels, "background" included.
        share: of the class's voxels, 0 to 1.
    """

    name: str
    instead: str
    share: float


def wanted_instead(reference: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[Wanted]:
    """For each class of the reference the other class that the model wants most there, the largest share first.

    Args:
        reference, predicted: class indices of the same shape.
        names: of the foreground classes.
    """
    found = []
    for index, name in enumerate(names, start=1):
        counts = np.bincount(predicted[reference == index].reshape(-1), minlength=len(names) + 1)
        others = counts.copy()
        others[index] = 0
        if others.any():
            most = int(others.argmax())
            instead = names[most - 1] if most else "background"
            found.append(Wanted(name, instead, float(others[most] / counts.sum())))
    return sorted(found, key=lambda each: -each.share)


def hardest_first(reviews: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The slices of several cases in one table, hardest first, each with its case."""
    rows = [{"case": each["case"], **row} for each in reviews for row in each["slices"]]
    return sorted(rows, key=lambda row: (-row["difficulty"], row["case"], row["class"], row["slice"]))


def slices_csv(reviews: Sequence[Mapping[str, Any]]) -> str:
    """:func:`hardest_first` as the text of a CSV file (positions are LPS, mm)."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, SLICE_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in hardest_first(reviews):
        writer.writerow({**row, **dict(zip("xyz", row["position_lps"], strict=True))})
    return text.getvalue()


def _values(source: ReviewInput) -> list[int]:
    return [each.value for each in source.classes]


def _everywhere(labels: np.ndarray) -> ClassRegion:
    box = tuple(slice(0, length) for length in labels.shape)
    return ClassRegion(0, box, np.zeros(labels.shape, dtype=bool), np.ones(labels.shape, dtype=bool))


def _slice_rows(source: ReviewInput, name: str, found: ClassRegion) -> list[dict[str, Any]]:
    axis = source.slice_axis
    values = source.maps[source.channel][found.box]
    means = slice_means(values, found.region, slice_axis=axis)
    voxels = found.mask.sum(axis=tuple(i for i in range(3) if i != axis))
    listed = np.flatnonzero(voxels) if found.value else range(len(voxels))
    spots = _hot_spots(values, found, axis)
    spacing = source.geometry.spacing[::-1]  # z, y, x as the arrays
    voxel_area = float(np.prod([spacing[i] for i in range(3) if i != axis]))
    corner = np.array([part.start for part in found.box])
    positions = source.geometry.index_to_physical((corner + spots)[:, ::-1])
    rows = []
    for index in listed:
        difficulty = float(means[index])
        rows.append(
            {
                "slice": int(corner[axis] + index),
                "class": name,
                "difficulty": difficulty,
                "percentile": source.calibration.percentile(source.channel, "slice", difficulty),
                "position_lps": positions[index].tolist(),
                "area_mm2": float(voxels[index]) * voxel_area,
            }
        )
    return rows


def _hot_spots(values: np.ndarray, found: ClassRegion, axis: int) -> np.ndarray:
    """Index (within the box) of the highest smoothed value of the region in every slice, ``[slices, 3]``."""
    radius = [0 if i == axis else 1 for i in range(3)]
    means = sitk.BoxMean(sitk.GetImageFromArray(np.ascontiguousarray(values)), radius[::-1])
    smooth = np.where(found.region, sitk.GetArrayFromImage(means), -np.inf)
    flat = np.moveaxis(smooth, axis, 0).reshape(smooth.shape[axis], -1)
    others = [smooth.shape[i] for i in range(3) if i != axis]
    rows, columns = np.unravel_index(flat.argmax(axis=1), others)
    return np.insert(np.stack([rows, columns], axis=1), axis, np.arange(len(flat)), axis=1)


def _class_row(source: ReviewInput, index: int, cls: SegmentClass, found: ClassRegion | None) -> dict[str, Any]:
    voxels, mean, share, verdict = 0, 0.0, 0.0, None
    if found is not None:
        voxels = int(found.mask.sum())
        values = source.maps[source.channel][found.box][found.region]
        mean = float(values.mean(dtype=np.float64))
        hard = source.calibration.value_at(source.channel, "voxel", HARD_PERCENTILE)
        share = float((values > hard).mean())
        learnt = index % (source.learnt_classes or len(source.classes))
        verdict = source.calibration.verdict(source.channel, f"class{learnt + 1}", mean)
    return {
        "name": cls.name,
        "value": cls.value,
        "voxels": voxels,
        "volume_ml": voxels * source.geometry.voxel_volume / 1000,
        "mean_difficulty": mean,
        "share_above_95": share,
        "verdict": verdict,
    }
