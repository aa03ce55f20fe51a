"""The Setup panel: what is installed, installing the rest, checking the device."""

from __future__ import annotations

from typing import Any

from .. import application
from ..i18n import tr as _
from ..job_state import JobState
from ..panel import Context, Panel
from ..table import fillTable, fitColumns
from .installing import Installer, InstallResult
from .model import deviceSentence, installQuestion, lastLines, packageRows, releaseQuestion, summarySentence


class SetupPanel(Panel):
    """Brings the computer into a state in which the jobs can run, and says what it has."""

    uiName = "SetupPanel"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._installer: Installer | None = None
        self._state: JobState | None = None
        self._message = ""
        self._lines: list[str] = []
        fitColumns(self.ui.packagesTable, 0)
        self.ui.installButton.connect("clicked(bool)", self.onInstall)
        self.ui.checkButton.connect("clicked(bool)", self.onCheck)
        self.ui.copyButton.connect("clicked(bool)", self.onCopy)
        self.session.packagesChanged.connect(self.refresh)
        self.session.devicesChanged.connect(self.refresh)
        self.session.jobChanged.connect(self.showState)

    def onEnter(self) -> None:
        """Look again what is installed."""
        self.session.readPackages()

    def refresh(self) -> None:
        """Show what is installed and what can be chosen."""
        fillTable(self.ui.packagesTable, packageRows(self.session.packages))
        self.ui.summaryLabel.setText(summarySentence(self.session.missing))
        device = self.chosen(self.ui.deviceComboBox) or "auto"
        self.choose(self.ui.deviceComboBox, self.session.devices(), device)
        self.showState()

    def showState(self) -> None:
        """Show what may be pressed."""
        installing = self._installer is not None
        self.ui.installButton.setEnabled(bool(self.session.missing) and not installing and not self.session.busy)
        tip = _("Install the missing packages. You are asked before anything is downloaded.")
        self.ui.installButton.setToolTip(tip if self.session.missing else _("Nothing is missing."))
        self.ui.checkButton.setEnabled(not self.session.missing and not installing and not self.session.busy)
        if installing:
            self.ui.progressBar.setVisible(True)
            self.ui.progressBar.setRange(0, 0)
            self.say(self.ui.statusLabel, _("Installing"))
        elif self._state is not None and self._state is self.session.job:
            self.showJob(self.ui.progressBar, self.ui.statusLabel, self._state)
        else:
            self.ui.progressBar.setVisible(False)
            self.say(self.ui.statusLabel, self._message)

    def onInstall(self, _checked: bool = False) -> None:
        """Ask, then install what is missing."""
        missing = [status for status in self.session.packages if not status.fits]
        wheels = self.ui.wheelsPathLineEdit.currentPath.strip()
        if not missing or not application.ask(installQuestion(self.session.missing, wheels)):
            return
        if wheels:
            self.ui.wheelsPathLineEdit.addCurrentPathToHistory()
        self._lines = []
        self.ui.installLogText.setPlainText("")
        self.session.worker.shutdown()  # it would keep the packages that it has loaded
        self._installer = Installer(
            wheels,
            onLine=self.onLine,
            onFinished=self.onInstalled,
            mayReplace=lambda packages: application.ask(releaseQuestion(packages)),
        )
        self.showState()
        self._installer.start(missing)

    def onLine(self, line: str) -> None:
        """Take a line of the installation."""
        self._lines.append(line.rstrip())
        self.ui.installLogText.appendPlainText(line.rstrip())

    def onInstalled(self, result: InstallResult) -> None:
        """The installation has ended."""
        installer, self._installer = self._installer, None
        self.ui.commandLineEdit.setText("" if installer is None else installer.command)
        self._message, self._state = result.message, None
        self.ui.installLogGroup.collapsed = result.done
        self.session.readPackages()
        if result.done:
            self.onCheck()
            self.session.refreshModels()

    def onCheck(self, _checked: bool = False) -> None:
        """Compute for a moment on the chosen device."""
        device = self.chosen(self.ui.deviceComboBox) or "auto"
        title = _("Checking the device")
        self._state = self.session.run("check", {"device": device}, title=title, onEvent=self.onEvent)

    def onEvent(self, event: dict[str, Any], state: JobState) -> None:
        """Take an event of the check."""
        if event["event"] == "done":
            state.message = deviceSentence(state.result)
            self.session.setDeviceReport(state.result)
            parameters, device = self.parameterNode, self.chosen(self.ui.deviceComboBox) or "auto"
            if parameters is not None:
                parameters.device, parameters.trainingDevice = device, device

    def onCopy(self, _checked: bool = False) -> None:
        """Copy command and log, for a question in the forum."""
        application.copyText(f"{self.ui.commandLineEdit.text}\n{lastLines(chr(10).join(self._lines), 200)}")
