"""Small pictures of the samples in the bank: one slice of a case with the outline of a label."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .pictures import pngBytes
from .terminology import Color
from .volumes import ijkToWorld, readVolume

# For a slice across each LPS axis (0 is z, axial): the world RAS directions of the picture's right and up.
_SCREEN_AXES = {0: ((-1, 0, 0), (0, 1, 0)), 1: ((-1, 0, 0), (0, 0, 1)), 2: ((0, -1, 0), (0, 0, 1))}


class ThumbnailMaker:
    """Makes thumbnails of slices and keeps the last volumes that it read, for a bank often holds one case many times.

    Args:
        size: width and height in pixels.
        fieldOfViewMm: most of the slice, in mm, that is shown around the place.
        keep: number of volumes kept in memory.
    """

    def __init__(self, *, size: int = 96, fieldOfViewMm: float = 150.0, keep: int = 4) -> None:
        self._size = size
        self._fieldOfView = fieldOfViewMm
        self._keep = keep
        self._scene = slicer.vtkMRMLScene()
        self._volumes: OrderedDict[str, slicer.vtkMRMLVolumeNode] = OrderedDict()

    def png(
        self,
        imagePath: Path | str,
        positionRas: Sequence[float],
        *,
        sliceAxis: int = 0,
        labelPath: Path | str | None = None,
        labelValue: int | None = None,
        color: Color = (255, 230, 60),
    ) -> bytes:
        """Return a slice through a place as the content of a PNG file.

        Args:
            imagePath: volume file; the first channel is shown.
            positionRas: place in the world in mm.
            sliceAxis: 0 for axial, 1 for coronal, 2 for sagittal.
            labelPath: label map file on any grid, or None.
            labelValue: label that is outlined; all labels if it is None.
            color: of the outline.

        Raises:
            ForgettableSegError: if a file is missing or cannot be read.
        """
        image = self._volume(imagePath)
        frame = _frame(image, positionRas, sliceAxis, self._fieldOfView, self._size)
        picture = np.repeat(_windowed(image, _cut(image, frame, self._size, linear=True))[..., None], 3, axis=2)
        if labelPath is not None:
            labels = _cut(self._volume(labelPath), frame, self._size, linear=False)
            mask = labels > 0 if labelValue is None else labels == labelValue
            picture[_outline(mask)] = color
        return pngBytes(_toImage(picture))

    def _volume(self, path: Path | str) -> slicer.vtkMRMLVolumeNode:
        key = str(path)
        if key in self._volumes:
            self._volumes.move_to_end(key)
            return self._volumes[key]
        node = readVolume(self._scene, path, Path(path).name)
        self._volumes[key] = node
        while len(self._volumes) > self._keep:
            _path, oldest = self._volumes.popitem(last=False)
            self._scene.RemoveNode(oldest)
        return node


def _frame(
    volumeNode: slicer.vtkMRMLVolumeNode,
    positionRas: Sequence[float],
    sliceAxis: int,
    fieldOfView: float,
    size: int,
) -> vtk.vtkMatrix4x4:
    """Matrix from pixels of the picture to the world, around the place but not far beyond the volume's borders."""
    bounds = [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    axes = _SCREEN_AXES[sliceAxis]
    extents = [sum(abs(axis[i]) * (bounds[2 * i + 1] - bounds[2 * i]) for i in range(3)) for axis in axes]
    side = min(fieldOfView, max(extents))
    origin = list(positionRas)
    for axis in axes:
        row = next(i for i in range(3) if axis[i])
        low, high = bounds[2 * row], bounds[2 * row + 1]
        free = max(0.0, (high - low) - side) / 2
        middle = (low + high) / 2
        centre = min(max(positionRas[row], middle - free), middle + free)
        origin[row] = centre - axis[row] * side * (size - 1) / size / 2
    matrix = vtk.vtkMatrix4x4()
    for row in range(3):
        for column, axis in enumerate(axes):
            matrix.SetElement(row, column, axis[row] * side / size)
        matrix.SetElement(row, 3, origin[row])
    normal = np.cross(*axes)
    for row in range(3):
        matrix.SetElement(row, 2, float(normal[row]))
    return matrix


def _cut(volumeNode: slicer.vtkMRMLVolumeNode, frame: vtk.vtkMatrix4x4, size: int, *, linear: bool) -> np.ndarray:
    """Values of the volume (its first component) at the picture's pixels, ``[row from below, column]``."""
    worldToIJK = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(ijkToWorld(volumeNode), worldToIJK)
    toIJK = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Multiply4x4(worldToIJK, frame, toIJK)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(volumeNode.GetImageData())
    reslice.SetResliceTransform(_matrixTransform(toIJK))
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputExtent(0, size - 1, 0, size - 1, 0, 0)
    reslice.SetInterpolationModeToLinear() if linear else reslice.SetInterpolationModeToNearestNeighbor()
    reslice.SetBackgroundLevel(volumeNode.GetImageData().GetScalarRange()[0])
    reslice.Update()
    values = vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars())
    return values.reshape(size, size, -1)[..., 0]


def _matrixTransform(matrix: vtk.vtkMatrix4x4) -> vtk.vtkTransform:
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix)
    return transform


def _windowed(volumeNode: slicer.vtkMRMLVolumeNode, values: np.ndarray) -> np.ndarray:
    """Gray values between the 1st and 99.5th percentile of the slice."""
    low, high = np.percentile(values, (1.0, 99.5))
    if high <= low:
        low, high = volumeNode.GetImageData().GetScalarRange()
    scaled = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    return (255 * np.clip(scaled, 0.0, 1.0)).astype(np.uint8)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask that touch a pixel outside of it."""
    inside = mask.copy()
    inside[1:] &= mask[:-1]
    inside[:-1] &= mask[1:]
    inside[:, 1:] &= mask[:, :-1]
    inside[:, :-1] &= mask[:, 1:]
    return mask & ~inside


def _toImage(pixels: np.ndarray) -> vtk.vtkImageData:
    height, width, _channels = pixels.shape
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(pixels.reshape(-1, 3), deep=True))
    return image
