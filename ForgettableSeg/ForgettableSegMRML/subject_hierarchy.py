"""Where results stand in the subject hierarchy."""

from __future__ import annotations

import slicer


def placeBeside(node: slicer.vtkMRMLNode, sibling: slicer.vtkMRMLNode) -> None:
    """Put a node into the folder (or the study) of another one; nothing happens where there is no subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    if hierarchy is None:
        return
    item, siblingItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(sibling)
    if item and siblingItem:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(siblingItem))
