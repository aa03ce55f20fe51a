"""The Fine-tune panel: which cases, from which model, how long; then the run, and whether it was worth it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import slicer

from .. import application
from ..channels import MAX_CHANNELS, channelLabel
from ..i18n import tr as _
from ..panel import Context, Panel
from ..table import cellText, fillTable, fitColumns, selectedKeys
from . import model
from .cases import CasesTab
from .checks import CaseChecks
from .choices import Choices
from .job import SceneCase
from .model import SCRATCH, FineTuneState, NewClass, TrainingCase, classesFromJson, classesToJson
from .run import TrainingRun


class FineTunePanel(Panel):
    """Trains a model on the user's own cases, in the background."""

    uiName = "FineTunePanel"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.choices = Choices(self.session, lambda: self.parameterNode)
        self.casesTab = CasesTab(self.ui, self.choices, self.refresh)
        parts = self.ui, self.session, self.choices, self.casesTab
        self.checks = CaseChecks(*parts, changed=self.showState)
        self.run = TrainingRun(*parts, changed=self.showState, showCase=self.showCase)
        self._named = ""  # the start model for which a name was suggested
        self._suggestion = ""
        fitColumns(self.ui.taskTable, 0, 1)
        self.ui.startModelComboBox.connect("currentIndexChanged(int)", self.onStartModelChosen)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChosen)
        self.ui.taskTable.connect("cellChanged(int,int)", self.onClassEdited)
        self.ui.addClassButton.connect("clicked(bool)", self.onAddClass)
        self.ui.removeClassButton.connect("clicked(bool)", self.onRemoveClass)
        self.ui.startButton.connect("clicked(bool)", self.onStart)
        self.ui.pauseButton.connect("toggled(bool)", self.onPause)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.resumeRunButton.connect("clicked(bool)", self.onResumeRun)
        self.session.modelsChanged.connect(self.refresh)
        self.session.devicesChanged.connect(self.refresh)
        self.session.packagesChanged.connect(self.refresh)
        self.session.runsChanged.connect(self.run.findOpen)
        self.session.jobChanged.connect(self.showState)

    @property
    def cases(self) -> list[TrainingCase]:
        """The training cases."""
        return self.casesTab.cases

    def setParameterNode(self, parameterNode: Any, previous: Any) -> None:
        """Show the cases of another scene."""
        super().setParameterNode(parameterNode, previous)
        self._named = ""

    def forgetScene(self) -> None:
        """The scene is being closed: the training goes on, its plots and pictures are gone."""
        self.run.forgetScene()

    def onEnter(self) -> None:
        """Look for runs that are open and suggest a name."""
        self.run.findOpen()
        self.refresh()

    def refresh(self) -> None:
        """Show the models, the settings and whether the training can start."""
        parameters = self.parameterNode
        if parameters is None:
            return
        models = [(card.name, card.title) for card in self.session.models]
        choices = [*models, (SCRATCH, _("New model, from scratch"))]
        if self.session.modelsKnown and not parameters.startModel:
            parameters.startModel = choices[0][0]
        self.choose(self.ui.startModelComboBox, choices, parameters.startModel)
        self.choose(self.ui.deviceComboBox, self.session.devices(), parameters.trainingDevice)
        scratch = self.choices.isScratch
        self.ui.scratchGroup.setVisible(scratch)
        self.ui.patchSpinBox.setEnabled(scratch)
        self._proposeClasses(scratch)
        self._showClasses()
        self._showChannels()
        self.casesTab.show()
        taken = parameters.newModelName == self._suggestion and self._suggestion in dict(models)
        if self.session.modelsKnown and (taken or self._named != parameters.startModel):
            self._suggestName(parameters, dict(models))
        self.showState()

    def state(self) -> FineTuneState:
        """Return everything that decides whether the training can start."""
        return FineTuneState(
            missing=self.session.missing,
            cases=tuple(self.cases),
            mapping=self.casesTab.mapping,
            task=self.choices.task(),
            taskProblem=self.choices.taskProblem(),
            start=self.choices.startCard,
            newName=self.parameterNode.newModelName,
            takenNames=tuple(card.name for card in self.session.models),
            gone=self.casesTab.gone(),
            busy=self.session.busy or self.checks.busy or self.run.preparing,
        )

    def showState(self) -> None:
        """Show what may be pressed and how far the training is."""
        if self.parameterNode is None:
            return
        valid, reason = self.state().isValid()
        running = self.run.isRunning
        self.ui.startButton.setEnabled(valid)
        self.ui.startButton.setToolTip(_("Start the training.") if valid else reason)
        self.ui.pauseButton.setEnabled(running)
        self.ui.cancelButton.setEnabled(running or bool(self.run.preparing))
        canGoOn = not self.session.busy and not self.session.missing and bool(self.run.open)
        self.ui.resumeRunButton.setEnabled(canGoOn)
        self.checks.showState()
        self.run.show(reason)

    def onStartModelChosen(self, _index: int) -> None:
        """Another start model was selected."""
        if self.parameterNode is None:
            return
        self.parameterNode.startModel = self.chosen(self.ui.startModelComboBox)
        self.refresh()

    def onDeviceChosen(self, _index: int) -> None:
        """Another device was selected."""
        if self.parameterNode is not None:
            self.parameterNode.trainingDevice = self.chosen(self.ui.deviceComboBox)

    def onClassEdited(self, row: int, column: int) -> None:
        """A class of the new model got another name or prompt."""
        classes = classesFromJson(self.parameterNode.newClasses)
        if 0 <= row < len(classes) and column < 2:
            text = cellText(self.ui.taskTable, row, column).strip()
            old = classes[row]
            name, prompt = (text or old.name, old.prompt) if column == 0 else (old.name, text)
            classes[row] = NewClass(name, prompt, old.value)
        self._setClasses(classes)  # a value, which files have, is shown as it was

    def onAddClass(self, _checked: bool = False) -> None:
        """Add a class to the new model."""
        self._setClasses(model.withNewClass(classesFromJson(self.parameterNode.newClasses), ""))

    def onRemoveClass(self, _checked: bool = False) -> None:
        """Remove the selected class of the new model."""
        removed = set(selectedKeys(self.ui.taskTable))
        classes = classesFromJson(self.parameterNode.newClasses)
        self._setClasses([each for row, each in enumerate(classes) if row not in removed])

    def onStart(self, _checked: bool = False) -> None:
        """Start the training."""
        valid, reason = self.state().isValid()
        if valid:
            self.run.start()
        else:
            self.say(self.ui.statusLabel, reason)

    def onPause(self, paused: bool) -> None:
        """Pause the training, or let it go on."""
        if self.run.isRunning:
            self.session.setPaused(paused)

    def onCancel(self, _checked: bool = False) -> None:
        """Stop the training; the run is kept."""
        self.run.cancel()

    def onResumeRun(self, _checked: bool = False) -> None:
        """Go on with a run."""
        name = self.chosen(self.ui.runsComboBox)
        if name:
            self.run.resume(Path(name))

    def sceneCaseNamed(self, caseId: str) -> SceneCase | None:
        """Return a case whose nodes are in the scene, by its name."""
        case = next((each for each in self.cases if each.caseId == caseId and each.inScene), None)
        return None if case is None else self.casesTab.sceneCase(case)

    def showCase(self, caseId: str, position: tuple[float, float, float]) -> None:
        """Show a training case at a place: its volume, its labels, the slices there."""
        case = next((each for each in self.cases if each.caseId == caseId), None)
        scene = self.sceneCaseNamed(caseId)
        volumeNode = scene.volumeNodes[0] if scene is not None else self._loadedVolume(case)
        if volumeNode is not None:
            application.showVolume(volumeNode)
            application.jumpTo(position)

    @staticmethod
    def _loadedVolume(case: TrainingCase | None) -> slicer.vtkMRMLVolumeNode | None:
        """The volume of a case in files, loaded once."""
        if case is None or not case.images or not Path(case.images[0]).is_file():
            return None
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            if node.GetAttribute("ForgettableSeg.File") == case.images[0]:
                return node
        node = slicer.util.loadVolume(case.images[0], {"show": False})
        node.SetAttribute("ForgettableSeg.File", case.images[0])
        return node

    def _suggestName(self, parameters: Any, taken: Iterable[str]) -> None:
        """Suggest a name for the new model once for each model to start from, and never over one that was typed."""
        before, self._named = self._suggestion, parameters.startModel
        self._suggestion = model.suggestName(self.choices.startCard, taken)
        if parameters.newModelName in ("", before):
            parameters.newModelName = self._suggestion

    def _setClasses(self, classes: list[NewClass]) -> None:
        self.parameterNode.newClasses = classesToJson(classes)
        self.refresh()

    def _proposeClasses(self, scratch: bool) -> None:
        """A new model begins with the segments and label values that there are."""
        if scratch and not classesFromJson(self.parameterNode.newClasses):
            classes = model.classesOfCases(self.cases)
            if classes:
                self.parameterNode.newClasses = classesToJson(classes)

    def _showClasses(self) -> None:
        classes = classesFromJson(self.parameterNode.newClasses)
        fillTable(self.ui.taskTable, [[each.name, each.prompt, each.value] for each in classes])

    def _showChannels(self) -> None:
        card = self.choices.startCard
        count = 1 if card is None else min(MAX_CHANNELS, len(card.channels))
        for channel in range(1, MAX_CHANNELS + 1):
            label = getattr(self.ui, f"caseVolumeLabel{channel}")
            label.setText(channelLabel(card, channel - 1))
            label.setVisible(channel <= count)
            getattr(self.ui, f"caseVolumeSelector{channel}").setVisible(channel <= count)
