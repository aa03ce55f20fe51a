"""The Cases tab of the Fine-tune panel: the table of training cases and which segment is which class."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import qt
import slicer

from ..channels import MAX_CHANNELS
from ..class_mapping import completeMapping, mappingFromJson
from ..mapping_table import MappingTable
from ..segment_classes import proposedClasses, segmentNamesOf
from ..table import fillTable, fitColumns, selectedKeys
from .choices import Choices
from .job import SceneCase
from .model import (
    TrainingCase,
    caseRows,
    casesFromJson,
    casesToJson,
    matchedFiles,
    segmentNames,
    uniqueCaseId,
    withSegments,
)


class CasesTab:
    """Keeps the training cases in the parameter node and shows them.

    Args:
        ui: widgets of the Fine-tune panel.
        choices: knows the task to train.
        changed: called after every change of the cases.
    """

    def __init__(self, ui: Any, choices: Choices, changed: Callable[[], None]) -> None:
        self.ui, self._choices, self._changed = ui, choices, changed
        self._mappingTable = MappingTable(ui.mappingTable, self.onMapped)
        self._shownCases: Any = None
        fitColumns(ui.casesTable, 0, 1, 2)
        ui.casesTable.connect("cellChanged(int,int)", self.onTicked)
        ui.casesTable.connect("itemSelectionChanged()", self.onSelection)
        ui.addSceneButton.connect("clicked(bool)", self.onAddPair)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        for channel in range(1, MAX_CHANNELS + 1):
            selector = getattr(ui, f"caseVolumeSelector{channel}")
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self.onPairChosen)
        ui.caseSegmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onPairChosen)

    @property
    def cases(self) -> list[TrainingCase]:
        """The rows of the table; those of the scene with the segments that they have now."""
        parameters = self._choices.parameterNode
        if parameters is None:
            return []
        nodes = dict(enumerate(parameters.caseSegmentations))
        cases = casesFromJson(parameters.trainingCases)
        return [
            case if nodes.get(case.pair) is None else withSegments(case, segmentNamesOf(nodes[case.pair]))
            for case in cases
        ]

    def setCases(self, cases: list[TrainingCase]) -> None:
        """Replace the rows of the table."""
        parameters = self._choices.parameterNode
        if parameters is not None:
            parameters.trainingCases = casesToJson(cases)
            self._changed()

    @property
    def mapping(self) -> dict[str, str]:
        """Class by segment name: what the user chose, and proposals for the others."""
        parameters, task = self._choices.parameterNode, self._choices.task()
        if parameters is None or task is None:
            return {}
        cases = self.cases
        nodes = [case.segmentationNode for case in self.sceneCases(cases)]
        inScene, _sentence = proposedClasses(dict.fromkeys(nodes), task)
        inFiles, _sentence = self._matchedFiles()
        classes, kept = [each.name for each in task.classes], mappingFromJson(parameters.classMapping)
        return completeMapping(segmentNames(cases), classes, {**inFiles, **inScene}, kept)

    def tellFiles(self) -> str:
        """Return what there is to say of the classes in label files; the table opens where some are not known."""
        proposals, sentence = self._matchedFiles()
        names = segmentNames(case for case in self.cases if not case.inScene)
        if any(name not in proposals for name in names):
            self.ui.mappingGroup.collapsed = False
        return sentence

    def sceneCase(self, case: TrainingCase) -> SceneCase | None:
        """Return the nodes of a case in the scene, None where they are gone."""
        parameters = self._choices.parameterNode
        volumes, segmentations = list(parameters.caseVolumes), list(parameters.caseSegmentations)
        chosen = volumes[case.pair : case.pair + case.channels]
        # one entry for each volume in both lists, so that positions agree
        segmentation = segmentations[case.pair] if 0 <= case.pair < len(segmentations) else None
        if len(chosen) < case.channels or segmentation is None or any(node is None for node in chosen):
            return None
        return SceneCase(case.caseId, tuple(chosen), segmentation, case.group)

    def sceneCases(self, cases: Iterable[TrainingCase]) -> list[SceneCase]:
        """Return those of the cases whose nodes are in the scene."""
        found = [self.sceneCase(case) for case in cases if case.inScene]
        return [case for case in found if case is not None]

    def gone(self) -> tuple[str, ...]:
        """Return the names of the cases whose nodes have left the scene."""
        return tuple(case.caseId for case in self.cases if case.inScene and self.sceneCase(case) is None)

    def show(self) -> None:
        """Show the cases and the table of segments."""
        cases = self.cases
        if cases != self._shownCases:
            self._shownCases = cases
            fillTable(self.ui.casesTable, caseRows(cases), checks=[case.included for case in cases])
            for row, case in enumerate(cases):
                item = self.ui.casesTable.item(row, 2)
                item.setToolTip("\n".join(case.problems) or item.text())
        self.onSelection()
        self.onPairChosen()
        self.showMapping()

    def showMapping(self) -> None:
        """Show which segment stands for which class."""
        task, mapping = self._choices.task(), self.mapping
        self._mappingTable.show(mapping, [] if task is None else [each.name for each in task.classes])
        self.ui.mappingGroup.setVisible(bool(mapping))

    def onTicked(self, row: int, column: int) -> None:
        """A case was ticked or unticked."""
        cases = self.cases
        if column == 0 and 0 <= row < len(cases):
            checked = self.ui.casesTable.item(row, 0).checkState() == qt.Qt.Checked
            if checked != cases[row].included:
                cases[row] = replace(cases[row], included=checked)
                self.setCases(cases)

    def onSelection(self) -> None:
        """Other rows were selected."""
        self.ui.removeButton.setEnabled(bool(selectedKeys(self.ui.casesTable)))

    def onPairChosen(self, _node: Any = None) -> None:
        """Another volume or segmentation was chosen for a new pair."""
        nodes = self._chosenVolumes()
        labels = self.ui.caseSegmentationSelector.currentNode()
        complete = labels is not None and all(node is not None for node in nodes)
        self.ui.addSceneButton.setEnabled(complete and self._choices.parameterNode is not None)

    def onAddPair(self, _checked: bool = False) -> None:
        """Add the chosen volume and segmentation as a training case."""
        self.addPair(self._chosenVolumes(), self.ui.caseSegmentationSelector.currentNode())

    def addPair(
        self, volumeNodes: list[slicer.vtkMRMLVolumeNode], segmentationNode: slicer.vtkMRMLSegmentationNode
    ) -> None:
        """Add a training case of the scene, unless it is there already."""
        parameters, cases = self._choices.parameterNode, self.cases
        known = [self.sceneCase(case) for case in cases if case.inScene]
        if any(
            each is not None and each.segmentationNode is segmentationNode and each.volumeNodes == tuple(volumeNodes)
            for each in known
        ):
            return
        position = len(parameters.caseVolumes)
        parameters.caseVolumes = [*parameters.caseVolumes, *volumeNodes]
        parameters.caseSegmentations = [
            *parameters.caseSegmentations,
            *[segmentationNode] * len(volumeNodes),
        ]
        cases.append(
            TrainingCase(
                caseId=uniqueCaseId(volumeNodes[0].GetName(), cases),
                pair=position,
                channels=len(volumeNodes),
                segments=segmentNamesOf(segmentationNode),
            )
        )
        self.setCases(cases)

    def onRemove(self, _checked: bool = False) -> None:
        """Take the selected cases off the list."""
        removed = set(selectedKeys(self.ui.casesTable))
        self.setCases([case for row, case in enumerate(self.cases) if row not in removed])

    def onMapped(self, mapping: Mapping[str, str]) -> None:
        """The user chose a class for a segment."""
        parameters = self._choices.parameterNode
        if parameters is not None:
            parameters.classMapping = json.dumps(mapping)
            self._changed()

    def _chosenVolumes(self) -> list[slicer.vtkMRMLVolumeNode | None]:
        task = self._choices.task()
        count = 1 if task is None else min(MAX_CHANNELS, len(task.channels))
        return [getattr(self.ui, f"caseVolumeSelector{channel}").currentNode() for channel in range(1, count + 1)]

    def _matchedFiles(self) -> tuple[dict[str, str], str]:
        task = self._choices.task()
        files = (case for case in self.cases if case.included and not case.inScene)
        return ({}, "") if task is None else matchedFiles(files, task.classes)
