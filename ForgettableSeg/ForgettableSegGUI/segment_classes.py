"""Segments of the scene and the classes that they stand for. No Qt: scripts use it too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import slicer
from ForgettableSegMRML.labelmaps import mapSegments
from ForgettableSegMRML.segmentations import segmentIDs

from ForgettableSegLib.cases.task import Task


def segmentNamesOf(segmentationNode: slicer.vtkMRMLSegmentationNode) -> tuple[str, ...]:
    """Return the names of a node's segments."""
    segmentation = segmentationNode.GetSegmentation()
    return tuple(segmentation.GetSegment(key).GetName() for key in segmentIDs(segmentationNode))


def proposedClasses(
    segmentationNodes: Iterable[slicer.vtkMRMLSegmentationNode], task: Task
) -> tuple[dict[str, str], str]:
    """Return the class by name of a segment, as far as name, terminology or value say it; and a sentence on it.

    The sentence is empty where every segment is called like its class.
    """
    names = {each.value: each.name for each in task.classes}
    found: dict[str, str] = {}
    sentences: dict[str, None] = {}
    for node in segmentationNodes:
        segmentation, mapped = node.GetSegmentation(), mapSegments(node, task.classes)
        for key, value in mapped.values.items():
            if value is not None:
                found.setdefault(segmentation.GetSegment(key).GetName(), names[value])
        if not mapped.isByName:
            sentences[mapped.sentence] = None
    return found, " ".join(sentences)


def valuesBySegment(
    segmentationNode: slicer.vtkMRMLSegmentationNode, mapping: Mapping[str, str], task: Task
) -> dict[str, int | None]:
    """Return the label value of each segment, from the class that its name stands for."""
    values = {each.name: each.value for each in task.classes}
    segmentation = segmentationNode.GetSegmentation()
    return {
        key: values.get(mapping.get(segmentation.GetSegment(key).GetName(), "")) for key in segmentIDs(segmentationNode)
    }
