"""Segmentation nodes to label maps that the worker trains on or compares with, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ForgettableSegLib.cases.matching import FoundClass, How, match_classes
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

from .segmentations import segmentIDs
from .terminology import parseTerminology, terminologyOfClass
from .volumes import ijkToWorld, writeVolume

if TYPE_CHECKING:
    from ForgettableSegLib.cases.task import SegmentClass

_BINARY_LABELMAP = "Binary labelmap"


@dataclass(frozen=True)
class SegmentMapping:
    """Which class each segment stands for.

    Args:
        values: label value by segment id, None for a segment that is left out.
        missing: names of the classes that no segment stands for.
        unused: names of the segments that stand for no class.
        sentence: what was matched and by what, for the user.
        isByName: whether every segment is known by its name, and each class is there, so that there is nothing to say.
    """

    values: dict[str, int | None]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    sentence: str
    isByName: bool


def mapSegments(segmentationNode: slicer.vtkMRMLSegmentationNode, classes: Sequence[SegmentClass]) -> SegmentMapping:
    """Find the class of each segment, see :func:`ForgettableSegLib.cases.matching.match_classes`.

    A terminology that two classes share (two parts of one organ) decides nothing, nor does "tissue".
    """
    segmentation = segmentationNode.GetSegmentation()
    found = []
    for segmentID in segmentIDs(segmentationNode):
        segment = segmentation.GetSegment(segmentID)
        terminology = parseTerminology(segment.GetTerminology())
        codes = () if terminology is None or terminology.isUnspecific() else terminology.codes()
        found.append(FoundClass(segmentID, segment.GetName(), int(segment.GetLabelValue()), codes))
    matching = match_classes(found, classes, codes={each.name: terminologyOfClass(each).codes() for each in classes})
    matched = {each.key: matching.class_of(each.key) for each in found}
    return SegmentMapping(
        values={key: None if each is None else each.value for key, each in matched.items()},
        missing=tuple(each.name for each in matching.missing),
        unused=tuple(each.name for each in matching.unused),
        sentence=matching.sentence,
        isByName=matching.is_complete and all(how is How.NAME for _class, how in matching.matches.values()),
    )


def writeLabelMap(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    referenceVolume: slicer.vtkMRMLVolumeNode,
    values: Mapping[str, int | None],
    path: Path | str,
) -> dict[int, int]:
    """Write segments as one label map on the grid on which :func:`volumes.writeVolume` writes the reference volume.

    Args:
        segmentationNode: the segmentation, possibly under a transform.
        referenceVolume: the volume that the labels belong to, possibly under a linear transform.
        values: label value by segment id; segments without one are left out.
        path: file to write.

    Returns:
        The number of voxels of each label value that was asked for.

    Raises:
        ForgettableSegError: if segments of two classes overlap, or the file cannot be written.
    """
    reference = _worldImage(referenceVolume)
    shape = tuple(reversed(reference.GetDimensions()))
    labels = np.zeros(shape, dtype=np.uint16 if max([0, *filter(None, values.values())]) > 255 else np.uint8)
    source = _withLabelMaps(segmentationNode, reference)
    for segmentID, value in values.items():
        if not value:
            continue
        mask = _maskOnGrid(source, segmentID, reference, shape)
        clash = labels[mask & (labels != 0) & (labels != value)]
        if clash.size:
            raise _overlap(segmentationNode, segmentID, values, int(clash[0]), clash.size)
        labels[mask] = value
    writeVolume(_labelMapNode(referenceVolume, labels), path)
    return {value: int(np.count_nonzero(labels == value)) for value in sorted(set(filter(None, values.values())))}


def _worldImage(volumeNode: slicer.vtkMRMLVolumeNode) -> slicer.vtkOrientedImageData:
    """An image without voxels on the volume's grid in the world."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(volumeNode.GetImageData().GetDimensions())
    image.SetImageToWorldMatrix(ijkToWorld(volumeNode))
    return image


def _withLabelMaps(
    segmentationNode: slicer.vtkMRMLSegmentationNode, reference: slicer.vtkOrientedImageData
) -> slicer.vtkMRMLSegmentationNode:
    """The node itself, or for one of surfaces only (radiotherapy structures) a copy rasterised on the grid."""
    if segmentationNode.GetSegmentation().ContainsRepresentation(_BINARY_LABELMAP):
        return segmentationNode
    copy = slicer.vtkMRMLSegmentationNode()
    copy.GetSegmentation().DeepCopy(segmentationNode.GetSegmentation())
    toWorld = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(segmentationNode.GetParentTransformNode(), None, toWorld)
    copy.ApplyTransform(toWorld)
    geometry = slicer.vtkSegmentationConverter.SerializeImageGeometry(reference)
    copy.GetSegmentation().SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(), geometry
    )
    copy.GetSegmentation().CreateRepresentation(_BINARY_LABELMAP)
    return copy


def _maskOnGrid(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentID: str,
    reference: slicer.vtkOrientedImageData,
    shape: tuple[int, ...],
) -> np.ndarray:
    empty = np.zeros(shape, dtype=bool)
    segment = slicer.vtkOrientedImageData()
    if not segmentationNode.GetBinaryLabelmapRepresentation(segmentID, segment):
        return empty  # nothing was ever drawn in it
    if min(segment.GetDimensions()) < 1:
        return empty
    toWorld = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(segmentationNode.GetParentTransformNode(), None, toWorld)
    onGrid = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        segment, reference, onGrid, False, False, toWorld
    )
    return vtk_to_numpy(onGrid.GetPointData().GetScalars()).reshape(shape) != 0


def _overlap(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentID: str,
    values: Mapping[str, int | None],
    otherValue: int,
    voxels: int,
) -> ForgettableSegError:
    segmentation = segmentationNode.GetSegmentation()
    other = next(key for key, value in values.items() if value == otherValue)
    names = [segmentation.GetSegment(key).GetName() for key in (other, segmentID)]
    msg = (
        f"The segments '{names[0]}' and '{names[1]}' of '{segmentationNode.GetName()}' overlap in {voxels} voxels, "
        "but a voxel can be of one class only."
    )
    hint = "Take the overlap out of one of them with Logical operators > Subtract in the Segment Editor."
    return ForgettableSegError(ErrorCode.CASE_INVALID, msg, hint=hint)


def _labelMapNode(referenceVolume: slicer.vtkMRMLVolumeNode, labels: np.ndarray) -> slicer.vtkMRMLLabelMapVolumeNode:
    image = vtk.vtkImageData()
    image.SetDimensions(tuple(reversed(labels.shape)))
    image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel(), deep=True))
    node = slicer.vtkMRMLLabelMapVolumeNode()
    node.SetName("labels")
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(ijkToWorld(referenceVolume))
    return node
