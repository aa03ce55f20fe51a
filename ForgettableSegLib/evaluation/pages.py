"""Reports as one HTML file that needs nothing beside itself: tables, a plot as SVG, pictures as embedded PNG."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

LABEL_COLOUR, MODEL_COLOUR = (255, 210, 0), (255, 60, 220)
_ENLARGED = 4
_WIDTH = 180  # of a picture, pixels
_PLOT = (520, 380)
_MARGIN = 46
_MOST_POINTS = 4000
_STYLE = """body{font:14px/1.45 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:3px 10px;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:0 12px 12px 0;vertical-align:top}
figcaption{font-size:12px;max-width:190px}p.note{color:#666}"""


@dataclass(frozen=True)
class Picture:
    """A slice to be shown.

    Args:
        image: (H, W), any range.
        label, predicted: class indices (H, W), 255 where there is none; `predicted` None where nobody asked a model.
        spacing: mm between rows and between columns.
    """

    image: NDArray
    label: NDArray
    predicted: NDArray | None
    spacing: tuple[float, float]


def page(title: str, parts: Iterable[str]) -> str:
    """A whole HTML page of parts that are HTML already."""
    name = html.escape(title)
    body = "\n".join(parts)
    note = '<p class="note">Made by ForgettableSeg, for research only, not for diagnosis.</p>'
    head = f'<meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
    return f"<!DOCTYPE html>\n<html lang=en><head>{head}</head><body><h1>{name}</h1>\n{body}\n{note}</body></html>\n"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def heading(text: str) -> str:
    """A heading of plain text."""
    return f"<h2>{html.escape(text)}</h2>"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A table; numbers that are not whole with three digits, what is missing empty."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = ["".join(f"<td>{html.escape(_cell(row.get(name)))}</td>" for name in columns) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def figure(picture: Picture, caption: str) -> str:
    """A picture with a caption; the label outlined in yellow, what the model found in pink."""
    encoded = base64.b64encode(_png(picture)).decode("ascii")
    height, width = (n * step for n, step in zip(picture.image.shape, picture.spacing, strict=True))
    size = f'width="{_WIDTH}" height="{max(1, round(_WIDTH * height / width))}"'
    text = html.escape(caption)
    image = f'<img {size} alt="{text}" src="data:image/png;base64,{encoded}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _png(picture: Picture) -> bytes:
    """The picture as PNG, enlarged so that outlines are thin."""
    low, high = np.percentile(picture.image, (1, 99.5))
    grey = np.clip((picture.image.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1)
    grey = ndimage.zoom(grey, _ENLARGED, order=1, grid_mode=True, mode="nearest")
    pixels = np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    for classes, colour in ((picture.label, LABEL_COLOUR), (picture.predicted, MODEL_COLOUR)):
        if classes is not None:
            pixels[_outlines(classes)] = colour
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))
        return path.read_bytes()


def _outlines(classes: NDArray) -> NDArray[np.bool_]:
    """Pixels of the enlarged picture on the inner border of a class."""
    large = np.where(classes == 255, 0, classes).repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)
    edge = np.zeros(large.shape, dtype=bool)
    for axis in (0, 1):
        for shift in (1, -1):
            edge |= np.roll(large, shift, axis) != large
    return edge & (large > 0)


def dynamics_plot(points: Sequence[tuple[float, float, float]]) -> str:
    """The map of learning dynamics as SVG: confidence upwards over variability, red never right to blue always right.

    Args:
        points: variability, confidence and correctness of samples; of very many a fixed choice is drawn.
    """
    width, height = _PLOT
    if len(points) > _MOST_POINTS:
        chosen = np.random.default_rng(0).choice(len(points), _MOST_POINTS, replace=False)
        points = [points[number] for number in np.sort(chosen)]
    widest = max([0.5, *(each[0] for each in points)])
    marks = []
    for variability, confidence, correctness in points:
        x = _MARGIN + (width - 2 * _MARGIN) * variability / widest
        y = height - _MARGIN - (height - 2 * _MARGIN) * confidence
        red, blue = round(220 * (1 - correctness)) + 20, round(220 * correctness) + 20
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="rgb({red},60,{blue})" fill-opacity="0.5"/>')
    box = f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{width - 2 * _MARGIN}" height="{height - 2 * _MARGIN}" '
    axes = box + 'fill="none" stroke="#999"/>'
    ticks = [
        f'<text x="{_MARGIN}" y="{height - _MARGIN + 16}">0</text>',
        f'<text x="{width - _MARGIN}" y="{height - _MARGIN + 16}" text-anchor="end">{widest:.2f}</text>',
        f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">variability</text>',
        f'<text x="{_MARGIN - 6}" y="{height - _MARGIN}" text-anchor="end">0</text>',
        f'<text x="{_MARGIN - 6}" y="{_MARGIN + 8}" text-anchor="end">1</text>',
        f'<text x="14" y="{height / 2}" transform="rotate(-90 14 {height / 2})" text-anchor="middle">confidence</text>',
    ]
    style = 'font-size="12" font-family="sans-serif"'
    return f'<svg width="{width}" height="{height}" {style}>{axes}{"".join(ticks)}{"".join(marks)}</svg>'
