"""The Labels tab of the Review panel: the queue of suspicious labels, one decision a slice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from ForgettableSegMRML.outlines import ComparedCase, loadCompared, saveCorrected
from ForgettableSegMRML.segmentations import segmentIDOfName

from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.resources import user_dir

from .. import application
from ..i18n import tr as _
from ..panel import Panel
from ..table import fillTable, fitColumns, keyOfRow
from .suspects import Queue, Suspect, backupOf, canBeCorrected, suspectRows, suspectSentence


class SuspectsJob:
    """A search for suspicious labels under way.

    Args:
        cases: folder or list of labelled cases.
        model: name of the judge.
        device: where it runs.
    """

    def __init__(self, cases: str, model: str, device: str) -> None:
        self.cases, self.model, self.device = cases, model, device

    def request(self) -> dict[str, Any]:
        """Return the arguments of the job."""
        output = user_dir() / "suspects" / time.strftime("%Y%m%d-%H%M%S")
        arguments = {"model": self.model, "cases": self.cases, "output": str(output), "device": self.device or "auto"}
        return make_request("suspects", arguments).to_dict()

    def discard(self) -> None:
        """The files stay: the queue is worked off over days."""


class QueueTab:
    """Shows one suspect after the other, label and model outlined, and keeps what is decided.

    Args:
        ui: widgets of the Review panel.
        say: shows a sentence in the panel's status.
        keep: is given the path of the queue that was opened, which the scene remembers.
    """

    def __init__(self, ui: Any, say: Callable[[str], None], keep: Callable[[str], None]) -> None:
        self.ui, self._say, self._keep = ui, say, keep
        self.queue: Queue | None = None
        self._open: list[Suspect] = []
        self._shown: tuple[str, ComparedCase] | None = None
        self._current: Suspect | None = None
        fitColumns(ui.suspectsTable, 0, 2)
        ui.suspectsTable.connect("cellClicked(int,int)", self.onClicked)
        ui.previousSuspectButton.connect("clicked(bool)", self.onPrevious)
        ui.nextSuspectButton.connect("clicked(bool)", self.onNext)
        ui.confirmButton.connect("clicked(bool)", self.onConfirm)
        ui.quarantineButton.connect("clicked(bool)", self.onQuarantine)
        ui.fixButton.connect("clicked(bool)", self.onFix)
        ui.keepButton.connect("clicked(bool)", self.onKeep)

    def open(self, path: str) -> None:
        """Open what the job `suspects` wrote, or nothing."""
        self.forgetScene()
        self.queue = None
        if path:
            try:
                self.queue = Queue(Path(path))
            except ForgettableSegError as error:
                self._say(str(error))
        self._keep(path if self.queue is not None else "")
        self._list()

    def forgetScene(self) -> None:
        """The scene is closed: the case in it is gone."""
        if self._shown is not None:
            self._shown[1].remove()
        self._shown, self._current = None, None

    def onClicked(self, row: int, _column: int) -> None:
        """Show the suspect of a row."""
        key = keyOfRow(self.ui.suspectsTable, row)
        if 0 <= key < len(self._open):
            self._go(self._open[key])

    def onPrevious(self, _checked: bool = False) -> None:
        """Go to the suspect above."""
        self._step(-1)

    def onNext(self, _checked: bool = False) -> None:
        """Go to the suspect below."""
        self._step(1)

    def onConfirm(self, _checked: bool = False) -> None:
        """The label is right."""
        self._decide("confirmed")

    def onQuarantine(self, _checked: bool = False) -> None:
        """The label is wrong and stays out of training."""
        self._decide("quarantined")

    def onFix(self, _checked: bool = False) -> None:
        """Correct the label in the Segment Editor."""
        if self._current is None or self._shown is None:
            return
        case = self._shown[1]
        names = (self._current.wanted, self._current.className)
        found = (segmentIDOfName(case.labelNode, name) for name in names)
        application.openSegmentEditor(case.labelNode, case.volumeNode, next(filter(None, found), ""))
        application.jumpTo(self._current.position)

    def onKeep(self, _checked: bool = False) -> None:
        """Write the corrected label into its file."""
        if self._current is None or self._shown is None or self.queue is None:
            return
        name, case = self._shown
        label = self.queue.cases[name].label
        if not canBeCorrected(label):
            self._say(_("{label} cannot be replaced; correct it in the program that made it.").format(label=label))
            return
        if not case.isCorrected:
            self._say(_("The label has not been changed. Correct it with Fix first, or confirm it."))
            return
        try:
            saveCorrected(case, label, backupOf(label), self.queue.labelClasses(name))
        except ForgettableSegError as error:
            self._say(str(error))
            return
        self._forgetChanges()
        self._decide("fixed")

    def showState(self) -> None:
        """Enable what can be pressed."""
        isShown = self._current is not None and self._shown is not None
        for button in (self.ui.confirmButton, self.ui.fixButton, self.ui.keepButton, self.ui.quarantineButton):
            button.setEnabled(isShown)
        self.ui.previousSuspectButton.setEnabled(bool(self._open))
        self.ui.nextSuspectButton.setEnabled(bool(self._open))
        Panel.say(self.ui.suspectLabel, "" if self._current is None else suspectSentence(self._current))
        Panel.say(self.ui.queueLabel, "" if self.queue is None else self.queue.progress())

    def _list(self) -> None:
        self._open = [] if self.queue is None else self.queue.open()
        fillTable(self.ui.suspectsTable, suspectRows(self._open))
        self.showState()

    def _step(self, step: int) -> None:
        table = self.ui.suspectsTable
        row = min(table.rowCount - 1, max(0, table.currentRow() + step))
        if table.rowCount:
            table.setCurrentCell(row, 0)
            self.onClicked(row, 0)

    def _decide(self, state: str) -> None:
        """Keep a decision and go on to the next suspect."""
        if self._current is None or self.queue is None:
            return
        row = self.ui.suspectsTable.currentRow()
        try:
            self.queue.decide(self._current, state)
        except ForgettableSegError as error:
            self._say(str(error))
            return
        self._current = None
        self._list()
        if self._open:
            self.ui.suspectsTable.setCurrentCell(min(max(row, 0), len(self._open) - 1), 0)
            self.onClicked(self.ui.suspectsTable.currentRow(), 0)

    def _go(self, suspect: Suspect) -> None:
        """Show a suspect: its case with two outlines, at its place."""
        if not self._show(suspect.case):
            return
        self._current = suspect
        application.jumpTo(suspect.position)
        self.showState()

    def _show(self, name: str) -> bool:
        """Show a case; whether it is shown now."""
        before = None if self._shown is None else self._shown[1]
        isThere = before is not None and before.labelNode.GetScene() is not None
        if isThere and self._shown[0] == name:
            return True
        question = _("The labels of {name} were changed, but not kept. Drop the changes?")
        if isThere and before.isCorrected and not application.ask(question.format(name=self._shown[0])):
            return False
        self.forgetScene()
        files = self.queue.cases[name]
        classes = self.queue.labelClasses(name)
        try:
            case = loadCompared(
                slicer.mrmlScene,
                name,
                files.images[0],
                (files.label, classes),
                (files.predicted, self.queue.task.classes),
            )
        except ForgettableSegError as error:
            self._say(str(error))
            self.showState()
            return False
        self._shown = (name, case)
        application.showVolume(case.volumeNode)
        return True

    def _forgetChanges(self) -> None:
        """What was changed is in the file now: the case is loaded anew when it is shown next."""
        current = self._current
        self.forgetScene()
        self._current = current
