"""Volume nodes to files that the worker reads, and files that it wrote back to volume nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import slicer
import vtk

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

from .readers import vtkITK

_SHEAR = 1e-3  # cosine between two image axes above which the image formats refuse the geometry

IndexBox = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Lower and upper corner in voxel indices (i, j, k); the upper one is outside the box."""


def whyNotUsable(volumeNode: slicer.vtkMRMLVolumeNode | None) -> str:
    """Return one sentence that says why the volume cannot be segmented, or nothing if it can."""
    if volumeNode is None:
        return "Choose an input volume."
    name = volumeNode.GetName()
    image = volumeNode.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetNumberOfScalarComponents() < 1:
        return f"The volume '{name}' holds no image."
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is not None and not transformNode.IsTransformToWorldLinear():
        return f"The volume '{name}' is under a non-linear transform; harden the transform on it first."
    if _shear(ijkToWorld(volumeNode)) > _SHEAR:
        return f"The axes of the volume '{name}' are not at right angles; resample it to a regular grid first."
    return ""


def writeVolume(volumeNode: slicer.vtkMRMLVolumeNode, path: Path | str) -> None:
    """Write the volume as it lies in the world to a file that the worker can read.

    A linear transform above the volume is hardened in a copy; neither the volume nor the scene is changed. For the
    proxy volume of a sequence that is the current frame.

    Args:
        volumeNode: scalar, label map or vector volume.
        path: file to write; `.nrrd` keeps every geometry and is written without compression, which is fastest.

    Raises:
        ForgettableSegError: if the volume cannot be used, or cannot be written.
    """
    reason = whyNotUsable(volumeNode)
    if reason:
        raise ForgettableSegError(ErrorCode.CASE_INVALID, reason)
    scene = slicer.vtkMRMLScene()
    copy = scene.AddNode(volumeNode.CreateNodeInstance())
    copy.SetAndObserveImageData(volumeNode.GetImageData())
    copy.SetIJKToRASMatrix(ijkToWorld(volumeNode))
    storage = scene.AddNode(slicer.vtkMRMLVolumeArchetypeStorageNode())
    storage.SetFileName(str(path))
    storage.UseCompressionOff()
    if not storage.WriteData(copy):
        msg = f"The volume '{volumeNode.GetName()}' could not be written to {path}."
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, msg, hint="Check the space and the rights there.")


def readVolume(scene: slicer.vtkMRMLScene, path: Path | str, name: str) -> slicer.vtkMRMLVolumeNode:
    """Read a volume that the worker wrote into a new node with a display node.

    The node is not tied to the file, which may be a temporary one: saving the scene saves the volume anew.

    Args:
        scene: receives the node.
        path: the file.
        name: name of the node; made unique in the scene.

    Raises:
        ForgettableSegError: if there is no such file or it cannot be read.
    """
    if not Path(path).is_file():
        raise ForgettableSegError(ErrorCode.FILE_MISSING, f"The file {path} is missing.")
    components = _components(path)
    node = scene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode" if components == 1 else "vtkMRMLVectorVolumeNode", scene.GetUniqueNameByString(name)
    )
    if not _read(node, path):
        scene.RemoveNode(node)
        raise ForgettableSegError(ErrorCode.FILE_UNREADABLE, f"The file {path} cannot be read as a volume.")
    node.CreateDefaultDisplayNodes()
    return node


def readLabelMap(scene: slicer.vtkMRMLScene, path: Path | str, name: str) -> slicer.vtkMRMLLabelMapVolumeNode:
    """Read a label map that the worker wrote into a new label map node; see :func:`readVolume`."""
    if not Path(path).is_file():
        raise ForgettableSegError(ErrorCode.FILE_MISSING, f"The file {path} is missing.")
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", scene.GetUniqueNameByString(name))
    if not _read(node, path):
        scene.RemoveNode(node)
        raise ForgettableSegError(ErrorCode.FILE_UNREADABLE, f"The file {path} cannot be read as a label map.")
    return node


def placeOnGrid(node: slicer.vtkMRMLVolumeNode, source: slicer.vtkMRMLVolumeNode) -> bool:
    """Put a result on exactly the grid and under the same transform as the volume that it was computed from.

    The file holds the world geometry as decimal text; the source's own numbers are exact, and under its transform the
    result goes on following it. A result on another grid is left where its file says: Slicer also turns the slices of
    a left-handed file round as it reads it.

    Returns:
        Whether the result is on the source's grid now.
    """
    if node.GetImageData().GetDimensions() != source.GetImageData().GetDimensions():
        return False
    if not _isSameMatrix(ijkToWorld(node), ijkToWorld(source), tolerance=0.01 * min(source.GetSpacing())):
        return False
    matrix = vtk.vtkMatrix4x4()
    source.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    if node.GetScene() is source.GetScene():
        node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    return True


def fitROI(
    roiNode: slicer.vtkMRMLMarkupsROINode,
    volumeNode: slicer.vtkMRMLVolumeNode,
    size: Sequence[float] | None = None,
) -> None:
    """Lay a new region around a volume and show it, for one without a size cannot be seen or drawn larger.

    Args:
        roiNode: the region.
        volumeNode: the volume.
        size: along R, A, S in mm, for a region in the middle of the volume; it never reaches beyond the volume.
    """
    bounds = [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    whole = [bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3)]
    roiNode.SetCenter(*((bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)))
    roiNode.SetSize(*(min(pair) for pair in zip(whole, size or whole, strict=True)))
    roiNode.CreateDefaultDisplayNodes()


def indexBoxOfROI(roiNode: slicer.vtkMRMLMarkupsROINode, volumeNode: slicer.vtkMRMLVolumeNode) -> IndexBox:
    """Return the box of voxels that encloses a region of interest, cut off at the volume's borders.

    Args:
        roiNode: the region, possibly rotated and under a linear transform.
        volumeNode: the volume, possibly under a linear transform.

    Raises:
        ForgettableSegError: if the region has no size or lies wholly outside the volume.
    """
    if min(roiNode.GetSize()) <= 0:
        msg = f"The region '{roiNode.GetName()}' has no size."
        raise ForgettableSegError(ErrorCode.REQUEST_INVALID, msg, hint="Draw it around what is to be segmented.")
    worldToIJK = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(ijkToWorld(volumeNode), worldToIJK)
    toIJK = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Multiply4x4(worldToIJK, roiNode.GetObjectToWorldMatrix(), toIJK)
    half = [size / 2 for size in roiNode.GetSize()]
    corners = [
        toIJK.MultiplyPoint((x * half[0], y * half[1], z * half[2], 1.0))
        for x in (-1, 1)
        for y in (-1, 1)
        for z in (-1, 1)
    ]
    dimensions = volumeNode.GetImageData().GetDimensions()
    # Voxel i reaches from i - 0.5 to i + 0.5; the slack keeps a face that lies on such a border where it is.
    slack = 1e-3
    low = [max(0, math.floor(min(c[axis] for c in corners) + 0.5 + slack)) for axis in range(3)]
    high = [min(dimensions[axis], math.floor(max(c[axis] for c in corners) + 0.5 - slack) + 1) for axis in range(3)]
    if any(lower >= upper for lower, upper in zip(low, high, strict=True)):
        msg = f"The region '{roiNode.GetName()}' lies outside the volume '{volumeNode.GetName()}'."
        raise ForgettableSegError(ErrorCode.REQUEST_INVALID, msg, hint="Move the region onto the volume.")
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def ijkToWorld(volumeNode: slicer.vtkMRMLVolumeNode) -> vtk.vtkMatrix4x4:
    """Return the matrix from voxel indices to world RAS in mm, with the linear transforms above the volume."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is not None:
        toWorld = vtk.vtkMatrix4x4()
        transformNode.GetMatrixTransformToWorld(toWorld)
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, matrix, matrix)
    return matrix


def _read(node: slicer.vtkMRMLVolumeNode, path: Path | str) -> bool:
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetCenterImage(False)
    return bool(storage.ReadData(node)) and node.GetImageData() is not None


def _components(path: Path | str) -> int:
    """Number of components of each voxel, from the file's header."""
    reader = vtkITK.vtkITKArchetypeImageSeriesScalarReader()
    reader.SetArchetype(str(path))
    reader.SetSingleFile(True)
    reader.UpdateInformation()
    return max(1, reader.GetNumberOfComponents())


def _isSameMatrix(first: vtk.vtkMatrix4x4, second: vtk.vtkMatrix4x4, *, tolerance: float) -> bool:
    places = [(row, column) for row in range(3) for column in range(4)]
    return all(abs(first.GetElement(*place) - second.GetElement(*place)) < tolerance for place in places)


def _shear(matrix: vtk.vtkMatrix4x4) -> float:
    """Largest absolute cosine between two axes."""
    axes = [[matrix.GetElement(row, column) for row in range(3)] for column in range(3)]
    for axis in axes:
        if vtk.vtkMath.Normalize(axis) == 0.0:
            return 1.0
    return max(abs(vtk.vtkMath.Dot(axes[first], axes[second])) for first, second in ((0, 1), (0, 2), (1, 2)))
