"""The reference of a review: which of its segments stands for which class of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import slicer

from ForgettableSegLib.cases.task import Task

from ..class_mapping import completeMapping, mappingFromJson
from ..mapping_table import MappingTable
from ..panel import Panel
from ..segment_classes import proposedClasses, segmentNamesOf
from .model import referenceSentence

CLASSES_ATTRIBUTE = "ForgettableSeg.Classes"
"""Keeps on a reference which class the user chose for each of its segments."""


class Reference:
    """Matches the segments of the reference with the classes of the model, and shows what cannot be matched by name.

    Args:
        ui: widgets of the Review panel.
        changed: called after the user has chosen a class for a segment.
    """

    def __init__(self, ui: Any, changed: Callable[[], None]) -> None:
        self.ui, self._changed = ui, changed
        self._table = MappingTable(ui.mappingTable, self.onMapped)
        self._node: slicer.vtkMRMLSegmentationNode | None = None
        self._opened: slicer.vtkMRMLSegmentationNode | None = None
        self.mapping: dict[str, str] = {}

    @property
    def isMatched(self) -> bool:
        """Whether at least one segment stands for a class."""
        return any(self.mapping.values())

    def show(self, node: slicer.vtkMRMLSegmentationNode | None, task: Task | None) -> None:
        """Match another reference, or the same one anew, and show what there is to say of it.

        Args:
            node: the reference, None for none.
            task: of the model, None where it is not known.
        """
        self._node, self.mapping, sentence, kept = node, {}, "", {}
        classes = [] if task is None else [each.name for each in task.classes]
        if node is not None and task is not None:
            proposals, sentence = proposedClasses([node], task)
            kept = mappingFromJson(node.GetAttribute(CLASSES_ATTRIBUTE) or "")
            self.mapping = completeMapping(segmentNamesOf(node), classes, proposals, kept)
        self._table.show(self.mapping, classes)
        unclear = bool(sentence or kept)
        self.ui.mappingGroup.setVisible(unclear)
        Panel.say(
            self.ui.referenceLabel, referenceSentence(self.mapping, sentence, chosen=bool(kept)) if unclear else ""
        )
        if unclear and node is not self._opened:
            self._opened = node
            self.ui.mappingGroup.collapsed = all(self.mapping.values())

    def onMapped(self, mapping: Mapping[str, str]) -> None:
        """The user chose a class for a segment; the reference keeps it."""
        if self._node is not None:
            self._node.SetAttribute(CLASSES_ATTRIBUTE, json.dumps(dict(mapping)))
            self._changed()
