"""A difficulty map as the foreground layer of the slice views: coloured, thresholded, with a legend, and off again."""

from __future__ import annotations

from collections.abc import Iterator

import slicer

DEFAULT_OPACITY = 0.6
DEFAULT_THRESHOLD = 80.0  # percentile of training difficulty below which the map is not shown
_HIGHEST = 100.0
_INFERNO = "vtkMRMLColorTableNodeFileInferno.txt"  # a file of the application; perceptually even
_IRON = "vtkMRMLColorTableNodeIron"  # built in, always there
# Slicer fits the legend's text to its width, whatever the font's size says: a narrow one stays smaller than structures.
_LEGEND_SIZE = (0.06, 0.28)  # of the view's width and height
_LEGEND_POSITION = (0.98, 0.04)
_UNDERNEATH = "ForgettableSeg.ForegroundBefore"  # what a view showed before the first heatmap


def styleHeatmap(
    volumeNode: slicer.vtkMRMLScalarVolumeNode, *, threshold: float = DEFAULT_THRESHOLD, title: str = "Difficulty"
) -> None:
    """Colour a map of percentiles 0 to 100, show it from `threshold` on, and give it a legend.

    Args:
        volumeNode: map of percentiles.
        threshold: lowest percentile that is shown.
        title: title of the legend, one or two words.
    """
    if volumeNode.GetDisplayNode() is None:
        volumeNode.CreateDefaultDisplayNodes()
    displayNode = volumeNode.GetScalarVolumeDisplayNode()
    wasModifying = displayNode.StartModify()
    displayNode.AutoWindowLevelOff()
    displayNode.SetWindowLevelMinMax(0.0, _HIGHEST)
    displayNode.SetInterpolate(False)
    displayNode.SetAndObserveColorNodeID(heatColorNodeID(volumeNode.GetScene()))
    displayNode.EndModify(wasModifying)
    setHeatmapThreshold(volumeNode, threshold)
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(displayNode)
    if legend is not None:
        legend.SetTitleText(title)
        legend.SetLabelFormat("%.0f")
        legend.SetNumberOfLabels(3)
        legend.SetSize(*_LEGEND_SIZE)
        legend.SetPosition(*_LEGEND_POSITION)
        legend.SetVisibility(False)


def showHeatmap(
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
    *,
    backgroundVolume: slicer.vtkMRMLVolumeNode | None = None,
    opacity: float = DEFAULT_OPACITY,
    legend: bool = True,
) -> None:
    """Put a heatmap into the foreground of all slice views, over the volume that it belongs to.

    Args:
        volumeNode: map of percentiles, styled by :func:`styleHeatmap`.
        backgroundVolume: the image; the views keep theirs if it is None.
        opacity: of the foreground, 0 to 1.
        legend: show the colour legend, in the largest slice view.
    """
    for view in _compositeNodes(volumeNode.GetScene()):
        if view.GetAttribute(_UNDERNEATH) is None:
            view.SetAttribute(_UNDERNEATH, f"{view.GetForegroundVolumeID() or ''}|{view.GetForegroundOpacity()}")
        if backgroundVolume is not None:
            view.SetBackgroundVolumeID(backgroundVolume.GetID())
        view.SetForegroundVolumeID(volumeNode.GetID())
        view.SetForegroundOpacity(opacity)
    _showLegend(volumeNode, legend)


def hideHeatmap(scene: slicer.vtkMRMLScene) -> None:
    """Take the heatmap off all slice views: they show in the foreground what they showed before."""
    for view in _compositeNodes(scene):
        before = view.GetAttribute(_UNDERNEATH)
        if before is None:
            continue
        heatmap = scene.GetNodeByID(view.GetForegroundVolumeID()) if view.GetForegroundVolumeID() else None
        volumeID, opacity = before.rsplit("|", 1)
        view.SetForegroundVolumeID(volumeID if volumeID and scene.GetNodeByID(volumeID) else None)
        view.SetForegroundOpacity(float(opacity))
        view.RemoveAttribute(_UNDERNEATH)
        if heatmap is not None:
            _showLegend(heatmap, False)


def moveLegend(scene: slicer.vtkMRMLScene) -> None:
    """Bring the legend of the heatmap that is shown to the slice view that is the largest now."""
    ours = [view for view in _compositeNodes(scene) if view.GetAttribute(_UNDERNEATH) is not None]
    for identifier in {view.GetForegroundVolumeID() for view in ours} - {None}:
        heatmap = scene.GetNodeByID(identifier)
        legend = None if heatmap is None else _legendOf(heatmap)
        if legend is not None and legend.GetVisibility():
            _showLegend(heatmap, True)


def isHeatmapShown(volumeNode: slicer.vtkMRMLScalarVolumeNode | None) -> bool:
    """Whether any slice view shows the heatmap."""
    if volumeNode is None or volumeNode.GetScene() is None:
        return False
    views = _compositeNodes(volumeNode.GetScene())
    return any(view.GetForegroundVolumeID() == volumeNode.GetID() for view in views)


def setHeatmapOpacity(volumeNode: slicer.vtkMRMLScalarVolumeNode, opacity: float) -> None:
    """Set the opacity (0 to 1) in all slice views that show the heatmap."""
    for view in _compositeNodes(volumeNode.GetScene()):
        if view.GetForegroundVolumeID() == volumeNode.GetID():
            view.SetForegroundOpacity(opacity)


def setHeatmapThreshold(volumeNode: slicer.vtkMRMLScalarVolumeNode, threshold: float) -> None:
    """Show the heatmap from a percentile (0 to 100) on; what is easier lets the image through."""
    displayNode = volumeNode.GetScalarVolumeDisplayNode()
    wasModifying = displayNode.StartModify()
    displayNode.SetThreshold(threshold, _HIGHEST)
    displayNode.SetApplyThreshold(True)
    displayNode.EndModify(wasModifying)


def heatColorNodeID(scene: slicer.vtkMRMLScene) -> str:
    """Return the id of the colour node of heatmaps that this scene has."""
    return _INFERNO if scene.GetNodeByID(_INFERNO) is not None else _IRON


def _compositeNodes(scene: slicer.vtkMRMLScene) -> Iterator[slicer.vtkMRMLSliceCompositeNode]:
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        yield scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")


def _legendOf(volumeNode: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLColorLegendDisplayNode | None:
    return slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(volumeNode.GetDisplayNode())


def _showLegend(volumeNode: slicer.vtkMRMLVolumeNode, show: bool) -> None:
    legend = _legendOf(volumeNode)
    if legend is None:
        return
    wasModifying = legend.StartModify()
    legend.RemoveAllViewNodeIDs()
    view = _largestView(volumeNode.GetScene())
    if view is not None:
        legend.AddViewNodeID(view.GetID())
    legend.SetVisibility(show)
    legend.EndModify(wasModifying)


def _largestView(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLSliceNode | None:
    """The slice view with most pixels among those on the screen, the red one among equals."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
    views = [scene.GetNthNodeByClass(index, "vtkMRMLSliceNode") for index in range(count)]
    return max(views, key=_prominence, default=None)


def _prominence(view: slicer.vtkMRMLSliceNode) -> tuple[bool, int, bool]:
    width, height, _depth = view.GetDimensions()
    return bool(view.IsMappedInLayout()), width * height, view.GetLayoutName() == "Red"
