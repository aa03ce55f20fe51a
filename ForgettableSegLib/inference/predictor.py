"""Segmenting a case, with the map of what is hard in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_image
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.label_files import read_label
from ForgettableSegLib.cases.labels import to_class_indices, to_label_values
from ForgettableSegLib.cases.preprocessing import prepare, restore_scalar
from ForgettableSegLib.cases.shape import extent_mm, keep_largest
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.inference.difficulty import CONFIDENCE, PROTOTYPE_RATIO, dilate, dilation_axes
from ForgettableSegLib.inference.located import Found, segment_regions, unlike_learnt
from ForgettableSegLib.inference.outcome import Audit, Segmentation
from ForgettableSegLib.inference.ranking import ReviewInput, review, wanted_instead
from ForgettableSegLib.inference.regions import audit_regions
from ForgettableSegLib.inference.run import (
    LoadedModel,
    Progress,
    Watch,
    compute_scores,
    compute_segmentation,
    restore_segmentation,
)

if TYPE_CHECKING:
    from ForgettableSegLib.models.package import ModelPackage

Index = tuple[int, int, int]
Region = tuple[Index, Index]


class Predictor:
    """A model, ready to segment cases.

    Args:
        package: the model, or one that is loaded already (which knows its device).
        device: where to compute, see :func:`~ForgettableSegLib.inference.device.resolve_device`.
    """

    def __init__(self, package: ModelPackage | LoadedModel, device: torch.device | str = "cpu") -> None:
        self.model = package if isinstance(package, LoadedModel) else LoadedModel.from_package(package, device)

    @property
    def has_locator(self) -> bool:
        """Whether the model finds its structures in volumes larger than those that it has learnt."""
        return self.model.locator is not None

    def segment_case(self, case: Case, **options: Any) -> Segmentation:
        """Read a case and segment it; what is said of it guides a model that has learnt from such texts.

        Args:
            case: its images are read, its label is not.
            options: as for :meth:`segment_array`.

        Raises:
            ForgettableSegError: whatever reading the case and :meth:`segment_array` raise.
        """
        image, geometry = self._read(case)
        with self.model.told(case.text) as notes:
            found = self.segment_array(image, geometry, case_id=case.case_id, name=str(case.images[0]), **options)
        return replace(found, notes=(*found.notes, *notes)) if notes else found

    def segment_array(
        self,
        image: np.ndarray,
        geometry: Geometry,
        *,
        case_id: str = "",
        name: str = "The image",
        heatmap: bool = True,
        probabilities: bool = False,
        region: Region | None = None,
        anyway: bool = False,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """Segment an image.

        In a volume much larger than those that the model has learnt, a model with a locator segments the regions that
        its locator finds; one without refuses it.

        The difficulty maps are percentiles of what held-out cases showed in and around their foreground. Far from any
        predicted foreground a confident background is near 0 by itself; the prototype ratio is not allowed above the
        lack of confidence there, so that unusual but certain background (air, the table) stays dark, while a
        structure that the model half saw and left out stays visible.

        Args:
            image: ``[C, z, y, x]``, as read.
            geometry: of the image.
            case_id: name of the case in the review.
            name: what messages call the image: its file.
            heatmap: also compute difficulty and the review.
            probabilities: also return the class probabilities.
            region: box of voxel indices x, y, z (lowest, and one past the highest), cut at the image's border; it is
                segmented as if it were the whole image, and outside of it is background of difficulty 0.
            anyway: segment all of a volume as it is, however large.
            progress: called with phase (prepare, locate, predict, restore, review), steps done and number of steps.
            cancelled: asked before every forward pass.

        Raises:
            Cancelled: when ``cancelled`` says so.
            ForgettableSegError: CASE_INVALID (wrong number of channels, voxels that are not numbers), REQUEST_INVALID
                (region outside of the image), FIELD_OF_VIEW (too large, or not found by the locator), OUT_OF_MEMORY.
        """
        self._check_channels(image, name)
        watch = Watch(progress, cancelled)
        watch.begin("prepare")
        box = _box(region, geometry)
        part, part_geometry = _cut(image, geometry, box)
        options = {"heatmap": heatmap, "probabilities": probabilities, "name": name}
        if self._fits(part_geometry, anyway=anyway):
            found = self._segment_whole(part, part_geometry, watch, **options)
        else:
            found = segment_regions(self.model, part, part_geometry, watch, **options)
        watch.begin("restore")
        removed = keep_largest(found.labels, self._kept_largest(found))
        labels = _paste(found.labels, box, geometry)
        maps = {name: _paste(values, box, geometry) for name, values in found.maps.items()}
        content = None
        if heatmap:
            watch.begin("review")
            grid = PreparedGrid.plan(geometry, (None, None, None), self.model.preprocessing.slice_axis)
            content = self._review(maps, labels, geometry, grid, found.task, case_id)
            self._calibrate(maps, labels, grid)
        watch.end()
        names = dict(zip(found.task.label_values[1:], (each.name for each in found.task.classes), strict=True))
        volumes = _volumes(labels, geometry, found.task)
        return Segmentation(
            labels=labels,
            difficulty=maps,
            probabilities=_paste_probabilities(found.probabilities, box, geometry),
            geometry=geometry,
            volumes_ml=volumes,
            review=content,
            notes=tuple(watch.notes),
            seconds=watch.seconds,
            task=found.task,
            learnt_as=found.learnt_as,
            removed={names[value]: count for value, count in removed.items()},
            unlike=unlike_learnt(self.model, found, volumes, content),
        )

    def audit_case(self, case: Case, **options: Any) -> Audit:
        """Read a case with its reference segmentation and score it.

        Args:
            case: a case with a label.
            options: as for :meth:`audit_array`.

        Raises:
            ForgettableSegError: whatever reading the case and :meth:`audit_array` raise.
        """
        image, geometry = self._read(case)
        reference = read_label(case, self.model.task, geometry=geometry)
        return self.audit_array(image, geometry, reference, case_id=case.case_id, name=str(case.images[0]), **options)

    def audit_array(
        self,
        image: np.ndarray,
        geometry: Geometry,
        reference: np.ndarray,
        *,
        case_id: str = "",
        name: str = "The image",
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Audit:
        """Score a reference segmentation: where does it disagree with what the model has learnt?

        Args:
            image: ``[C, z, y, x]``, as read.
            geometry: of the image.
            reference: label values of the task ``[z, y, x]``, on the same grid.
            case_id: name of the case in the review.
            name: what messages call the image: its file.
            progress: as for :meth:`segment_array`.
            cancelled: as for :meth:`segment_array`.

        Raises:
            Cancelled: when ``cancelled`` says so.
            ForgettableSegError: MODEL_INVALID if the model has no prototypes; CASE_INVALID, OUT_OF_MEMORY.
        """
        if not self.model.scorer.has_prototypes:
            raise ForgettableSegError(
                ErrorCode.MODEL_INVALID,
                f"The model '{self.model.name}' was trained without prototypes, so it cannot score a segmentation.",
                hint="Choose a model that was trained with prototype scoring (pbs).",
            )
        self._check_channels(image, name)
        watch = Watch(progress, cancelled)
        watch.begin("prepare")
        classes = to_class_indices(reference, self.model.task)
        prepared = prepare(image, geometry, self.model.preprocessing, classes, name=name)
        scores, predicted = compute_scores(self.model, prepared, watch)
        watch.begin("restore")
        maps = {name: restore_scalar(values, prepared) for name, values in scores.items()}
        watch.begin("review")
        content = self._review(maps, reference, geometry, prepared.grid, self.model.task, case_id)
        names = ["background", *(each.name for each in self.model.task.classes)]
        content["regions"] = audit_regions(scores, predicted, prepared, names)
        watch.end()
        own = prepared.grid.to_native(predicted, nearest=True)
        return Audit(
            scores=maps,
            geometry=geometry,
            review=content,
            wanted=wanted_instead(classes, own, names[1:]),
            notes=tuple(watch.notes),
            seconds=watch.seconds,
        )

    def _read(self, case: Case) -> tuple[np.ndarray, Geometry]:
        same_grid = self.model.preprocessing.same_grid
        return read_image(case, channels=len(self.model.task.channels), same_grid=same_grid)

    def _fits(self, geometry: Geometry, *, anyway: bool) -> bool:
        """Whether a volume is segmented as it is.

        Raises:
            ForgettableSegError: FIELD_OF_VIEW, if it is too large and nothing can find the structures in it.
        """
        learnt = self.model.field_of_view
        if anyway or learnt is None or not learnt.is_too_large(extent_mm(geometry)):
            return True
        if self.model.locator is None:
            raise learnt.refusal(extent_mm(geometry))
        return False

    def _segment_whole(
        self, image: np.ndarray, geometry: Geometry, watch: Watch, *, heatmap: bool, probabilities: bool, name: str
    ) -> Found:
        prepared = prepare(image, geometry, self.model.preprocessing, name=name)
        computed = compute_segmentation(self.model, prepared, watch, heatmap=heatmap, probabilities=probabilities)
        watch.begin("restore")
        restored = restore_segmentation(computed, prepared, probabilities=probabilities)
        task = self.model.task
        labels = to_label_values(restored.classes, task)
        learnt_as = {each.name: each.name for each in task.classes}
        return Found(labels, restored.probabilities, restored.maps, task, learnt_as)

    def _kept_largest(self, found: Found) -> list[int]:
        return [each.value for each in found.task.classes if found.learnt_as[each.name] in self.model.keep_largest]

    def _check_channels(self, image: np.ndarray, name: str) -> None:
        channels = self.model.task.channels
        if len(image) != len(channels):
            raise ForgettableSegError(
                ErrorCode.CASE_INVALID,
                f"{name} has {len(image)} image channels, but the model '{self.model.name}' needs {len(channels)}: "
                f"{', '.join(channels)}.",
            )

    def _review(
        self,
        maps: dict[str, np.ndarray],
        labels: np.ndarray,
        geometry: Geometry,
        grid: PreparedGrid,
        task: Task,
        case_id: str,
    ) -> dict[str, Any]:
        return review(
            ReviewInput(
                case_id=case_id,
                model=self.model.name,
                maps=maps,
                labels=labels,
                classes=task.classes,
                geometry=geometry,
                slice_axis=grid.axes[0],
                in_plane=self.model.preprocessing.spatial_dims == 2,
                calibration=self.model.calibration,
                learnt_classes=len(self.model.task.classes),
            )
        )

    def _calibrate(self, maps: dict[str, np.ndarray], labels: np.ndarray, grid: PreparedGrid) -> None:
        """Turn raw difficulty into percentiles, in place."""
        for channel, values in maps.items():
            self.model.calibration.apply_(channel, values)
        if PROTOTYPE_RATIO in maps:
            axes = dilation_axes(grid.axes[0], in_plane=self.model.preprocessing.spatial_dims == 2)
            ratio, confidence = maps[PROTOTYPE_RATIO], maps[CONFIDENCE]
            np.minimum(ratio, confidence, out=ratio, where=~dilate(labels > 0, axes=axes))


def _volumes(labels: np.ndarray, geometry: Geometry, task: Task) -> dict[str, float]:
    voxels = np.bincount(labels.reshape(-1), minlength=max(task.label_values) + 1)
    return {each.name: float(voxels[each.value]) * geometry.voxel_volume / 1000 for each in task.classes}


def _box(region: Region | None, geometry: Geometry) -> tuple[slice, slice, slice]:
    """The region as slices z, y, x of an array."""
    if region is None:
        return tuple(slice(0, length) for length in geometry.shape)
    low, high = region
    box = tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, geometry.size, strict=True))
    if any(part.start >= part.stop for part in box):
        raise ForgettableSegError(
            ErrorCode.REQUEST_INVALID,
            f"The region from {tuple(low)} to {tuple(high)} (voxels x, y, z) lies outside of the image.",
            hint="Move the region onto the image.",
        )
    return box[::-1]


def _cut(image: np.ndarray, geometry: Geometry, box: tuple[slice, ...]) -> tuple[np.ndarray, Geometry]:
    part = image[(slice(None), *box)]
    if part.shape == image.shape:
        return image, geometry
    corner = [each.start for each in reversed(box)]
    origin = tuple(geometry.index_to_physical(corner).tolist())
    return part, replace(geometry, size=part.shape[:0:-1], origin=origin)


def _paste(values: np.ndarray, box: tuple[slice, ...], geometry: Geometry) -> np.ndarray:
    """Put what was computed for the region into a volume of zeros on the whole grid ``[..., z, y, x]``."""
    if values.shape[-3:] == geometry.shape:
        return values
    whole = np.zeros((*values.shape[:-3], *geometry.shape), dtype=values.dtype)
    whole[(..., *box)] = values
    return whole


def _paste_probabilities(
    probabilities: np.ndarray | None, box: tuple[slice, ...], geometry: Geometry
) -> np.ndarray | None:
    if probabilities is None:
        return None
    whole = _paste(probabilities, box, geometry)
    if whole is not probabilities:
        # Outside of the region everything is background, for certain.
        outside = np.ones(geometry.shape, dtype=bool)
        outside[box] = False
        whole[0, outside] = 1
    return whole
