"""The few things that the panels want of the application itself; each does nothing where there is no main window."""

from __future__ import annotations

from collections.abc import Callable
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


def showVolume(volumeNode: slicer.vtkMRMLVolumeNode) -> bool:
    """Show a volume as the background of the slice views and fit them to it, unless one of them shows it already.

    Returns:
        Whether the views changed; what the user looks at stays as it is.
    """
    manager = slicer.app.layoutManager()
    if manager is None:
        return False
    views = [manager.sliceWidget(name) for name in manager.sliceViewNames()]
    if any(view.mrmlSliceCompositeNode().GetBackgroundVolumeID() == volumeNode.GetID() for view in views):
        return False
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    return True


def onLayoutChanged(callback: Callable[[], None]) -> None:
    """Call back after another layout was chosen, once its views have their sizes."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.connect("layoutChanged(int)", lambda _layout: qt.QTimer.singleShot(0, callback))


def showTable(tableNode: slicer.vtkMRMLTableNode) -> None:
    """Show a table below the slice views."""
    _setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetActiveTableID(tableNode.GetID())
    slicer.app.applicationLogic().PropagateTableSelection()


class ChartView:
    """Charts beside the slice views, and the layout that the user had before them."""

    def __init__(self) -> None:
        self._before: int | None = None
        self._with: int | None = None

    def show(self, chartNodes: list[slicer.vtkMRMLPlotChartNode]) -> None:
        """Show charts: the first one now, the others in the view's own menu."""
        manager = slicer.app.layoutManager()
        if not chartNodes or manager is None:
            return
        before = manager.layout
        slicer.modules.plots.logic().ShowChartInLayout(chartNodes[0])
        if manager.layout != before:
            self._before, self._with = before, manager.layout

    def fit(self, chartNodes: list[slicer.vtkMRMLPlotChartNode]) -> None:
        """Fit the axes of the views that show one of the charts to its curves, which they do not do by themselves."""
        manager = slicer.app.layoutManager()
        if manager is None:
            return
        shown = {chart.GetID() for chart in chartNodes}
        for index in range(manager.plotViewCount):
            widget = manager.plotWidget(index)
            if widget.mrmlPlotViewNode().GetPlotChartNodeID() in shown:
                widget.plotView().fitToContent()

    def leave(self) -> None:
        """Go back to the layout that the charts took the place of, unless the user has chosen another one since."""
        manager = slicer.app.layoutManager()
        if manager is not None and self._before is not None and manager.layout == self._with:
            manager.setLayout(self._before)
        self._before = self._with = None


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
