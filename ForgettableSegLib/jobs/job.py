"""What every job is given and returns: events out, cancel and pause in, a log file for what users need not see."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ForgettableSegLib.errors import Cancelled, ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.failures import explain
from ForgettableSegLib.jobs.time_left import Outlook, Phase
from ForgettableSegLib.resources import user_dir

Event = dict[str, Any]

PROGRESS_INTERVAL_S = 0.1
"""A phase sends at most ten events of progress a second, beside its last one."""

_LOGS_KEPT = 20
_NEVER_QUIET = frozenset({"warning", "case_failed", "failed"})


@dataclass(frozen=True)
class JobResult:
    """What a job comes to.

    Args:
        exit_code: 0 done, 1 some cases failed, 2 bad request or failure, 130 cancelled.
        result: plain JSON, the ``result`` of the event ``done``.
        text: the same for a person, a few plain lines.
    """

    exit_code: int = EXIT_DONE
    result: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


class JobContext:
    """A job's line to whoever asked for it. Safe to use from several threads.

    Args:
        id: the client's name for the job, on every event.
        job: which job.
        sink: receives every event as a dict; by default nobody does.
        clock: seconds, for progress; another one only in tests.
    """

    def __init__(
        self,
        *,
        id: str = "",
        job: str = "",
        sink: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = id
        self.job = job
        self.quiet = False  # on the ranks of a distributed job that do not speak for it
        self.failed_cases: list[str] = []
        self._sink = sink
        self._clock = clock
        self._lock = threading.RLock()
        self._wake = threading.Condition()
        self._cancelled = False
        self._paused = False
        self._phases: dict[str, Phase] = {}
        self._outlook: Outlook | None = None
        self._waited = 0.0  # the time left is judged by the time at work
        self._log_file: Path | None = None

    def emit(self, event: Mapping[str, Any]) -> None:
        """Send an event; ``id`` and ``time`` are filled in."""
        if self._sink is not None and (not self.quiet or event["event"] in _NEVER_QUIET):
            with self._lock:
                self._sink({**event, "id": self.id, "time": round(time.time(), 3)})

    def log(self, text: str) -> None:
        """Tell what goes on, in a line that nobody needs to act on."""
        self.emit({"event": "log", "text": text})

    def warning(self, text: str, *, case: str | None = None) -> None:
        """Tell something that the user should know although the job goes on."""
        self.write_log(f"Warning: {text}" if case is None else f"Warning, case {case}: {text}")
        self.emit({"event": "warning", "text": text} | ({} if case is None else {"case": case}))

    def metric(self, name: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Send numbers to be plotted."""
        self.emit({"event": "metric", "name": name, "iteration": iteration, "values": dict(values)})

    def artifact(self, kind: str, path: Path | str, *, case: str | None = None) -> None:
        """Tell of a file that is complete."""
        self.emit({"event": "artifact", "kind": kind, "path": str(path)} | ({} if case is None else {"case": case}))

    def progress(self, phase: str, step: float, of: float, *, case: str | None = None) -> None:
        """Tell how far a phase has come.

        Args:
            phase: a word for what is being done.
            step: how much of it is done.
            of: how much there is to do.
            case: the case at work.
        """
        with self._lock:
            now = self._clock() - self._waited
            state = self._phases.get(phase)
            if state is None or step < state.first_step:
                state = self._phases[phase] = Phase(step, now)
            elif now - state.last_sent < PROGRESS_INTERVAL_S and step < of:
                return
            state.last_sent = now
            left = {"eta_s": state.report(step, of, now)}
            for name, other in self._phases.items():
                if name != phase:
                    other.interrupted(now)
            if self._outlook is not None:
                left["job_eta_s"] = self._job_left(self._outlook, phase, state, step, of, now)
        times = {name: None if value is None else round(value, 1) for name, value in left.items()}
        event = {"event": "progress", "phase": phase, "step": step, "of": of, **times}
        self.emit(event | ({} if case is None else {"case": case}))

    def expect(self, phases: Sequence[tuple[str, float]], *, like: str) -> None:
        """Tell what the job has before it, see `Outlook`: progress then says what is left of all of it, too."""
        with self._lock:
            self._outlook = Outlook(phases, like=like)

    def _job_left(self, outlook: Outlook, phase: str, state: Phase, step: float, of: float, now: float) -> float | None:
        if phase == outlook.like and step >= of:
            outlook.seconds_a_step = state.seconds_a_step()
        outlook.begin(phase)
        return outlook.left(self._phases.get(outlook.current), now)

    def case_failed(self, case: str, error: BaseException) -> None:
        """Tell that a case could not be done; the others go on."""
        self.write_log(f"Case {case} failed.", error)
        readable = explain(error, log=str(self.log_file))
        self.failed_cases.append(case)
        self.emit({"event": "case_failed", "case": case, "code": str(readable.code), "text": str(readable)})

    def exit_code(self) -> int:
        """Exit code of a job that came to its end."""
        return EXIT_SOME_CASES_FAILED if self.failed_cases else EXIT_DONE

    def cancel(self) -> None:
        """Ask the job to stop at its next safe point."""
        with self._wake:
            self._cancelled = True
            self._wake.notify_all()

    def pause(self) -> None:
        """Ask the job to wait at its next safe point."""
        with self._wake:
            self._paused = True

    def resume(self) -> None:
        """Let a paused job go on."""
        with self._wake:
            self._paused = False
            self._wake.notify_all()

    @property
    def is_cancelled(self) -> bool:
        """Whether the job has been asked to stop."""
        return self._cancelled

    def check_cancelled(self) -> None:
        """A safe point: return at once, wait while the job is paused, or stop it.

        Raises:
            Cancelled: if the job has been asked to stop.
        """
        if self._paused and not self._cancelled:
            self._wait_while_paused()
        if self._cancelled:
            raise Cancelled

    def _wait_while_paused(self) -> None:
        before = self._clock()
        self.emit({"event": "paused"})
        with self._wake:
            self._wake.wait_for(lambda: self._cancelled or not self._paused)
        with self._lock:
            self._waited += self._clock() - before
        self.emit({"event": "resumed"})

    def log_to(self, folder: Path) -> None:
        """Keep the log in the job's own folder from now on, once the job has made or claimed that folder."""
        self._log_file = folder / "log.txt"

    @property
    def log_file(self) -> Path:
        """The file that receives warnings and tracebacks; it exists once there is one."""
        if self._log_file is None:
            started = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            self._log_file = user_dir() / "logs" / f"{started}-{os.getpid()}-{self.job or 'job'}.txt"
        return self._log_file

    def write_log(self, text: str, error: BaseException | None = None) -> None:
        """Append ``text`` and the traceback of ``error`` to the log file. A log that cannot be written stops no job."""
        lines = [time.strftime("%Y-%m-%d %H:%M:%S ", time.gmtime()) + text + "\n"]
        if error is not None and not isinstance(error, Cancelled):
            lines += traceback.format_exception(error)
        with self._lock, contextlib.suppress(OSError):
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            if not self.log_file.exists():
                _remove_old_logs(self.log_file.parent)
            with self.log_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(lines)


def _remove_old_logs(folder: Path) -> None:
    if folder == user_dir() / "logs":
        for old in sorted(folder.glob("*.txt"))[: 1 - _LOGS_KEPT]:
            old.unlink(missing_ok=True)


def is_fatal_for_batch(error: ForgettableSegError) -> bool:
    """Whether an error of one case would be the same for every other case, so that going on is of no use."""
    return error.code in ("DISK_FULL", "OUTPUT_UNWRITABLE", "PACKAGE_MISSING", "DEVICE_UNAVAILABLE")
