"""What the panels need to know of the volumes in a scene."""

from __future__ import annotations

import slicer
from ForgettableSegMRML.volumes import whyNotUsable

from ..results import HEATMAP_ATTRIBUTE
from .model import VolumeFacts


def volumeFacts(volumeNode: slicer.vtkMRMLVolumeNode | None) -> VolumeFacts | None:
    """Return the facts of one volume, None for none."""
    if volumeNode is None:
        return None
    image = volumeNode.GetImageData()
    return VolumeFacts(
        nodeId=volumeNode.GetID(),
        name=volumeNode.GetName() or "",
        problem=whyNotUsable(volumeNode),
        size=(0, 0, 0) if image is None else tuple(image.GetDimensions()),
        modality=_modality(volumeNode),
    )


def volumesOfScene(scene: slicer.vtkMRMLScene) -> list[VolumeFacts]:
    """Return the facts of all volumes of a scene that a user would choose from: no label maps, no heatmaps of ours."""
    facts = []
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode")
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors() and not isHeatmap(node):
            facts.append(volumeFacts(node))
    return facts


def isHeatmap(volumeNode: slicer.vtkMRMLVolumeNode) -> bool:
    """Whether a volume is a heatmap that belongs to one of our results."""
    return volumeNode.GetAttribute(HEATMAP_ATTRIBUTE) is not None


def _modality(volumeNode: slicer.vtkMRMLVolumeNode) -> str:
    """The modality that DICOM has told the subject hierarchy, if any."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    if hierarchy is None:
        return ""
    item = hierarchy.GetItemByDataNode(volumeNode)
    return hierarchy.GetItemAttribute(item, "DICOM.Modality") or "" if item else ""
