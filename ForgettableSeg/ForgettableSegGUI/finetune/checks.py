"""Adding cases from files and checking cases before a training, in the background."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt

from ForgettableSegLib.errors import ForgettableSegError

from ..i18n import tr as _
from ..job_state import JobState
from ..panel import Panel
from ..session import Session
from .cases import CasesTab
from .choices import Choices
from .job import fileCase, writeSceneCases
from .model import (
    NewClass,
    casesOfFiles,
    classesFromJson,
    classesToJson,
    generalFindings,
    withFindings,
)


class CaseChecks:
    """Runs the library's validation over the table of cases.

    Args:
        ui: widgets of the Fine-tune panel.
        session: runs the jobs.
        choices: knows the task to train.
        table: the training cases.
        changed: called when something began or ended that the whole panel shows.
    """

    def __init__(
        self, ui: Any, session: Session, choices: Choices, table: CasesTab, *, changed: Callable[[], None]
    ) -> None:
        self.ui, self._session, self._choices, self._table, self._changed = ui, session, choices, table, changed
        self.busy = ""
        self._writing: Iterator[dict[str, Any]] | None = None
        self._written: list[dict[str, Any]] = []
        self._folder: tempfile.TemporaryDirectory | None = None
        self._findings: list[Mapping[str, Any]] = []
        self._state: JobState | None = None
        self._problem = ""
        self.ui.cancelCheckButton.connect("clicked(bool)", self.onCancel)
        self.ui.checkButton.connect("clicked(bool)", self.onCheck)
        self.ui.addFilesButton.connect("clicked(bool)", self.onAddFiles)
        self.ui.casesPathLineEdit.connect("currentPathChanged(QString)", self.onPathChanged)

    def showState(self) -> None:
        """Show what may be pressed."""
        idle = not self._session.busy and not self.busy and not self._session.missing
        self.ui.checkButton.setEnabled(idle and bool(self._table.cases) and self._choices.task() is not None)
        self.ui.addFilesButton.setEnabled(idle and bool(self.ui.casesPathLineEdit.currentPath))
        own = self._state is not None and self._state is self._session.job
        self.ui.cancelCheckButton.setEnabled(bool(self.busy) or (own and self._state.running))
        if own and not self.busy:
            Panel.showJob(self.ui.checkProgressBar, self.ui.checkStatusLabel, self._state)
        else:
            self.ui.checkProgressBar.setVisible(bool(self.busy))
            self.ui.checkProgressBar.setRange(0, 0)
            Panel.say(self.ui.checkStatusLabel, self.busy or self._problem)

    def onCancel(self, _checked: bool = False) -> None:
        """Stop the check, or the writing of its cases."""
        if self.busy:
            self._end()
            self._problem = _("Cancelled.")
            self._changed()
        else:
            self._session.cancel()

    def onPathChanged(self, _path: str) -> None:
        """Another case list was chosen."""
        self.showState()

    def onAddFiles(self, _checked: bool = False) -> None:
        """Read a case list and add its cases."""
        self._findings, self._problem = [], ""
        self._state = self._session.run(
            "validate",
            {"cases": self.ui.casesPathLineEdit.currentPath},
            title=_("Reading the case list"),
            onEvent=self.onFilesEvent,
        )
        self.ui.casesPathLineEdit.addCurrentPathToHistory()

    def onFilesEvent(self, event: dict[str, Any], state: JobState) -> None:
        """Take an event of the reading of a case list."""
        if event["event"] == "finding":
            self._findings.append(event)
        if event["event"] == "done":
            added = self._addFiles(state.result)
            parts = [
                _("Cases added: {count}.").format(count=added),
                self._table.tellFiles(),
                self._choices.taskProblem(),
            ]
            state.message = " ".join(filter(None, [*parts, *generalFindings(self._findings)]))

    def onCheck(self, _checked: bool = False) -> None:
        """Check the ticked cases; those in the scene are written to temporary files first, one at a time."""
        task = self._choices.task()
        if task is None:
            self._problem = self._choices.taskProblem()
            self._changed()
            return
        included = [case for case in self._table.cases if case.included]
        self._findings, self._problem, self._state = [], "", None
        mapping = self._table.mapping
        self._written = [fileCase(case, task, mapping) for case in included if not case.inScene]
        self._folder = tempfile.TemporaryDirectory(prefix="forgettableseg-")
        scene = self._table.sceneCases(included)
        self._writing = writeSceneCases(scene, Path(self._folder.name), task, mapping)
        self.busy = _("Writing the cases")
        self._changed()
        qt.QTimer.singleShot(0, self._writeNext)

    def _writeNext(self) -> None:
        """Write one case and come back, so that the application stays responsive."""
        if self._writing is None:
            return
        try:
            self._written.append(next(self._writing))
        except StopIteration:
            self._submit()
        except (ForgettableSegError, OSError) as error:
            self._end()
            self._problem = str(error)
            self._showProblem(str(error))
            self._changed()
        else:
            qt.QTimer.singleShot(0, self._writeNext)

    def _submit(self) -> None:
        self.busy = ""
        task = self._choices.task()
        arguments = {"cases": self._written, "task": task.to_dict()}
        self._state = self._session.run("validate", arguments, title=_("Checking the cases"), onEvent=self.onCheckEvent)

    def onCheckEvent(self, event: dict[str, Any], state: JobState) -> None:
        """Take an event of the check."""
        if event["event"] == "finding":
            self._findings.append(event)
        if state.running:
            return
        self._end()
        if event["event"] == "done":
            checked = withFindings([case for case in self._table.cases if case.included], self._findings)
            byId = {case.caseId: case for case in checked}
            self._table.setCases([byId.get(case.caseId, case) for case in self._table.cases])
            bad = sum(case.blocking for case in checked)
            general = generalFindings(self._findings)
            text = _("{count} of {all} cases have problems.").format(count=bad, all=len(checked)) if bad else ""
            state.message = " ".join(filter(None, [text or _("The cases can be used for training."), *general]))

    def _addFiles(self, result: Mapping[str, Any]) -> int:
        """Add the cases that are not there yet, with what was found of them; returns their number."""
        before = self._table.cases
        new = casesOfFiles(result, before)
        names = {key: case.caseId for key, case in new.items()}
        found = [{**each, "case": names[each["case"]]} for each in self._findings if each.get("case") in names]
        self._takeClasses(result.get("task"))
        self._table.setCases([*before, *(withFindings([*new.values()], found) if found else new.values())])
        return len(new)

    def _takeClasses(self, task: Mapping[str, Any] | None) -> None:
        """A new model takes the classes that the case list names."""
        parameters = self._choices.parameterNode
        if task and self._choices.isScratch and not classesFromJson(parameters.newClasses):
            rows = [NewClass(row["name"], row.get("prompt") or "", row["value"]) for row in task.get("classes") or ()]
            parameters.newClasses = classesToJson(rows)

    def _showProblem(self, problem: str) -> None:
        """A case that could not be written has a problem of its own."""
        included = [case for case in self._table.cases if case.included and case.inScene]
        number = len([entry for entry in self._written if entry["id"] in {case.caseId for case in included}])
        if number < len(included):
            bad = replace(included[number], problems=(problem,), blocking=True, checked=True)
            self._table.setCases([bad if case.caseId == bad.caseId else case for case in self._table.cases])

    def _end(self) -> None:
        self.busy, self._writing = "", None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
