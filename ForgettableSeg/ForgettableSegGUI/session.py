"""What all panels share: the worker, the job at work, the models and devices of this computer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .devices import deviceChoices
from .i18n import tr as _
from .job_state import FINAL, JobState, logLine
from .model_cards import BrokenModel, ModelCard, brokenFromDict, cardFromDict
from .packages import PackageStatus, missingNames
from .signal import Signal

Event = dict[str, Any]


class WorkerLike(Protocol):
    """What a session needs of the worker."""

    client: Any

    def submit(self, job: str, arguments: Mapping[str, Any], onEvent: Callable[[Event], None]) -> str:
        """Queue a job."""


class Session:
    """The state of the module that does not belong into a scene.

    Args:
        worker: runs the jobs.
        readPackages: tells what is installed.

    Signals: `jobChanged` (a job began, moved on or ended), `modelsChanged`, `devicesChanged`, `packagesChanged`,
    `runsChanged` (folders of trainings were removed), `logged` (a line for the log).
    """

    def __init__(self, worker: WorkerLike, readPackages: Callable[[], list[PackageStatus]]) -> None:
        self.worker = worker
        self._readPackages = readPackages
        self.job: JobState | None = None
        self.jobId = ""
        self.models: list[ModelCard] = []
        self.brokenModels: list[BrokenModel] = []
        self.modelsKnown = False
        self._listing = False
        self._listingProblem = ""
        self.deviceReport: dict[str, Any] = {}
        self.packages: list[PackageStatus] = []
        self.jobChanged = Signal()
        self.modelsChanged = Signal()
        self.devicesChanged = Signal()
        self.packagesChanged = Signal()
        self.runsChanged = Signal()
        self.logged = Signal()

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the packages that are missing."""
        return missingNames(self.packages)

    @property
    def busy(self) -> str:
        """Title of the job at work, or nothing."""
        return self.job.title if self.job is not None and self.job.running else ""

    def readPackages(self) -> None:
        """Look again what is installed."""
        self.packages = self._readPackages()
        self.packagesChanged.emit()

    def run(
        self,
        job: str,
        arguments: Mapping[str, Any],
        *,
        title: str,
        onEvent: Callable[[Event, JobState], None],
    ) -> JobState:
        """Start a job that the user asked for; there is one at a time.

        Args:
            job: kind of job.
            arguments: its arguments.
            title: what it does, in a few words.
            onEvent: hears every event after the state of the job has taken it.
        """
        state = JobState(title)
        self.job = state

        def heard(event: Event) -> None:
            state.hear(event)
            if line := logLine(event):
                self.logged.emit(line)
            try:
                onEvent(event, state)
            finally:
                self.jobChanged.emit()

        self.jobId = self.worker.submit(job, arguments, heard)
        self.jobChanged.emit()
        return state

    def cancel(self) -> None:
        """Stop the job at its next safe point."""
        if self.busy:
            self.worker.client.cancel(self.jobId)

    def setPaused(self, paused: bool) -> None:
        """Pause the job, or let it go on."""
        if self.busy:
            (self.worker.client.pause if paused else self.worker.client.resume)()

    def ask(self, job: str, arguments: Mapping[str, Any], onResult: Callable[[Event], None]) -> None:
        """Ask the worker something small in the background; `onResult` hears the final event only."""

        def heard(event: Event) -> None:
            if event["event"] in FINAL:
                onResult(event)
            elif event["event"] == "warning":
                self.logged.emit(event["text"])

        self.worker.submit(job, arguments, heard)

    def refreshModels(self, then: Callable[[], None] = lambda: None) -> None:
        """Ask the library which models there are; `then` is called when they are known, before anybody shows them."""

        def answered(event: Event) -> None:
            self._listing, self._listingProblem = False, ""
            if event["event"] == "done":
                entries: Sequence[Mapping[str, Any]] = (event.get("result") or {}).get("models") or ()
                cards = [cardFromDict(entry) for entry in entries]
                self.models = [card for card in cards if card is not None]
                broken = (entry for entry, card in zip(entries, cards, strict=True) if card is None)
                self.brokenModels = [brokenFromDict(entry) for entry in broken]
                self.modelsKnown = True
                then()
            elif event["event"] == "failed":
                self._listingProblem = _("The models could not be listed: {text}").format(text=event["text"])
                self.logged.emit(self._listingProblem)
            self.modelsChanged.emit()

        self._listing = True
        self.ask("models", {"action": "list"}, answered)
        self.modelsChanged.emit()

    def whyNoModel(self, name: str) -> str:
        """Return why a model cannot be used: there is none at all, or not that of the scene."""
        reason = self.whyNoModels()
        if reason or not name or self.model(name) is not None:
            return reason
        text = _("The model {name} is not on this computer. Choose another one, or import it in Models.")
        return text.format(name=name)

    def whyNoModels(self) -> str:
        """Return why there is no model to choose from, or nothing where there are some."""
        if self.models:
            return ""
        if self._listing:
            return _("The models are being listed; at the first time the worker starts, which takes some seconds.")
        if self._listingProblem:
            return self._listingProblem
        return _("There is no model yet. Import one in Models, or train one in Fine-tune.") if self.modelsKnown else ""

    def model(self, name: str) -> ModelCard | None:
        """Return the card of an installed model by its name."""
        return next((card for card in self.models if card.name == name), None)

    def devices(self) -> list[tuple[str, str]]:
        """Return (device, title) of the devices that can be chosen."""
        return deviceChoices(self.deviceReport)

    def setDeviceReport(self, report: Mapping[str, Any]) -> None:
        """Take what a check of the devices found."""
        self.deviceReport = dict(report)
        self.devicesChanged.emit()
