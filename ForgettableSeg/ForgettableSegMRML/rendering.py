"""A picture of a result: the three slice views with image, heatmap and outlines, and a key to the colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import slicer
import vtk

from .headless import HeadlessSession
from .heatmaps import DEFAULT_OPACITY
from .pictures import addColorBar, addRectangle, addText, capture, joined, offscreenWindow, textWidth, writePng
from .segmentations import segmentIDs
from .slice_view import OffscreenSliceView
from .slices import centerOf
from .volumes import ijkToWorld

ORIENTATIONS = ("Axial", "Coronal", "Sagittal")
_GAP = 3
_TITLE_HEIGHT, _TITLE_SIZE = 40, 20
_KEY_ROW, _KEY_SIZE, _KEY_MARGIN = 28, 16, 14
_BAR_WIDTH = 220
_DIM = (0.75, 0.75, 0.75)


@dataclass(frozen=True)
class _Key:
    """What the colours mean."""

    segments: list[tuple[str, tuple[float, float, float]]]
    heatColors: list[tuple[float, float, float]]  # over the heatmap's window; black where it is not shown
    heatTitle: str
    heatRange: tuple[float, float] = (0.0, 100.0)


def renderSlices(
    volumeNode: slicer.vtkMRMLVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode | None,
    heatmapNode: slicer.vtkMRMLScalarVolumeNode | None,
    path: Path | str,
    *,
    positionRas: Sequence[float] | None = None,
    fieldOfViewMm: float | None = None,
    size: int = 420,
    title: str = "",
    heatmapTitle: str = "Difficulty (percentile)",
    heatmapOpacity: float = DEFAULT_OPACITY,
) -> None:
    """Write axial, coronal and sagittal views of a place side by side to a PNG file, with a key below.

    The views are as radiologists read them (the patient's left on the right of the picture), never stretched. The nodes
    and their scene are left as they are.

    Args:
        volumeNode: the image.
        segmentationNode: drawn as outlines in the segments' colours, or None.
        heatmapNode: map of percentiles 0 to 100 over the image, thresholded as its display node says, or None.
        path: PNG file.
        positionRas: place in the world in mm that the three views cut; the middle of the image by default.
        fieldOfViewMm: width of each view in mm around the place; the whole image by default.
        size: width and height of each view in pixels.
        title: a line above the views.
        heatmapTitle: what the heatmap's colour bar is called.
        heatmapOpacity: 0 to 1.

    Raises:
        ForgettableSegError: if the file cannot be written.
    """
    session = HeadlessSession()
    image = _copyVolume(session, volumeNode)
    heatmap = _copyVolume(session, heatmapNode) if heatmapNode is not None else None
    if segmentationNode is not None:
        _copySegmentation(session, segmentationNode)
    place = tuple(positionRas) if positionRas is not None else centerOf(image)
    views = []
    for orientation in ORIENTATIONS:
        view = OffscreenSliceView(session, orientation, (size, size))
        view.show(image, heatmap, heatmapOpacity)
        view.lookAt(place, fieldOfViewMm)
        views.append(view.render())
        view.close()
    rows = [joined(views, vertically=False, gap=_GAP)]
    width = rows[0].GetDimensions()[0]
    if title:
        rows.insert(0, _titleStrip(title, width))
    key = _key(segmentationNode, heatmapNode, heatmapTitle)
    if key.segments or key.heatColors:
        rows.append(_keyStrip(key, width))
    writePng(joined(rows, vertically=True), path)


def _copyVolume(session: HeadlessSession, source: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLVolumeNode:
    """The volume as it lies in the world, sharing its voxels, with a copy of how it is displayed."""
    node = session.scene.AddNode(source.CreateNodeInstance())
    node.SetAndObserveImageData(source.GetImageData())
    node.SetIJKToRASMatrix(ijkToWorld(source))
    node.CreateDefaultDisplayNodes()
    display = source.GetDisplayNode()
    if display is not None:
        shown = node.GetDisplayNode()
        shown.CopyContent(display)
        shown.SetAndObserveColorNodeID(_colorNodeID(session, display.GetColorNode()))
    return node


def _colorNodeID(session: HeadlessSession, colorNode: slicer.vtkMRMLColorNode | None) -> str:
    if colorNode is None:
        return "vtkMRMLColorTableNodeGrey"
    if session.scene.GetNodeByID(colorNode.GetID()) is not None:  # a built-in table, in every scene under one id
        return colorNode.GetID()
    return session.scene.CopyNode(colorNode).GetID()


def _copySegmentation(session: HeadlessSession, source: slicer.vtkMRMLSegmentationNode) -> None:
    """The segmentation as it lies in the world, with outlines that are seen over the heatmap."""
    node = session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", source.GetName())
    if source.GetParentTransformNode() is None:
        node.SetAndObserveSegmentation(source.GetSegmentation())
    else:
        node.GetSegmentation().DeepCopy(source.GetSegmentation())
        toWorld = vtk.vtkGeneralTransform()
        source.GetParentTransformNode().GetTransformToWorld(toWorld)
        node.ApplyTransform(toWorld)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)
    display.SetOpacity2DOutline(1.0)
    display.SetSliceIntersectionThickness(2)


def _key(
    segmentationNode: slicer.vtkMRMLSegmentationNode | None,
    heatmapNode: slicer.vtkMRMLScalarVolumeNode | None,
    heatmapTitle: str,
) -> _Key:
    segments = []
    if segmentationNode is not None:
        segmentation = segmentationNode.GetSegmentation()
        for segmentID in segmentIDs(segmentationNode):
            segment = segmentation.GetSegment(segmentID)
            segments.append((segment.GetName(), tuple(segment.GetColor())))
    colors = []
    if heatmapNode is not None and heatmapNode.GetDisplayNode() is not None:
        colorNode = heatmapNode.GetDisplayNode().GetColorNode()
        if colorNode is not None:
            display = heatmapNode.GetDisplayNode()
            colors = _heatColors(colorNode, display)
            window = display.GetWindowLevelMin(), display.GetWindowLevelMax()
            return _Key(segments, colors, heatmapTitle, window)
    return _Key(segments, colors, heatmapTitle)


def _heatColors(
    colorNode: slicer.vtkMRMLColorNode, display: slicer.vtkMRMLScalarVolumeDisplayNode
) -> list[tuple[float, float, float]]:
    """Colours from the lowest to the highest value of the display's window."""
    hidden = display.GetLowerThreshold() if display.GetApplyThreshold() else 0.0
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    last = colorNode.GetNumberOfColors() - 1
    colors = []
    for step in range(101):
        rgba = [0.0] * 4
        if low + step / 100 * (high - low) >= hidden:
            colorNode.GetColor(round(step / 100 * last), rgba)
        colors.append((rgba[0], rgba[1], rgba[2]))
    return colors


def _titleStrip(title: str, width: int) -> vtk.vtkImageData:
    window, renderer = offscreenWindow((width, _TITLE_HEIGHT))
    addText(renderer, title, (_KEY_MARGIN, _TITLE_HEIGHT // 2), _TITLE_SIZE, edge="left", bold=True)
    return capture(window)


def _keyStrip(key: _Key, width: int) -> vtk.vtkImageData:
    """Names beside squares of the segments' colours, in as many rows as it takes, and the heatmap's colour bar."""
    barWidth = _BAR_WIDTH + textWidth(key.heatTitle, _KEY_SIZE) + 90 if key.heatColors else 0
    rows = _wrapped([name for name, _color in key.segments], width - barWidth - 4 * _KEY_MARGIN)
    height = max(1, len(rows)) * _KEY_ROW + _KEY_MARGIN
    window, renderer = offscreenWindow((width, height))
    segment = 0
    for row, names in enumerate(rows):
        x, middle = _KEY_MARGIN, height - _KEY_MARGIN // 2 - _KEY_ROW // 2 - row * _KEY_ROW
        for name in names:
            addRectangle(renderer, (x, middle - 7), (x + 14, middle + 7), key.segments[segment][1])
            addText(renderer, name, (x + 22, middle), _KEY_SIZE, edge="left")
            x += _entryWidth(name)
            segment += 1
    if key.heatColors:
        _addHeatKey(renderer, key, width, height - _KEY_MARGIN // 2 - _KEY_ROW // 2)
    return capture(window)


def _addHeatKey(renderer: vtk.vtkRenderer, key: _Key, width: int, middle: int) -> None:
    right = width - _KEY_MARGIN
    low, high = (f"{value:.0f}" for value in key.heatRange)
    addText(renderer, f"{high} hard", (right, middle), _KEY_SIZE, edge="right", color=_DIM)
    right -= textWidth(f"{high} hard", _KEY_SIZE) + 8
    addRectangle(renderer, (right - _BAR_WIDTH - 1, middle - 8), (right + 1, middle + 8), _DIM)
    addColorBar(renderer, (right - _BAR_WIDTH, middle - 7), (right, middle + 7), key.heatColors)
    addText(renderer, low, (right - _BAR_WIDTH - 8, middle), _KEY_SIZE, edge="right", color=_DIM)
    before = right - _BAR_WIDTH - 20 - textWidth(low, _KEY_SIZE)
    addText(renderer, key.heatTitle, (before, middle), _KEY_SIZE, edge="right")


def _wrapped(names: Sequence[str], width: int) -> list[list[str]]:
    rows: list[list[str]] = []
    used = width + 1
    for name in names:
        if used + _entryWidth(name) > width:
            rows.append([])
            used = 0
        rows[-1].append(name)
        used += _entryWidth(name)
    return rows


def _entryWidth(name: str) -> int:
    return textWidth(name, _KEY_SIZE) + 22 + 24
