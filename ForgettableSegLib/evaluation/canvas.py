"""Figures without a window, as PNG. Needs matplotlib (extra `report`)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

DOTS_PER_INCH = 110


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches that lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DOTS_PER_INCH)
    return stream.getvalue()


def outline(panel: Any, mask: np.ndarray, colour: Any) -> None:
    """Draw the border of a mask (H, W); nothing where there is none."""
    if mask.any() and not mask.all() and min(mask.shape) > 1:
        panel.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=1)
