"""Segmenting the regions that a locator finds, and all of it in one result on the grid of the volume."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.labels import to_label_values
from ForgettableSegLib.cases.preprocessing import prepare
from ForgettableSegLib.cases.shape import count_pieces
from ForgettableSegLib.cases.structures import structure_table
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.inference.difficulty import MEMORY
from ForgettableSegLib.inference.run import LoadedModel, Restored, Watch, compute_segmentation, restore_segmentation
from ForgettableSegLib.models.regions import LocatorRegion

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Found:
    """What was segmented of a volume, on its grid.

    Args:
        labels: values of ``task`` ``[z, y, x]``.
        probabilities: of the background and the task's classes ``[C, z, y, x]``, None if not asked for.
        maps: raw difficulty per channel.
        task: the classes that the labels hold.
        learnt_as: for each class of the task, the name of the class that the model has learnt.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    maps: dict[str, np.ndarray]
    task: Task
    learnt_as: Mapping[str, str]


def sided_task(task: Task, region: LocatorRegion, number: int) -> Task:
    """The classes of a model as they are called in one of its regions.

    Args:
        task: of the model.
        region: of its locator.
        number: of the region, from 0; its label values come after those of the regions before.
    """
    if region.side is None:
        return task
    step = number * max(task.label_values)
    return replace(task, classes=tuple(_sided(each, region.side, step) for each in task.classes))


def segment_regions(
    model: LoadedModel,
    image: np.ndarray,
    geometry: Geometry,
    watch: Watch,
    *,
    heatmap: bool,
    probabilities: bool,
    name: str,
) -> Found:
    """Find the regions of a model's locator in a volume and segment each.

    Args:
        model: with a locator.
        image: ``[C, z, y, x]``; the first channel is registered.
        geometry: of the volume.
        watch: follows.
        heatmap: also compute difficulty.
        probabilities: also return probabilities.
        name: what messages call the volume.

    Raises:
        ForgettableSegError: FIELD_OF_VIEW, where the template is not in the volume.
    """
    watch.begin("locate")
    located = model.locator.locate(image[0], geometry)
    regions = model.locator.card.regions
    tasks = [sided_task(model.task, region, number) for number, region in enumerate(regions)]
    task = replace(model.task, classes=tuple(each for part in tasks for each in part.classes))
    labels = np.zeros(geometry.shape, dtype=to_label_values(np.zeros(1, dtype=np.uint8), task).dtype)
    maps: dict[str, np.ndarray] = {}
    whole = None
    if probabilities:
        whole = np.zeros((task.num_classes, *geometry.shape), dtype=np.float32)
        whole[0] = 1
    watch.parts = len(regions)
    for number, (region, own) in enumerate(zip(regions, tasks, strict=True)):
        watch.part = number
        grid = located.grid(region, spacing=_spacing(model))
        crop = np.stack([_resampled(channel, geometry, grid) for channel in image])
        # The network is shown the region as the locator lays it, so it is given no direction of its own.
        prepared = prepare(crop, replace(grid, origin=(0.0,) * 3, direction=_IDENTITY), model.preprocessing, name=name)
        computed = compute_segmentation(model, prepared, watch, heatmap=heatmap, probabilities=True)
        restored = restore_segmentation(computed, prepared, probabilities=True)
        box, part = _box_of(grid, geometry)
        laid = _laid(restored, grid, part)
        values = to_label_values(laid.classes, own)
        np.copyto(labels[box], values, where=values > 0)
        for channel, found in laid.maps.items():
            target = maps.setdefault(channel, np.zeros(geometry.shape, dtype=np.float32))
            np.maximum(target[box], found, out=target[box])
        if whole is not None:
            first = 1 + number * len(model.task.classes)
            whole[(slice(first, first + len(model.task.classes)), *box)] = laid.probabilities[1:]
            whole[(0, *box)] = np.minimum(whole[(0, *box)], laid.probabilities[0])
    watch.part, watch.parts = 0, 1
    learnt_as = {
        each.name: one.name for part in tasks for each, one in zip(part.classes, model.task.classes, strict=True)
    }
    return Found(labels, whole, maps, task, learnt_as)


def unlike_learnt(
    model: LoadedModel, found: Found, volumes: Mapping[str, float], review: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """A sentence for everything in a result that is unlike the training cases of its model.

    Args:
        model: that segmented.
        found: the result.
        volumes: in ml, by name of the class.
        review: content of the review file, None without difficulty.
    """
    learnt = model.field_of_view
    if learnt is None:
        return ()
    sentences = []
    for each in found.task.classes:
        pieces = count_pieces(found.labels == each.value)
        sentences += learnt.surprises(each.name, found.learnt_as[each.name], volumes[each.name], pieces)
    if review is not None and review["case_difficulty"]["verdict"] == "unlike":
        sentences.append("It was far harder for the model than every case that it was tested on.")
    return tuple(sentences)


def _sided(segment_class: SegmentClass, side: str, step: int) -> SegmentClass:
    codes = segment_class.terminology
    if codes is not None:
        code = structure_table()["modifiers"][side]
        # Where a modifier (anterior) stands already, the side is said of the region.
        taken = codes.get("modifier") is not None
        codes = {**codes, **({"region": codes["type"], "region_modifier": code} if taken else {"modifier": code})}
    return replace(
        segment_class, name=f"{side} {segment_class.name}", value=segment_class.value + step, terminology=codes
    )


def _spacing(model: LoadedModel) -> tuple[float, float, float]:
    """Spacing x, y, z at which the model sees volumes: its own, else that of its training cases."""
    learnt = model.field_of_view.spacing_mm if model.field_of_view is not None else ((1.0,) * 3,) * 3
    asked = model.preprocessing.spacing[::-1]
    return tuple(float(step if step is not None else axis[1]) for step, axis in zip(asked, learnt, strict=True))


def _resampled(
    values: np.ndarray, geometry: Geometry, grid: Geometry, outside: float = 0.0, *, nearest: bool = False
) -> np.ndarray:
    """Values of one grid on another, linearly or by the nearest."""
    how = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
    geometry.apply_to(image)
    return sitk.GetArrayFromImage(
        sitk.Resample(image, grid.reference_image(), sitk.Transform(), how, outside, sitk.sitkFloat32)
    )


def _box_of(grid: Geometry, geometry: Geometry) -> tuple[tuple[slice, slice, slice], Geometry]:
    """The part of a volume that holds another grid: slices z, y, x, and its geometry."""
    corners = grid.index_to_physical(list(itertools.product(*((-0.5, n - 0.5) for n in grid.size))))
    volume = geometry.reference_image()
    index = np.array([volume.TransformPhysicalPointToContinuousIndex(corner) for corner in corners.tolist()])
    low = np.clip(np.floor(index.min(0)), 0, np.array(geometry.size) - 1).astype(int)
    high = np.clip(np.ceil(index.max(0)) + 1, low + 1, geometry.size).astype(int)
    origin = tuple(geometry.index_to_physical(low).tolist())
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return box[::-1], replace(geometry, size=tuple((high - low).tolist()), origin=origin)


def _laid(restored: Restored, grid: Geometry, part: Geometry) -> Restored:
    """A region's result on the grid of the volume; the class is decided there, and outside the region is background.

    How sure the model is was learnt on its own grid: between two voxels of different classes it would seem unsure.
    """
    probabilities = np.stack(
        [_resampled(one, grid, part, float(index == 0)) for index, one in enumerate(restored.probabilities)]
    )
    maps = {name: _resampled(values, grid, part, nearest=name == MEMORY) for name, values in restored.maps.items()}
    return Restored(probabilities.argmax(axis=0).astype(np.uint8), probabilities, maps)
