"""The Training and Result tabs of the Fine-tune panel: start, follow, stop, go on, keep or discard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import qt
import slicer
from ForgettableSegMRML.plots import TrainingPlots

from ForgettableSegLib.errors import ForgettableSegError

from .. import application
from ..i18n import tr as _
from ..job_state import JobState
from ..panel import Panel
from ..runs import (
    canResume,
    isFinished,
    newRunFolder,
    openRuns,
    recallRun,
    rememberResult,
    rememberRun,
    removeRun,
    runTitle,
    settleRun,
)
from ..session import Session
from ..table import fillTable, fitColumns
from .bank import bankSentence
from .cases import CasesTab
from .choices import Choices
from .comparison import Comparison, comparisonFromValues, comparisonRows, comparisonSentence
from .gallery import BankGallery
from .job import fileCase, trainingRequest, writeSceneCases

TRAINING_TAB, RESULT_TAB = 2, 3


class TrainingRun:
    """One training, from the writing of its cases to the decision on its model.

    Args:
        ui: widgets of the Fine-tune panel.
        session: runs the jobs.
        choices: knows the task and the settings.
        table: the training cases.
        changed: called when something began or ended that the whole panel shows.
        showCase: goes to a training case at a place, in RAS mm.
    """

    def __init__(
        self,
        ui: Any,
        session: Session,
        choices: Choices,
        table: CasesTab,
        *,
        changed: Callable[[], None],
        showCase: Callable[[str, tuple[float, float, float]], None],
    ) -> None:
        self.ui, self._session, self._choices, self._table, self._changed = ui, session, choices, table, changed
        self.preparing = ""
        self._told = ""
        self.open: list[Path] = []
        self.plots: TrainingPlots | None = None
        self._chartView = application.ChartView()
        self.gallery = BankGallery(self.ui.bankList, showCase)
        self._state: JobState | None = None
        self._folder: Path | None = None
        self._writing: Iterator[dict[str, Any]] | None = None
        self._cases: list[dict[str, Any]] = []
        self._comparison = Comparison()
        self._modelPath = ""
        fitColumns(self.ui.resultTable, 0)
        self.ui.plotsButton.connect("clicked(bool)", self.onShowPlots)
        self.ui.useButton.connect("clicked(bool)", self.onUse)
        self.ui.discardButton.connect("clicked(bool)", self.onDiscard)

    @property
    def isRunning(self) -> bool:
        """Whether a training is at work."""
        return self._state is not None and self._state.running

    def start(self) -> None:
        """Write the cases of the scene, one at a time, and start the training."""
        included = [case for case in self._table.cases if case.included]
        scene = self._table.sceneCases(included)
        task, mapping = self._choices.task(), self._table.mapping
        self._cases = [fileCase(case, task, mapping) for case in included if not case.inScene]
        try:
            self._folder = newRunFolder(self._choices.parameterNode.newModelName)
        except OSError as error:
            self._tell(str(error))
            return
        self._writing = writeSceneCases(scene, self._folder / "cases", task, mapping)
        self._told, self.preparing = "", _("Writing the cases")
        self.ui.fineTuneTabs.setCurrentIndex(TRAINING_TAB)
        self._changed()
        qt.QTimer.singleShot(0, self._writeNext)

    def resume(self, folder: Path) -> None:
        """Go on with a run that was cut off, or with the decision on one that has ended."""
        self._folder = folder
        if isFinished(folder):
            self._state, self._comparison = None, Comparison()
            self._showResult(str(folder / "run" / "model"), recallRun(folder)["held_out"])
            return
        self.ui.fineTuneTabs.setCurrentIndex(TRAINING_TAB)
        self._begin("resume", {"run": str(folder / "run")})

    def cancel(self) -> None:
        """Stop the training, or the writing of its cases."""
        if self.preparing:
            self._writing, self.preparing = None, ""
            removeRun(self._folder)
            self._tell(_("Cancelled."))
        else:
            self._session.cancel()

    def findOpen(self) -> None:
        """Look for runs that can go on, or whose model waits for a decision."""
        if self._folder is not None and not self._folder.exists():  # it was removed in Models
            self._enableDecision(False)
        running = self._folder if self.isRunning else None
        self.open = [folder for folder in openRuns() if folder != running]
        choices = [(str(folder), runTitle(folder)) for folder in self.open]
        Panel.choose(self.ui.runsComboBox, choices, choices[0][0] if choices else "")
        self.ui.runsGroup.setVisible(bool(choices))

    def show(self, reason: str) -> None:
        """Show how far the training is, or why it cannot start."""
        if self._state is not None and self._state is self._session.job:
            Panel.showJob(self.ui.progressBar, self.ui.statusLabel, self._state)
            self.ui.pauseButton.setText(_("Resume") if self._state.paused else _("Pause"))
            if not self._state.running and reason:  # how it ended, and why there is no next one
                Panel.say(self.ui.statusLabel, f"{self._state.text()}\n{reason}")
        elif self.preparing:
            self.ui.progressBar.setVisible(True)
            self.ui.progressBar.setRange(0, 0)
            Panel.say(self.ui.statusLabel, self.preparing)
        else:
            self.ui.progressBar.setVisible(False)
            Panel.say(self.ui.statusLabel, "\n".join(filter(None, [self._told, reason])))
        self.ui.plotsButton.setEnabled(self.plots is not None)

    def onEvent(self, event: dict[str, Any], state: JobState) -> None:
        """Take an event of the training."""
        kind = event["event"]
        if kind == "metric":
            if self.plots is not None:
                self.plots.addEvent(event)
                self._fitPlots()
            if event["name"] == "bank":
                self.ui.bankLabel.setText(bankSentence(event["values"]))
            if event["name"] == "held_out":
                self._comparison = comparisonFromValues(event["values"])
        elif kind == "artifact" and event["kind"] == "bank":
            self.gallery.read(Path(event["path"]))
        elif kind == "artifact" and event["kind"] == "model":
            self._modelPath = event["path"]
        if not state.running:
            self._finished(event, state)

    def onShowPlots(self, _checked: bool = False) -> None:
        """Show the curves beside the slice views."""
        if self.plots is not None:
            self._chartView.show(self.plots.charts())

    def onUse(self, _checked: bool = False) -> None:
        """Install the new model and select it for segmenting."""
        self._enableDecision(False)
        self._session.ask("models", {"action": "install", "path": self._modelPath}, self._installed)

    def onDiscard(self, _checked: bool = False) -> None:
        """Remove the new model."""
        if self._folder is not None and application.ask(_("Remove the new model and its training run?")):
            removeRun(self._folder)
            self._enableDecision(False)
            self._chartView.leave()
            self.ui.resultLabel.setText(_("The new model was discarded. The old one is as it was."))
            self.findOpen()

    def forgetScene(self) -> None:
        """The scene is closed: its plots and pictures are gone."""
        self.plots = None
        self.gallery.clear()

    def _tell(self, text: str) -> None:
        """Say how an attempt to start has ended, until the next one."""
        self._state, self._told = None, text
        self._changed()

    def _writeNext(self) -> None:
        """Write one case and come back, so that the application stays responsive."""
        if self._writing is None:
            return
        try:
            self._cases.append(next(self._writing))
        except StopIteration:
            self._submit()
        except (ForgettableSegError, OSError) as error:
            self._writing, self.preparing = None, ""
            removeRun(self._folder)
            self._tell(str(error))
        else:
            qt.QTimer.singleShot(0, self._writeNext)

    def _submit(self) -> None:
        self._writing, self.preparing = None, ""
        choices = self._choices
        task = choices.task()
        job, arguments = trainingRequest(
            self._cases,
            task=task,
            folder=self._folder,
            name=choices.parameterNode.newModelName.strip(),
            settings=choices.settings(),
            model="" if choices.startCard is None else choices.startCard.name,
        )
        classes = {each.name: each.value for each in task.classes}
        rememberRun(self._folder, name=arguments["name"], cases=self._cases, classes=classes)
        self._begin(job, arguments)

    def _begin(self, job: str, arguments: dict[str, Any]) -> None:
        self._comparison, self._modelPath = Comparison(), ""
        self._enableDecision(False)
        recalled = recallRun(self._folder)
        self.gallery.setCases(recalled["cases"], recalled["classes"])
        self._makePlots(recalled["name"], list(recalled["classes"]))
        self.ui.pauseButton.blockSignals(True)
        self.ui.pauseButton.setChecked(False)
        self.ui.pauseButton.blockSignals(False)
        self._state = self._session.run(job, arguments, title=_("Training"), onEvent=self.onEvent)

    def _makePlots(self, name: str, classes: list[str]) -> None:
        if self.plots is not None:
            self.plots.remove()
        self.plots = TrainingPlots(slicer.mrmlScene, name, classes)
        self.onShowPlots()

    def _fitPlots(self, *, ended: bool = False) -> None:
        if self.plots is not None and self.plots.takeFit(always=ended):
            self._chartView.fit(self.plots.charts())

    def _finished(self, event: dict[str, Any], state: JobState) -> None:
        self._fitPlots(ended=True)
        if event["event"] == "done":
            result = state.result
            held_out = {**(result.get("held_out") or {}), "kept_start": result.get("kept_start", False)}
            rememberResult(self._folder, held_out)
            model = result.get("model") or self._modelPath or self._folder / "run" / "model"
            self._showResult(str(model), held_out)
            state.message = _("The training has ended. Compare the models in Result.")
        elif not canResume(self._folder) and not isFinished(self._folder):
            removeRun(self._folder)  # nothing is left to go on with, but copies of the cases would be
        self.findOpen()

    def _showResult(self, model: str, heldOut: Any) -> None:
        self._modelPath = model
        if heldOut:
            self._comparison = comparisonFromValues(heldOut)
        name = recallRun(self._folder)["name"]
        self.ui.resultLabel.setText(comparisonSentence(self._comparison, name))
        fillTable(self.ui.resultTable, comparisonRows(self._comparison))
        self._enableDecision(True)
        self.ui.fineTuneTabs.setCurrentIndex(RESULT_TAB)

    def _enableDecision(self, enabled: bool) -> None:
        self.ui.useButton.setEnabled(enabled)
        self.ui.discardButton.setEnabled(enabled)

    def _installed(self, event: dict[str, Any]) -> None:
        if event["event"] != "done":
            self.ui.resultLabel.setText(str(event.get("text") or _("Cancelled.")))
            self._enableDecision(True)
            return
        name = str(event["result"]["model"]["name"])
        settleRun(self._folder)
        self._chartView.leave()
        self.findOpen()
        self._session.refreshModels(then=lambda: self._select(name))

    def _select(self, name: str) -> None:
        """Choose the new model for segmenting; before it is listed, Segment would take another in its place."""
        if self._choices.parameterNode is not None:
            self._choices.parameterNode.modelName = name
        self.ui.resultLabel.setText(_("The model {name} is installed and selected in Segment.").format(name=name))
