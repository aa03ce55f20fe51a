"""Where voxels lie: size, spacing, origin and direction of a volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

# Axes off right angles by no more than this (cosine) are taken for the nearest right ones.
SLIGHT_SHEAR = 0.05


@dataclass(frozen=True)
class Geometry:
    """The voxel grid of a volume in patient space (LPS, millimetres).

    Args:
        size: number of voxels along x, y, z; arrays have the opposite order, see `shape`.
        spacing: millimetres between voxel centres along x, y, z.
        origin: position of the centre of voxel (0, 0, 0).
        direction: 3x3 matrix, row by row; its columns are the directions of x, y, z.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, float, float, float, float, float, float, float, float]

    def __str__(self) -> str:
        """Size, spacing and origin for a sentence."""
        size, spacing = " x ".join(map(str, self.size)), " x ".join(f"{step:.4g}" for step in self.spacing)
        return f"{size} voxels of {spacing} mm from ({', '.join(f'{place:.4g}' for place in self.origin)})"

    @classmethod
    def from_image(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """Geometry of a 3D image, or of a reader whose header was read."""
        return cls(
            size=tuple(image.GetSize()),
            spacing=tuple(image.GetSpacing()),
            origin=tuple(image.GetOrigin()),
            direction=tuple(image.GetDirection()),
        )

    def apply_to(self, image: sitk.Image) -> None:
        """Lay an image of this size on this grid."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)

    def reference_image(self) -> sitk.Image:
        """Image of zeros on this grid, as SimpleITK's filters want for a reference."""
        image = sitk.Image(list(self.size), sitk.sitkUInt8)
        self.apply_to(image)
        return image

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an array on this grid: z, y, x."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(np.prod(self.spacing))

    @property
    def shear(self) -> float:
        """How far the axes are off right angles: the largest cosine between two of them."""
        matrix = np.reshape(self.direction, (3, 3))
        return float(np.abs(np.triu(matrix.T @ matrix, 1)).max())

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles (beyond rounding), as in uncorrected gantry tilt."""
        matrix = np.reshape(self.direction, (3, 3))
        return not np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-3)

    def straightened(self) -> Geometry:
        """The grid with the nearest axes at right angles about the same centre (polar decomposition)."""
        left, _, right = np.linalg.svd(np.reshape(self.direction, (3, 3)))
        turned = replace(self, direction=tuple((left @ right).ravel().tolist()))
        middle = (np.asarray(self.size) - 1) / 2
        shift = self.index_to_physical(middle) - turned.index_to_physical(middle)
        return replace(turned, origin=tuple((np.asarray(self.origin) + shift).tolist()))

    def straight_cover(self) -> Geometry:
        """A grid with axes at right angles, of the same spacing, that holds every voxel of this one."""
        straight = self.straightened()
        axes = np.reshape(straight.direction, (3, 3))
        corners = np.array(list(product(*((0, n - 1) for n in self.size))))
        places = (self.index_to_physical(corners) @ axes) / np.asarray(self.spacing)
        low, high = places.min(axis=0), places.max(axis=0)
        size = np.ceil(high - low - 1e-6).astype(int) + 1
        origin = axes @ (low * np.asarray(self.spacing))
        return replace(straight, size=tuple(size.tolist()), origin=tuple(origin.tolist()))

    def index_to_physical(self, index: ArrayLike) -> NDArray[np.float64]:
        """Positions of (continuous) voxel indices.

        Args:
            index: indices x, y, z in the last axis, any leading axes.

        Returns:
            Positions in LPS millimetres, of the same shape.
        """
        matrix = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        return np.asarray(index, dtype=np.float64) @ matrix.T + np.asarray(self.origin)

    def physical_to_index(self, position: ArrayLike) -> NDArray[np.float64]:
        """Continuous voxel indices x, y, z of positions in LPS millimetres: the inverse of `index_to_physical`."""
        matrix = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        return (np.asarray(position, dtype=np.float64) - np.asarray(self.origin)) @ np.linalg.inv(matrix).T

    def index_box(self, low: ArrayLike, high: ArrayLike) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The voxels of a box in space, ends included; where the grid is oblique, those of the voxel box around it.

        Args:
            low, high: corners of the box, LPS millimetres.

        Returns:
            Voxel indices x, y, z, the lowest and one past the highest; they may lie outside of the volume.
        """
        corners = self.physical_to_index(list(product(*zip(low, high, strict=True))))
        # Files round their geometry, so an end on a voxel's centre is met a little before and after it.
        first = np.ceil(corners.min(axis=0) - 1e-3).astype(int)
        last = np.floor(corners.max(axis=0) + 1e-3).astype(int)
        return tuple(first.tolist()), tuple((last + 1).tolist())

    def is_same_grid(self, other: Geometry, tolerance: float = 0.05) -> bool:
        """Whether the voxels of two grids lie on each other.

        Args:
            other: the other grid.
            tolerance: largest distance between the same corners, in parts of the smallest spacing. File formats round
                geometry differently, so exact equality would refuse good pairs.
        """
        if self.size != other.size:
            return False
        corners = np.array(list(product(*((0, n - 1) for n in self.size))))
        distance = np.linalg.norm(self.index_to_physical(corners) - other.index_to_physical(corners), axis=1)
        same_step = np.allclose(self.spacing, other.spacing, rtol=tolerance)
        return bool(same_step and distance.max() <= tolerance * min(self.spacing))

    def to_dict(self) -> dict[str, Any]:
        """Content for JSON."""
        return {
            "size": list(self.size),
            "spacing": list(self.spacing),
            "origin": list(self.origin),
            "direction": list(self.direction),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Geometry:
        """The geometry that `to_dict` stored."""
        return cls(**{key: tuple(value) for key, value in content.items()})
