"""One slice view without a window: the real slice logic and segmentation display, into an image."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk

from .headless import HeadlessSession
from .pictures import addText, capture, offscreenWindow

_LABEL_SIZE = 15
_LETTER_SIZE = 18
_MARGIN = 8
_SEGMENTATIONS = "vtkMRMLSegmentationsDisplayableManager2D"


class OffscreenSliceView:
    """A slice view of a headless session.

    Args:
        session: its scene holds the nodes to show.
        orientation: "Axial", "Coronal" or "Sagittal".
        size: width and height in pixels.
        managers: what is drawn over the image; the outlines of segments by default.
    """

    def __init__(
        self,
        session: HeadlessSession,
        orientation: str,
        size: tuple[int, int],
        managers: Sequence[str] = (_SEGMENTATIONS,),
    ) -> None:
        self._orientation = orientation
        self._size = size
        self._window, self._renderer = offscreenWindow(size)
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(session.applicationLogic)
        session.applicationLogic.GetSliceLogics().AddItem(self._logic)
        self._logic.SetMRMLScene(session.scene)
        self._sliceNode = self._logic.AddSliceNode(orientation)
        self._sliceNode.SetOrientation(orientation)
        self._logic.ResizeSliceNode(*size)
        self._manager = self._addManagers(session, managers)
        self._mapper = self._addImage()

    def show(
        self,
        volumeNode: slicer.vtkMRMLVolumeNode,
        foregroundNode: slicer.vtkMRMLVolumeNode | None,
        foregroundOpacity: float,
    ) -> None:
        """Choose the layers and fit the view to the volume."""
        layers = self._logic.GetSliceCompositeNode()
        layers.SetBackgroundVolumeID(volumeNode.GetID())
        layers.SetForegroundVolumeID(foregroundNode.GetID() if foregroundNode is not None else None)
        layers.SetForegroundOpacity(foregroundOpacity)
        self._logic.FitSliceToBackground()
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())  # there is none before the first layer

    def lookAt(self, positionRas: Sequence[float], fieldOfViewMm: float | None) -> None:
        """Go to a place: cut there and, with a field of view (mm across the shorter side), zoom in on it."""
        if fieldOfViewMm is None:
            self._sliceNode.JumpSliceByOffsetting(*positionRas)
            return
        shorter = min(self._size)
        across, up = (fieldOfViewMm * side / shorter for side in self._size)
        self._sliceNode.SetFieldOfView(across, up, self._sliceNode.GetFieldOfView()[2])
        self._sliceNode.JumpSliceByCentering(*positionRas)

    def render(self) -> vtk.vtkImageData:
        """Return the view as an RGB image, with its name, its position and the letters of the patient's directions."""
        width, height = self._size
        axis, offset = self._position()
        addText(
            self._renderer, f"{self._orientation}   {axis} {offset:.1f} mm", (_MARGIN, height - _MARGIN), _LABEL_SIZE
        )
        toRas = self._sliceNode.GetSliceToRAS()
        right = [toRas.GetElement(row, 0) for row in range(3)]
        up = [toRas.GetElement(row, 1) for row in range(3)]
        places = (
            (_letters(right), (width - _MARGIN, height // 2), "right"),
            (_letters([-value for value in right]), (_MARGIN, height // 2), "left"),
            (_letters(up), (width // 2, height - _MARGIN), "top"),
            (_letters([-value for value in up]), (width // 2, _MARGIN), "bottom"),
        )
        for text, place, edge in places:
            addText(self._renderer, text, place, _LETTER_SIZE, edge=edge, bold=True)
        return capture(self._window)

    def close(self) -> None:
        """Let go of the window and of what observes the scene."""
        self._manager.SetMRMLDisplayableNode(None)
        self._logic.SetMRMLScene(None)
        self._window.Finalize()

    def _addManagers(self, session: HeadlessSession, managers: Sequence[str]) -> slicer.vtkMRMLDisplayableManagerGroup:
        """Attach what draws over the image, by a factory of our own: the application's is not touched."""
        factory = slicer.vtkMRMLDisplayableManagerFactory()
        factory.SetMRMLApplicationLogic(session.applicationLogic)
        for manager in managers:
            factory.RegisterDisplayableManager(manager)
        interactor = vtk.vtkRenderWindowInteractor()  # displayable managers do nothing without one
        interactor.SetRenderWindow(self._window)
        interactor.Initialize()
        group = slicer.vtkMRMLDisplayableManagerGroup()
        group.SetRenderer(self._renderer)
        group.Initialize(factory, self._renderer)
        group.SetMRMLDisplayableNode(self._sliceNode)
        return group

    def _addImage(self) -> vtk.vtkImageMapper:
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(actor)
        return mapper

    def _position(self) -> tuple[str, float]:
        """Letter and distance of the slice along its own axis, as Slicer writes them above a view."""
        toRas = self._sliceNode.GetSliceToRAS()
        normal = [toRas.GetElement(row, 2) for row in range(3)]
        axis = max(range(3), key=lambda row: abs(normal[row]))
        value = toRas.GetElement(axis, 3)
        return ("RL", "AP", "SI")[axis][0 if value >= 0 else 1], abs(value)


def _letters(direction: Sequence[float]) -> str:
    """The patient direction in which a screen axis points; two letters where it is oblique by more than 25 degrees."""
    names = [("RL", "AP", "SI")[axis][0 if direction[axis] >= 0 else 1] for axis in range(3)]
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(names[axis] for axis in order if axis == order[0] or abs(direction[axis]) > 0.42)
