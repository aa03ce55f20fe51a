"""The Models panel: what is installed, import, export, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ForgettableSegLib.resources import user_models_dir

from .. import application
from ..i18n import tr as _
from ..job_state import JobState
from ..model_cards import ModelCard, sizeText
from ..panel import Context, Panel
from ..table import fillTable, fitColumns, selectedKeys
from .model import (
    Model,
    freeQuestion,
    modelDetails,
    modelRows,
    removeQuestion,
    removeToolTip,
    storageSentence,
)
from .storage import Run, readRuns, removeRuns


class ModelsPanel(Panel):
    """Keeps the models of this computer."""

    uiName = "ModelsPanel"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._state: JobState | None = None
        self._message = ""
        self._runs: list[Run] = []
        self._freed = ""
        fitColumns(self.ui.modelsTable, 0, 1)
        self.ui.modelsTable.connect("itemSelectionChanged()", self.showState)
        self.ui.removeButton.connect("clicked(bool)", self.onRemove)
        self.ui.folderButton.connect("clicked(bool)", self.onOpenFolder)
        self.ui.refreshButton.connect("clicked(bool)", self.onRefresh)
        self.ui.importPathLineEdit.connect("currentPathChanged(QString)", self.onPathChanged)
        self.ui.importButton.connect("clicked(bool)", self.onImport)
        self.ui.exportPathLineEdit.connect("currentPathChanged(QString)", self.onPathChanged)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self.ui.freeButton.connect("clicked(bool)", self.onFree)
        self.session.modelsChanged.connect(self.refresh)
        self.session.jobChanged.connect(self.showState)

    @property
    def selected(self) -> Model | None:
        """The model of the selected row."""
        rows = selectedKeys(self.ui.modelsTable)
        models = self._models()
        return models[rows[0]] if rows and rows[0] < len(models) else None

    def onEnter(self) -> None:
        """Show the list, and look what the trainings have left on the disk."""
        self._runs, self._freed = readRuns(), ""
        self.refresh()

    def refresh(self) -> None:
        """List the models and keep the selected one."""
        before = self.selected
        fillTable(self.ui.modelsTable, modelRows(self._models()))
        names = [model.name for model in self._models()]
        if before is not None and before.name in names:
            self.ui.modelsTable.selectRow(names.index(before.name))
        self.showState()

    def showState(self) -> None:
        """Show the card of the selected model and what may be pressed."""
        model = self.selected
        idle = not self.session.busy and not self.session.missing
        self.say(self.ui.modelCardLabel, modelDetails(model))
        self.ui.removeButton.setEnabled(idle and model is not None and not model.shipped)
        self.ui.removeButton.setToolTip(removeToolTip(model))
        self.ui.refreshButton.setEnabled(idle)
        self.ui.storageLabel.setText(f"{storageSentence(self._runs)} {self._freed}".strip())
        self.ui.freeButton.setEnabled(bool(self._runs) and not self.session.busy)
        self.ui.importButton.setEnabled(idle and bool(self.ui.importPathLineEdit.currentPath))
        self.ui.exportButton.setEnabled(
            idle and isinstance(model, ModelCard) and bool(self.ui.exportPathLineEdit.currentPath)
        )
        if self._state is not None and self._state is self.session.job:
            self.showJob(self.ui.progressBar, self.ui.statusLabel, self._state)
        else:
            self.ui.progressBar.setVisible(False)
            self.say(self.ui.statusLabel, self.session.whyNoModels())

    def onPathChanged(self, _path: str) -> None:
        """Another file or folder was chosen."""
        self.showState()

    def onRefresh(self, _checked: bool = False) -> None:
        """Read the list again."""
        self.session.refreshModels()

    def onOpenFolder(self, _checked: bool = False) -> None:
        """Show the folder of the models."""
        application.openFolder(user_models_dir())

    def onImport(self, _checked: bool = False) -> None:
        """Verify and install a model."""
        path = self.ui.importPathLineEdit.currentPath
        self._run({"action": "install", "path": path}, _("Importing the model"), _("The model is installed."))
        self.ui.importPathLineEdit.addCurrentPathToHistory()

    def onExport(self, _checked: bool = False) -> None:
        """Write the selected model into one file."""
        model = self.selected
        if model is None:
            return
        target = Path(self.ui.exportPathLineEdit.currentPath) / f"{model.name}.zip"
        arguments = {"action": "export", "name": model.name, "path": str(target)}
        self._run(arguments, _("Exporting the model"), _("The model was written to {path}.").format(path=target))
        self.ui.exportPathLineEdit.addCurrentPathToHistory()

    def onRemove(self, _checked: bool = False) -> None:
        """Remove the selected model, after a question."""
        model = self.selected
        if model is None:
            return
        if application.ask(removeQuestion(model)):
            done = _("The model was removed; {size} are free again.").format(size=sizeText(model.bytes))
            self._run({"action": "remove", "name": model.name}, _("Removing the model"), done)

    def onFree(self, _checked: bool = False) -> None:
        """Remove what trainings have left: those that are over, and after a question of their own the others."""
        self._runs = readRuns()
        freed = 0
        for wanted in (False, True):
            runs = [run for run in self._runs if run.isOpen == wanted]
            if runs and application.ask(freeQuestion(runs)):
                freed += removeRuns(runs)
        self._runs, self._freed = readRuns(), _("{size} are free again.").format(size=sizeText(freed))
        self.showState()
        self.session.runsChanged.emit()

    def _run(self, arguments: dict[str, Any], title: str, done: str) -> None:
        self._message = done
        self._state = self.session.run("models", arguments, title=title, onEvent=self.onEvent)

    def onEvent(self, event: dict[str, Any], state: JobState) -> None:
        """Take an event of the job."""
        if event["event"] == "done":
            state.message = self._message
        if not state.running:
            self.session.refreshModels()

    def _models(self) -> list[Model]:
        return [*self.session.models, *self.session.brokenModels]
