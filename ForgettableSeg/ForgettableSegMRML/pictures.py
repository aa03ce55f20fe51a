"""Offscreen pictures with VTK alone: windows, text, colour keys, joining and PNG."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import vtk

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

Color = tuple[float, float, float]
"""Red, green, blue, 0 to 1."""

_WHITE: Color = (1.0, 1.0, 1.0)


def offscreenWindow(size: tuple[int, int], background: Color = (0.0, 0.0, 0.0)) -> tuple:
    """Return a window that is never shown, and the renderer that fills it in pixel coordinates."""
    renderer = vtk.vtkRenderer()
    renderer.SetBackground(*background)
    renderer.GetActiveCamera().ParallelProjectionOn()
    window = _windowClass()()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    return window, renderer


def addText(
    renderer: vtk.vtkRenderer,
    text: str,
    place: tuple[int, int],
    size: int,
    *,
    edge: str = "corner",
    color: Color = _WHITE,
    bold: bool = False,
) -> None:
    """Write text into a picture, on a darkened ground so that it can be read over bright tissue.

    Args:
        renderer: of the picture.
        text: what to write.
        place: point in pixels from the lower left.
        size: height of the font in pixels.
        edge: which point of the text stands at the place: "corner" (upper left), "left", "right", "top", "bottom".
        color: of the text.
        bold: write it bold.
    """
    actor = vtk.vtkTextActor()
    actor.SetInput(text)
    actor.SetPosition(*place)
    style = actor.GetTextProperty()
    style.SetFontSize(size)
    style.SetFontFamilyToArial()
    style.SetColor(*color)
    style.SetBold(bold)
    style.SetBackgroundColor(0.0, 0.0, 0.0)
    style.SetBackgroundOpacity(0.45)
    horizontal = {"corner": "Left", "left": "Left", "right": "Right", "top": "Centered", "bottom": "Centered"}[edge]
    vertical = {"corner": "Top", "left": "Centered", "right": "Centered", "top": "Top", "bottom": "Bottom"}[edge]
    getattr(style, f"SetJustificationTo{horizontal}")()
    getattr(style, f"SetVerticalJustificationTo{vertical}")()
    renderer.AddViewProp(actor)


def textWidth(text: str, size: int) -> int:
    """Return how many pixels wide a text is."""
    style = vtk.vtkTextProperty()
    style.SetFontSize(size)
    style.SetFontFamilyToArial()
    box = [0] * 4
    vtk.vtkTextRenderer.GetInstance().GetBoundingBox(style, text, box, 72)
    return box[1] - box[0] + 1


def addRectangle(
    renderer: vtk.vtkRenderer, low: tuple[float, float], high: tuple[float, float], color: Color, *, filled: bool = True
) -> None:
    """Draw a rectangle in pixel coordinates."""
    points = vtk.vtkPoints()
    for x, y in (low, (high[0], low[1]), high, (low[0], high[1])):
        points.InsertNextPoint(x, y, 0)
    cells = vtk.vtkCellArray()
    order = (0, 1, 2, 3) if filled else (0, 1, 2, 3, 0)
    cells.InsertNextCell(len(order), order)
    shape = vtk.vtkPolyData()
    shape.SetPoints(points)
    shape.SetPolys(cells) if filled else shape.SetLines(cells)
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputData(shape)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*color)
    renderer.AddViewProp(actor)


def addColorBar(
    renderer: vtk.vtkRenderer, low: tuple[int, int], high: tuple[int, int], colors: Sequence[Color]
) -> None:
    """Draw colours side by side from left to right, as one bar."""
    width = (high[0] - low[0]) / len(colors)
    for index, color in enumerate(colors):
        left = low[0] + index * width
        addRectangle(renderer, (left, low[1]), (left + width + 0.5, high[1]), color)


def capture(window: vtk.vtkRenderWindow) -> vtk.vtkImageData:
    """Render a window and return it as an RGB image."""
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.SetInputBufferTypeToRGB()
    grab.ReadFrontBufferOff()
    grab.Update()
    image = vtk.vtkImageData()
    image.DeepCopy(grab.GetOutput())
    return image


def joined(images: Sequence[vtk.vtkImageData], *, vertically: bool, gap: int = 0) -> vtk.vtkImageData:
    """Return images of one height side by side, or of one width with the first at the top."""
    append = vtk.vtkImageAppend()
    append.SetAppendAxis(1 if vertically else 0)
    parts: list[vtk.vtkImageData] = []
    for image in images:
        if parts and gap:
            width, height, _depth = image.GetDimensions()
            parts.append(_blank((width, gap) if vertically else (gap, height)))
        parts.append(image)
    for part in reversed(parts) if vertically else parts:
        append.AddInputData(part)
    append.Update()
    result = vtk.vtkImageData()
    result.DeepCopy(append.GetOutput())
    return result


def writePng(image: vtk.vtkImageData, path: Path | str) -> None:
    """Write an image to a PNG file.

    Raises:
        ForgettableSegError: if it cannot be written.
    """
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    if Path(path).parent.is_dir():
        writer.Write()
    if not Path(path).is_file():
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, f"The picture {path} could not be written.")


def pngBytes(image: vtk.vtkImageData) -> bytes:
    """Return an image as the content of a PNG file."""
    writer = vtk.vtkPNGWriter()
    writer.SetWriteToMemory(True)
    writer.SetInputData(image)
    writer.Write()
    return bytes(memoryview(writer.GetResult()))


def _windowClass() -> type[vtk.vtkRenderWindow]:
    """The window that needs no screen, where there is none to ask: VTK finds it by itself, but only after a warning."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        return getattr(vtk, "vtkEGLRenderWindow", vtk.vtkRenderWindow)
    return vtk.vtkRenderWindow


def _blank(size: tuple[int, int]) -> vtk.vtkImageData:
    image = vtk.vtkImageData()
    image.SetDimensions(size[0], size[1], 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    image.GetPointData().GetScalars().Fill(0)
    return image
