"""The few things that the panels want of the application itself; each does nothing where there is no main window."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer


def ask(question: str) -> bool:
    """Ask a question that is answered with yes or no."""
    return bool(slicer.util.confirmYesNoDisplay(question))


def copyText(text: str) -> None:
    """Put a text on the clipboard."""
    slicer.app.clipboard().setText(text)


def openFolder(folder: Path) -> None:
    """Show a folder in the file manager."""
    folder.mkdir(parents=True, exist_ok=True)
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))


def jumpTo(position: tuple[float, float, float]) -> None:
    """Move all slice views to a place, in RAS mm, and centre them there."""
    slicer.modules.markups.logic().JumpSlicesToLocation(*position, True)


def showVolume(volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """Show a volume as the background of the slice views, unless it is there already."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    red = manager.sliceWidget("Red")
    if red is None or red.mrmlSliceCompositeNode().GetBackgroundVolumeID() != volumeNode.GetID():
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)


def showTable(tableNode: slicer.vtkMRMLTableNode) -> None:
    """Show a table below the slice views."""
    _setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetActiveTableID(tableNode.GetID())
    slicer.app.applicationLogic().PropagateTableSelection()


def showCharts(chartNodes: list[slicer.vtkMRMLPlotChartNode]) -> None:
    """Show charts beside the slice views: the first one now, the others in the view's own menu."""
    if chartNodes and slicer.app.layoutManager() is not None:
        slicer.modules.plots.logic().ShowChartInLayout(chartNodes[0])


def openSegmentEditor(
    segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode | None, segmentId: str
) -> None:
    """Open the Segment Editor on a segment."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentationNode)
    if volumeNode is not None:
        editor.setSourceVolumeNode(volumeNode)
    if segmentId:
        editor.setCurrentSegmentID(segmentId)


def saveScreenshot(path: Path) -> None:
    """Write a picture of all views as they are on the screen."""
    if slicer.app.layoutManager() is not None:
        import ScreenCapture  # a module of Slicer, loaded after this one

        ScreenCapture.ScreenCaptureLogic().captureImageFromView(None, str(path))


def _setLayout(layout: int) -> None:
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.setLayout(layout)
