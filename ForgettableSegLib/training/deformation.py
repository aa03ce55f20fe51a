"""Deformed patches of label maps: a random affine and elastic change of place, read by the nearest voxel.

Nothing is interpolated, so the labels are exactly those of the deformed map (Billot et al., "SynthSeg", Medical Image
Analysis 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from ForgettableSegLib.cases.cache import PreparedCase

ROTATION_RADIANS = math.radians(20)
SCALE_FACTOR, AXIS_FACTOR = (0.86, 1.16), (0.94, 1.06)
SHEAR = 0.05
ELASTIC_SIGMA_MM, ELASTIC_NODE_MM = (0.0, 3.5), 24.0


@dataclass(frozen=True)
class Deformation:
    """A change of place around the centre of a patch, in millimetres.

    Args:
        matrix: `[3, 3]`, from the patch's S, H, W to those of the label map.
        elastic: displacements of a coarse grid over the patch, `[3, nS, nH, nW]`; None for none.
        flipped: whether the sides are exchanged.
    """

    matrix: NDArray[np.float32]
    elastic: NDArray[np.float32] | None = None
    flipped: bool = False

    @classmethod
    def identity(cls) -> Deformation:
        """No change."""
        return cls(np.eye(3, dtype=np.float32))

    @classmethod
    def draw(cls, generator: np.random.Generator, extent: Sequence[float], *, sides_axis: int | None) -> Deformation:
        """A random change.

        Args:
            generator: of the draws.
            extent: of the patch in mm along S, H, W: a thin patch has no waves along its thin axis.
            sides_axis: prepared axis from side to side, along which half of the patches are flipped; None for never.
        """
        matrix = np.diag(generator.uniform(*SCALE_FACTOR) * generator.uniform(*AXIS_FACTOR, size=3))
        shear = generator.uniform(-SHEAR, SHEAR, size=(3, 3))
        matrix = matrix @ (np.eye(3) + shear - np.diag(np.diag(shear)))
        for (first, second), angle in zip(
            ((0, 1), (0, 2), (1, 2)), generator.uniform(-ROTATION_RADIANS, ROTATION_RADIANS, size=3), strict=True
        ):
            turn = np.eye(3)
            turn[first, first] = turn[second, second] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
        nodes = [1 + math.ceil(length / ELASTIC_NODE_MM) if length > ELASTIC_NODE_MM / 2 else 1 for length in extent]
        elastic = generator.normal(0, generator.uniform(*ELASTIC_SIGMA_MM), size=(3, *nodes))
        flipped = bool(generator.random() < 0.5) and sides_axis is not None
        if flipped:
            matrix[sides_axis] *= -1
            elastic[sides_axis] *= -1
        return cls(matrix.astype(np.float32), elastic.astype(np.float32), flipped)


def deformed(
    case: PreparedCase, corner: Sequence[int], shape: Sequence[int], context_slices: int, change: Deformation
) -> NDArray[np.uint8]:
    """Value indices of a deformed patch.

    Args:
        case: a prepared label-map case.
        corner: S, H, W of the patch on the prepared grid; it may lie outside.
        shape: voxels of the patch along S, H, W.
        context_slices: further slices before and after it.
        change: turns around the centre of the patch.

    Returns:
        uint8 `[S + 2 * context_slices, H, W]`; 0, the background, outside the label map.
    """
    volume, grid = case.image[0], case.grid
    native_step = np.array(grid.spacing) * grid.shape / np.array(volume.shape)
    centre = np.array(corner) + (np.array(shape) - 1) / 2
    # The prepared and the native voxels begin at the same face of the volume.
    middle = (centre + 0.5) * np.array(volume.shape) / grid.shape - 0.5
    around = (context_slices, 0, 0)
    offsets = [
        ((np.arange(-extra, length + extra) - (length - 1) / 2) * step).astype(np.float32)
        for length, extra, step in zip(shape, around, grid.spacing, strict=True)
    ]
    size = tuple(len(axis) for axis in offsets)
    displacement = None
    if change.elastic is not None:
        thickness = size[0] if change.elastic.shape[1] > 1 else 1
        displacement = functional.interpolate(
            torch.from_numpy(change.elastic)[None], (thickness, *size[1:]), mode="trilinear", align_corners=True
        )[0].numpy()
    flat = np.zeros(size, dtype=np.int64)
    outside = np.zeros(size, dtype=bool)
    for axis, count in enumerate(volume.shape):
        row = change.matrix[axis]
        place = (row[0] * offsets[0])[:, None, None] + (row[1] * offsets[1])[:, None] + row[2] * offsets[2]
        if displacement is not None:
            place += displacement[axis]
        place *= np.float32(1 / native_step[axis])
        # Half a step up before the cut to whole numbers, which is faster than rounding; -1 and below lie outside.
        place += np.float32(middle[axis] + 1.5)
        index = place.astype(np.int64) - 1
        outside |= (place < 1) | (index >= count)
        flat *= count
        flat += index
    flat[outside] = 0
    values = volume.reshape(-1).take(flat)
    values[outside] = 0
    return values
