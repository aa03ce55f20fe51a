"""A label and a model's segmentation of the same volume as two outlines, and a corrected label back in its file."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

from .labelmaps import writeLabelMap
from .segmentations import contentOf, loadLabelMap, segmentIDOfName, segmentIDs
from .volumes import readLabelMap, readVolume

if TYPE_CHECKING:
    from ForgettableSegLib.cases.task import SegmentClass

LABEL_COLOR, MODEL_COLOR = (1.0, 0.82, 0.0), (1.0, 0.24, 0.86)


@dataclass(frozen=True)
class ComparedCase:
    """A case in the scene: its first image, its labels, what the model found, and what the labels were when loaded."""

    volumeNode: slicer.vtkMRMLVolumeNode
    labelNode: slicer.vtkMRMLSegmentationNode
    modelNode: slicer.vtkMRMLSegmentationNode
    content: str

    @property
    def isCorrected(self) -> bool:
        """Whether the labels were changed since they were loaded."""
        return contentOf(self.labelNode) != self.content

    def remove(self) -> None:
        """Take the case out of the scene."""
        for node in (self.labelNode, self.modelNode, self.volumeNode):
            if node.GetScene() is not None:
                node.GetScene().RemoveNode(node)


def loadCompared(
    scene: slicer.vtkMRMLScene,
    name: str,
    image: Path,
    label: tuple[Path, Sequence[SegmentClass]],
    predicted: tuple[Path, Sequence[SegmentClass]],
) -> ComparedCase:
    """Bring a case into the scene, its label outlined in yellow and what the model found in pink.

    Args:
        scene: receives the nodes.
        name: of the case.
        image: file of the first channel.
        label, predicted: label map file each, with the classes that its values stand for.

    Raises:
        ForgettableSegError: if a file is missing or cannot be read; the scene is left as it was.
    """
    nodes: list[slicer.vtkMRMLNode] = [readVolume(scene, image, name)]
    try:
        for suffix, (path, classes), color in (("label", label, LABEL_COLOR), ("model", predicted, MODEL_COLOR)):
            node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GetUniqueNameByString(f"{name} {suffix}"))
            nodes.append(node)
            node.CreateDefaultDisplayNodes()
            loadLabelMap(node, path, classes, referenceVolume=nodes[0])
            _outline(node, color)
    except ForgettableSegError:
        for node in nodes:
            scene.RemoveNode(node)
        raise
    return ComparedCase(*nodes, contentOf(nodes[1]))


def saveCorrected(case: ComparedCase, label: Path, backup: Path, classes: Sequence[SegmentClass]) -> None:
    """Write the labels of a case into their file; the file as it was first is kept.

    Args:
        case: with corrected labels.
        label: their file, which is replaced when the new one is complete.
        backup: where the old file goes, unless there is one already.
        classes: with the values of the file.

    Raises:
        ForgettableSegError: CASE_INVALID if the file holds values of no class, which would be lost, or segments
            overlap; OUTPUT_UNWRITABLE.
    """
    known = {0, *(each.value for each in classes)}
    lost = sorted(_valuesOf(label) - known)
    if lost:
        text = f"{label} holds label values that belong to no class of the model and would be lost: {lost}."
        raise ForgettableSegError(ErrorCode.CASE_INVALID, text, hint="Correct it in the program that made it.")
    values = {segmentIDOfName(case.labelNode, each.name): each.value for each in classes}
    suffix = ".nii.gz" if label.name.lower().endswith(".nii.gz") else label.suffix
    draft = label.with_name(f".{uuid.uuid4().hex}{suffix}")
    try:
        writeLabelMap(case.labelNode, case.volumeNode, values, draft)
        if not backup.exists():
            backup.parent.mkdir(exist_ok=True)
            shutil.copy2(label, backup)
        os.replace(draft, label)
    except OSError as error:
        text = f"The corrected labels could not be written to {label}: {error.strerror or error}."
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, text) from error
    finally:
        draft.unlink(missing_ok=True)


def _valuesOf(path: Path) -> set[int]:
    node = readLabelMap(slicer.vtkMRMLScene(), path, "labels")
    return {int(value) for value in np.unique(vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()))}


def _outline(segmentationNode: slicer.vtkMRMLSegmentationNode, color: tuple[float, float, float]) -> None:
    """Show all segments as outlines of one colour, without a fill."""
    displayNode = segmentationNode.GetDisplayNode()
    displayNode.SetVisibility2DFill(False)
    displayNode.SetVisibility2DOutline(True)
    displayNode.SetOpacity2DOutline(1.0)
    displayNode.SetSliceIntersectionThickness(2)
    for segmentID in segmentIDs(segmentationNode):
        segmentationNode.GetSegmentation().GetSegment(segmentID).SetColor(*color)
