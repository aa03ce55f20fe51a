"""Slice views that go to a place."""

from __future__ import annotations

from collections.abc import Sequence

import slicer

Point = tuple[float, float, float]
"""A place in the world in mm, as (R, A, S)."""


def lpsToRas(position: Sequence[float]) -> Point:
    """Return a place that the worker tells (L, P, S) as Slicer counts it (R, A, S)."""
    left, posterior, superior = position
    return -left, -posterior, superior


def jumpSlices(scene: slicer.vtkMRMLScene, positionRas: Sequence[float]) -> None:
    """Show a place in the middle of all slice views of the scene.

    Args:
        scene: its slice views move.
        positionRas: place in the world in mm.
    """
    mode = slicer.vtkMRMLSliceNode.CenteredJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *positionRas, mode)


def centerOf(volumeNode: slicer.vtkMRMLVolumeNode) -> Point:
    """Return the middle of a volume in the world."""
    bounds = [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    return (bounds[0] + bounds[1]) / 2, (bounds[2] + bounds[3]) / 2, (bounds[4] + bounds[5]) / 2
