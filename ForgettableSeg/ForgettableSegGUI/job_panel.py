"""What the panels have in common that send volumes of the scene to the worker and load what comes back."""

from __future__ import annotations

import traceback
from typing import Any, Protocol

from ForgettableSegLib.errors import ForgettableSegError

from .i18n import tr as _
from .job_state import JobState
from .panel import Context, Panel


class VolumeJob(Protocol):
    """A job on volumes of the scene."""

    def request(self) -> dict[str, Any]:
        """Write the volumes to files and return the arguments of the job."""

    def discard(self) -> None:
        """Remove the files."""


class JobPanel(Panel):
    """A panel that runs one job at a time in the background; it has a cancel button, a progress bar and a status."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._job: VolumeJob | None = None
        self._state: JobState | None = None
        self._refusal = ""
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.session.modelsChanged.connect(self.refresh)
        self.session.packagesChanged.connect(self.refresh)
        self.session.jobChanged.connect(self.refresh)

    def start(self, name: str, job: VolumeJob, title: str) -> None:
        """Run a job, or say why it cannot be run."""
        self._state, self._refusal = None, ""
        try:
            arguments = job.request()
        except ForgettableSegError as error:
            job.discard()
            self._refusal = str(error)
            self.refresh()
            return
        self._job = job
        self._state = self.session.run(name, arguments, title=title, onEvent=self.onEvent)

    def forgetScene(self) -> None:
        """The scene is closed: what the job was about is gone."""
        if self._job is not None:
            self.session.cancel()
        self._state, self._refusal = None, ""

    def load(self, job: VolumeJob, state: JobState) -> None:
        """Bring the results of a job that is done into the scene; its message is shown."""
        raise NotImplementedError

    def onCancel(self, _checked: bool = False) -> None:
        """Stop the job."""
        self.session.cancel()

    def onEvent(self, event: dict[str, Any], state: JobState) -> None:
        """Take an event of the job."""
        if state.running or self._job is None:
            return
        job, self._job = self._job, None
        try:
            if event["event"] == "done":
                self.load(job, state)
        except ForgettableSegError as error:
            state.message = str(error)
        except Exception as error:
            # Whatever is wrong with a result, the volumes written for the job must go and the next job must come.
            state.message = _("The result could not be shown: {error}").format(error=error)
            self.session.logged.emit(traceback.format_exc())
        finally:
            job.discard()

    def showOwnJob(self, otherwise: str, *, startable: bool) -> None:
        """Show how far the panel's job is, or why it was refused.

        Args:
            otherwise: the sentence where the last job was not the panel's.
            startable: whether a job can be started; the reason why it cannot comes before that of the last refusal.
        """
        if not startable and not self.session.busy:
            self._refusal = ""
        self.ui.cancelButton.setEnabled(self._job is not None and bool(self.session.busy))
        if self._state is not None and self._state is self.session.job:
            self.showJob(self.ui.progressBar, self.ui.statusLabel, self._state)
            if not self._state.running and not startable and otherwise:  # how it ended, and why there is no next one
                self.say(self.ui.statusLabel, f"{self._state.text()}\n{otherwise}")
        else:
            self.ui.progressBar.setVisible(False)
            self.say(self.ui.statusLabel, (startable and self._refusal) or otherwise)
