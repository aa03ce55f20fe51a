"""Volumes of the scene as the files of a job, and the heatmaps that come back. No Qt: scripts use it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import slicer
from ForgettableSegMRML.heatmaps import styleHeatmap
from ForgettableSegMRML.subject_hierarchy import placeBeside
from ForgettableSegMRML.volumes import placeOnGrid, readVolume, writeVolume

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

from . import results
from .i18n import tr as _
from .reviews import legendTitle

CASE = "case"
"""Id of the one case of a job."""


def writeImages(volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], folder: Path) -> list[str]:
    """Write the channels of the case to files; returns their paths.

    Raises:
        ForgettableSegError: if a volume cannot be used or written.
    """
    images = []
    for channel, volumeNode in enumerate(volumeNodes):
        images.append(str(folder / f"{CASE}_{channel:04d}.nrrd"))
        writeVolume(volumeNode, images[-1])
    return images


def requireInScene(node: slicer.vtkMRMLNode) -> None:
    """Refuse to load results of a node that was removed while the job was at work.

    Raises:
        ForgettableSegError: CASE_INVALID, naming the node.
    """
    if node.GetScene() is None:
        text = _("The result was dropped, because {name} is not in the scene any more.").format(name=node.GetName())
        raise ForgettableSegError(ErrorCode.CASE_INVALID, text)


def loadHeatmaps(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    referenceVolume: slicer.vtkMRMLVolumeNode,
    paths: Mapping[str, str],
    channels: Sequence[str],
) -> dict[str, slicer.vtkMRMLScalarVolumeNode]:
    """Bring heatmaps into the scene, beside the volume that they belong to.

    Args:
        segmentationNode: the segmentation that they belong to.
        referenceVolume: the volume on whose grid they lie.
        paths: files by kind of artifact.
        channels: which of them are heatmaps.
    """
    nodes = {}
    for channel in channels:
        if channel not in paths:
            continue
        name = f"{segmentationNode.GetName()} {legendTitle(channel)}"
        node = readVolume(segmentationNode.GetScene(), paths[channel], name)
        placeOnGrid(node, referenceVolume)
        styleHeatmap(node, title=legendTitle(channel))
        placeBeside(node, referenceVolume)
        results.setHeatmap(segmentationNode, channel, node)
        nodes[channel] = node
    return nodes
