"""How a result hangs together in the scene: segmentation, heatmaps, review and model, kept by node references."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import slicer
from ForgettableSegMRML.heatmaps import hideHeatmap, isHeatmapShown
from ForgettableSegMRML.segmentations import contentOf, segmentIDs

from .reviews import Review, reviewFromDict

MODEL_ATTRIBUTE = "ForgettableSeg.Model"
HEATMAP_ATTRIBUTE = "ForgettableSeg.Heatmap"
CONTENT_ATTRIBUTE = "ForgettableSeg.Content"
REMARKS_ATTRIBUTE = "ForgettableSeg.Remarks"
_REVIEW_ROLE = "ForgettableSeg.review"
_TABLE_ROLE = "ForgettableSeg.volumes"
_INPUT_ROLE = "ForgettableSeg.input"
_HEATMAP_ROLE = "ForgettableSeg.heatmap."


def setInputs(
    segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], model: str
) -> None:
    """Remember from which volumes and by which model a segmentation was made."""
    segmentationNode.SetAttribute(MODEL_ATTRIBUTE, model)
    segmentationNode.RemoveNodeReferenceIDs(_INPUT_ROLE)
    for volumeNode in volumeNodes:
        segmentationNode.AddNodeReferenceID(_INPUT_ROLE, volumeNode.GetID())


def inputsOf(segmentationNode: slicer.vtkMRMLSegmentationNode) -> list[slicer.vtkMRMLVolumeNode]:
    """Return the volumes that a segmentation was made from, as far as they are still in the scene."""
    count = segmentationNode.GetNumberOfNodeReferences(_INPUT_ROLE)
    nodes = [segmentationNode.GetNthNodeReference(_INPUT_ROLE, index) for index in range(count)]
    return [node for node in nodes if node is not None]


def outputFor(
    chosen: slicer.vtkMRMLSegmentationNode | None, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode]
) -> slicer.vtkMRMLSegmentationNode | None:
    """Return the node that receives a result, None for a new one: the result of another volume is never replaced."""
    if chosen is None:
        return None
    inputs = inputsOf(chosen)
    return chosen if not inputs or inputs == list(volumeNodes) else None


def modelOf(segmentationNode: slicer.vtkMRMLSegmentationNode) -> str:
    """Return the name of the model that made a segmentation, or nothing."""
    return segmentationNode.GetAttribute(MODEL_ATTRIBUTE) or ""


def setHeatmap(
    segmentationNode: slicer.vtkMRMLSegmentationNode, channel: str, volumeNode: slicer.vtkMRMLVolumeNode
) -> None:
    """Let a heatmap belong to a segmentation; an earlier one of the same channel is removed."""
    old = heatmapOf(segmentationNode, channel)
    if old is not None and old is not volumeNode:
        segmentationNode.GetScene().RemoveNode(old)
    volumeNode.SetAttribute(HEATMAP_ATTRIBUTE, channel)
    segmentationNode.SetNodeReferenceID(_HEATMAP_ROLE + channel, volumeNode.GetID())


def heatmapOf(segmentationNode: slicer.vtkMRMLSegmentationNode, channel: str) -> slicer.vtkMRMLVolumeNode | None:
    """Return the heatmap of a channel, or None."""
    return segmentationNode.GetNodeReference(_HEATMAP_ROLE + channel)


def heatmapsOf(segmentationNode: slicer.vtkMRMLSegmentationNode) -> dict[str, slicer.vtkMRMLVolumeNode]:
    """Return the heatmaps of a segmentation by channel."""
    roles: list[str] = []
    segmentationNode.GetNodeReferenceRoles(roles)
    channels = [role.removeprefix(_HEATMAP_ROLE) for role in roles if role.startswith(_HEATMAP_ROLE)]
    found = {channel: heatmapOf(segmentationNode, channel) for channel in channels}
    return {channel: node for channel, node in found.items() if node is not None}


def forgetMaps(segmentationNode: slicer.vtkMRMLSegmentationNode, keep: Collection[str]) -> None:
    """Remove the heatmaps and the review of an earlier result, which say nothing of the present one.

    Args:
        segmentationNode: whose they are.
        keep: kinds that are about to be replaced: channels, or "review".
    """
    scene = segmentationNode.GetScene()
    gone = [node for channel, node in heatmapsOf(segmentationNode).items() if channel not in keep]
    review = segmentationNode.GetNodeReference(_REVIEW_ROLE)
    if review is not None and "review" not in keep:
        gone.append(review)
    for node in gone:
        if isHeatmapShown(node):
            hideHeatmap(scene)
        scene.RemoveNode(node)


def setRemarks(segmentationNode: slicer.vtkMRMLSegmentationNode, remarks: Sequence[str]) -> None:
    """Keep what is to be said of a result, a sentence each, such as that it is unlike what the model has learnt."""
    segmentationNode.SetAttribute(REMARKS_ATTRIBUTE, "\n".join(remarks) or None)


def remarksOf(segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> list[str]:
    """Return what is to be said of a result."""
    text = None if segmentationNode is None else segmentationNode.GetAttribute(REMARKS_ATTRIBUTE)
    return text.split("\n") if text else []


def setContent(segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
    """Remember what the model found, so that it can be told from what a person has corrected since."""
    segmentationNode.SetAttribute(CONTENT_ATTRIBUTE, contentOf(segmentationNode))


def isCorrected(segmentationNode: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether a segmentation holds segments that no model made, or that were changed since."""
    if not segmentIDs(segmentationNode):
        return False
    return segmentationNode.GetAttribute(CONTENT_ATTRIBUTE) != contentOf(segmentationNode)


def setReview(segmentationNode: slicer.vtkMRMLSegmentationNode, content: Mapping[str, Any]) -> None:
    """Keep the review of a segmentation in the scene, as a text node that is saved with it."""
    node = segmentationNode.GetNodeReference(_REVIEW_ROLE)
    if node is None:
        scene = segmentationNode.GetScene()
        node = scene.AddNewNodeByClass("vtkMRMLTextNode", f"{segmentationNode.GetName()} review")
        node.SetHideFromEditors(True)
        segmentationNode.SetNodeReferenceID(_REVIEW_ROLE, node.GetID())
    node.SetText(json.dumps(content))


def reviewOf(segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> Review | None:
    """Return the review of a segmentation, or None where it has none that can be read."""
    node = None if segmentationNode is None else segmentationNode.GetNodeReference(_REVIEW_ROLE)
    try:
        return None if node is None else reviewFromDict(json.loads(node.GetText() or ""))
    except (ValueError, KeyError, TypeError):
        return None


def reviewTextOf(segmentationNode: slicer.vtkMRMLSegmentationNode) -> str:
    """Return the review as the library wrote it, as JSON text."""
    node = segmentationNode.GetNodeReference(_REVIEW_ROLE)
    return "" if node is None else node.GetText() or ""


def setTable(segmentationNode: slicer.vtkMRMLSegmentationNode, tableNode: slicer.vtkMRMLTableNode) -> None:
    """Let the table of volumes belong to a segmentation."""
    segmentationNode.SetNodeReferenceID(_TABLE_ROLE, tableNode.GetID())


def tableOf(segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> slicer.vtkMRMLTableNode | None:
    """Return the table of volumes of a segmentation, or None."""
    return None if segmentationNode is None else segmentationNode.GetNodeReference(_TABLE_ROLE)


def reviewedSegmentations(scene: slicer.vtkMRMLScene) -> list[tuple[slicer.vtkMRMLSegmentationNode, Review]]:
    """Return all segmentations of a scene that have a review."""
    found = []
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        review = reviewOf(node)
        if review is not None:
            found.append((node, review))
    return found
