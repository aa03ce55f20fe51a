"""A picture of a segmentation to be judged at a glance. Needs matplotlib (extra `report`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.evaluation.canvas import new_figure, outline, png

PLANES = ("axial", "coronal", "sagittal")
# Percentiles of the image between which grey values are shown.
_WINDOW = (1.0, 99.5)


def draw_preview(image: np.ndarray, labels: np.ndarray, geometry: Geometry, task: Task, *, title: str) -> bytes:
    """Three planes, each through most of what was found, the patient's right on the left; outlines of the classes.

    Args:
        image: ``[z, y, x]``.
        labels: label values of the task ``[z, y, x]``.
        geometry: of both.
        task: names, values and colours of the classes.
        title: above the planes.

    Returns:
        A PNG file.
    """
    grid = PreparedGrid.plan(geometry, (None, None, None), 0)
    shown, found = grid.orient(image), grid.orient(labels)
    low, high = np.percentile(shown, _WINDOW)
    figure = new_figure(10, 4)
    figure.suptitle(title, fontsize="medium")
    for axis, (name, panel) in enumerate(zip(PLANES, figure.subplots(1, 3), strict=True)):
        index = _fullest(found, axis)
        step = [spacing for other, spacing in enumerate(grid.spacing) if other != axis]
        # In the other two planes rows run from the feet to the head, which comes up.
        rows = slice(None) if axis == 0 else slice(None, None, -1)
        panel.imshow(shown.take(index, axis)[rows], cmap="gray", vmin=low, vmax=high, aspect=step[0] / step[1])
        for number, each in enumerate(task.classes):
            outline(panel, found.take(index, axis)[rows] == each.value, _colour(each, number))
        panel.set_title(f"{name}, slice {index + 1} of {found.shape[axis]}", fontsize="small")
        panel.set_axis_off()
    _name_classes(figure, task)
    return png(figure)


def _fullest(labels: np.ndarray, axis: int) -> int:
    """The slice with most foreground, the middle one where there is none."""
    voxels = (labels > 0).sum(axis=tuple(other for other in range(3) if other != axis))
    return int(voxels.argmax()) if voxels.any() else len(voxels) // 2


def _colour(each: SegmentClass, number: int) -> Any:
    return f"C{number % 10}" if each.color is None else tuple(part / 255 for part in each.color)


def _name_classes(figure: Any, task: Task) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_colour(each, number), label=each.name) for number, each in enumerate(task.classes)]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize="small", frameon=False)
