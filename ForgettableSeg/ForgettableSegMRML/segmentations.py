"""Label maps that the worker wrote to segmentation nodes, and segmentation nodes to .seg.nrrd files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

from .slices import Point
from .subject_hierarchy import placeBeside
from .terminology import colorsOfClasses, terminologyOfClass
from .volumes import placeOnGrid, readLabelMap

if TYPE_CHECKING:
    from ForgettableSegLib.cases.task import SegmentClass

_BINARY_LABELMAP = "Binary labelmap"
_CLOSED_SURFACE = "Closed surface"


def loadLabelMap(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    path: Path | str,
    classes: Sequence[SegmentClass],
    *,
    referenceVolume: slicer.vtkMRMLVolumeNode | None = None,
) -> None:
    """Replace the segments of a node by those of a label map file, one segment a class in the task's order.

    A class that the label map does not hold becomes an empty segment, so that it can be drawn by hand. The segments
    carry names, SNOMED CT terminology and colours; the node takes the geometry and the place of the volume.

    Args:
        segmentationNode: node in a scene; what it holds is replaced.
        path: label map whose voxel values are the classes' values.
        classes: the task's classes.
        referenceVolume: the volume that was segmented; its geometry is kept for editing and for DICOM export.

    Raises:
        ForgettableSegError: if the file is missing or cannot be read.
    """
    scratch = slicer.vtkMRMLScene()
    labelMapNode = readLabelMap(scratch, path, "labels")
    isOnGrid = referenceVolume is not None and placeOnGrid(labelMapNode, referenceVolume)
    image = orientedImage(labelMapNode)
    wasModifying = segmentationNode.StartModify()
    try:
        segmentation = segmentationNode.GetSegmentation()
        segmentation.RemoveAllSegments()
        segmentationNode.SetSourceRepresentationToBinaryLabelmap()
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(referenceVolume if isOnGrid else labelMapNode)
        if referenceVolume is not None:
            role = segmentationNode.GetReferenceImageGeometryReferenceRole()
            segmentationNode.SetNodeReferenceID(role, referenceVolume.GetID())
        segmentationNode.SetAndObserveTransformNodeID(referenceVolume.GetTransformNodeID() if isOnGrid else None)
        for segmentClass, color in zip(classes, colorsOfClasses(classes), strict=True):
            segmentation.AddSegment(
                _segment(segmentClass, color, image), segmentation.GenerateUniqueSegmentID("Segment")
            )
    finally:
        segmentationNode.EndModify(wasModifying)
    if segmentationNode.GetDisplayNode() is None:
        segmentationNode.CreateDefaultDisplayNodes()
    styleForReview(segmentationNode)
    if referenceVolume is not None:
        placeBeside(segmentationNode, referenceVolume)


def readTask(path: Path | str) -> Task:
    """Return the classes of a label map as the worker wrote them beside it: a locator's result has those of each side.

    Raises:
        ForgettableSegError: if the file cannot be read.
    """
    try:
        return Task.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ForgettableSegError(ErrorCode.FILE_UNREADABLE, f"The classes in {path} cannot be read.") from error


def styleForReview(segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
    """Show segments as strong outlines over a faint fill, so that the image and a heatmap are seen through them."""
    displayNode = segmentationNode.GetDisplayNode()
    displayNode.SetVisibility2DFill(True)
    displayNode.SetVisibility2DOutline(True)
    displayNode.SetOpacity2DFill(0.2)
    displayNode.SetOpacity2DOutline(1.0)
    displayNode.SetSliceIntersectionThickness(2)


def showClosedSurface(segmentationNode: slicer.vtkMRMLSegmentationNode, show: bool = True) -> None:
    """Show the segments in 3D, making their surfaces if there are none yet; or hide them and free the surfaces."""
    if show:
        segmentationNode.CreateClosedSurfaceRepresentation()
        segmentationNode.GetDisplayNode().SetPreferredDisplayRepresentationName3D(_CLOSED_SURFACE)
        segmentationNode.GetDisplayNode().SetVisibility3D(True)
    else:
        segmentationNode.GetDisplayNode().SetVisibility3D(False)
        segmentationNode.RemoveClosedSurfaceRepresentation()


def segmentIDs(segmentationNode: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """Return the ids of the node's segments in their order."""
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]


def segmentIDOfName(segmentationNode: slicer.vtkMRMLSegmentationNode, name: str) -> str:
    """Return the id of the segment of that name, or empty text."""
    return segmentationNode.GetSegmentation().GetSegmentIdBySegmentName(name)


def contentOf(segmentationNode: slicer.vtkMRMLSegmentationNode) -> str:
    """Return a checksum of the segments' names and voxels; the borders of their images do not count, which vary."""
    segmentation = segmentationNode.GetSegmentation()
    sums: dict[Any, int] = {}
    words = []
    for key in segmentIDs(segmentationNode):
        segment = segmentation.GetSegment(key)
        image = segment.GetRepresentation(_BINARY_LABELMAP)
        if image not in sums:
            sums[image] = _checksum(image)
        words.append(f"{segment.GetName()}|{segment.GetLabelValue()}|{sums[image]}")
    return f"{zlib.crc32(chr(10).join(words).encode()):08x}"


def centerOfSegments(segmentationNode: slicer.vtkMRMLSegmentationNode) -> Point | None:
    """Return a place in the world within the first segment that is not empty, near its middle; None if all are."""
    for segmentID in segmentIDs(segmentationNode):
        segment = segmentationNode.GetSegmentation().GetSegment(segmentID)
        image = segment.GetRepresentation(_BINARY_LABELMAP)
        scalars = None if image is None else image.GetPointData().GetScalars()
        if scalars is not None and (vtk_to_numpy(scalars) == segment.GetLabelValue()).any():
            return tuple(segmentationNode.GetSegmentCenterRAS(segmentID))
    return None


def writeSegmentation(segmentationNode: slicer.vtkMRMLSegmentationNode, path: Path | str) -> None:
    """Write a segmentation to a `.seg.nrrd` file, on the whole grid of its reference volume.

    Raises:
        ForgettableSegError: if it cannot be written.
    """
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    storage.SetCropToMinimumExtent(False)
    storage.SetUseCompression(True)
    if not storage.WriteData(segmentationNode):
        msg = f"The segmentation '{segmentationNode.GetName()}' could not be written to {path}."
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, msg, hint="Check the space and the rights there.")


def orientedImage(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkOrientedImageData:
    """Return the voxels of a volume with its own geometry (transforms above it left aside); voxels are shared."""
    image = slicer.vtkOrientedImageData()
    image.ShallowCopy(volumeNode.GetImageData())
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    return image


def _checksum(image: slicer.vtkOrientedImageData | None) -> int:
    """Of the voxels that are not 0, and where they lie in the image's coordinates."""
    scalars = None if image is None else image.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        return 0
    voxels = vtk_to_numpy(scalars).reshape(tuple(reversed(image.GetDimensions())))
    begin, total = reversed(image.GetExtent()[::2]), 0
    for axis, first in enumerate(begin):
        used = np.flatnonzero(voxels.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(used):
            return 0
        voxels = voxels.take(range(used[0], used[-1] + 1), axis=axis)
        total = zlib.crc32(f"{first + used[0]}".encode(), total)
    return zlib.crc32(np.ascontiguousarray(voxels, dtype=np.int16).tobytes(), total)


def _segment(
    segmentClass: SegmentClass, color: tuple[int, int, int], image: slicer.vtkOrientedImageData
) -> slicer.vtkSegment:
    segment = slicer.vtkSegment()
    segment.SetName(segmentClass.name)
    segment.SetColor(*(channel / 255 for channel in color))
    segment.SetTerminology(terminologyOfClass(segmentClass).entry())
    segment.SetLabelValue(segmentClass.value)
    segment.AddRepresentation(_BINARY_LABELMAP, image)  # one image for all segments: they cannot overlap
    return segment
