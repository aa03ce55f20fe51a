"""What a job's events mean for the person at the screen: how far it is, what went wrong, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .i18n import tr as _

FINAL = frozenset({"done", "failed", "cancelled"})
PROGRESS_STEPS = 1000
TIMED_PHASES = frozenset({"segment", "audit", "evaluate", "train", "validate"})
"""The phases that a job spends its time in; how long a shorter one before or after them takes is not said."""

_FIRST_SHARE = 0.05
_DOUBT = 1.5
_MAX_PROBLEMS = 20


def phaseTitle(phase: str) -> str:
    """Return how a phase of a job is called on the screen."""
    titles = {
        "segment": _("Segmenting"),
        "train": _("Training"),
        "validate the model": _("Validating the model"),
        "validate": _("Checking the cases"),
        "audit": _("Comparing with the reference"),
        "check": _("Checking the device"),
        "calibrate": _("Calibrating the heatmap"),
    }
    return titles.get(phase, phase.replace("_", " ").capitalize())


def remainingText(seconds: float | None) -> str:
    """Return the remaining time in words, or an empty text where it is not known."""
    if seconds is None or seconds < 0:
        return ""
    if seconds < 60:
        return _("{count} s left").format(count=max(1, round(seconds)))
    if seconds < 3600:
        return _("{count} min left").format(count=round(seconds / 60))
    hours, minutes = divmod(round(seconds / 60), 60)
    return _("{hours} h {minutes} min left").format(hours=hours, minutes=minutes)


@dataclass
class JobState:
    """A job as the screen shows it; :meth:`hear` takes each event.

    Args:
        title: what the job does, for the first moments.
        codes: why cases, or the whole job, failed.
    """

    title: str
    running: bool = True
    paused: bool = False
    phase: str = ""
    step: float = 0.0
    of: float = 0.0
    left: float | None = None
    case: str = ""
    outcome: str = ""
    message: str = ""
    log: str = ""
    problems: list[str] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    result: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    _said: float | None = None

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take one event of the job."""
        kind = event["event"]
        if kind == "progress":
            if event["phase"] != self.phase:
                self._said = None
            self.phase, self.step, self.of = event["phase"], float(event["step"] or 0), float(event["of"] or 0)
            whole = event.get("job_eta_s")
            self.left = self._timeLeft(event.get("eta_s") if whole is None else whole)
            self.case = event.get("case") or ""
        elif kind in ("paused", "resumed"):
            self.paused = kind == "paused"
        elif kind == "artifact":
            self.artifacts.append(dict(event))
        elif kind in ("warning", "case_failed"):
            case = event.get("case")
            self.codes.update([event["code"]] if kind == "case_failed" else ())
            self._note(f"{case}: {event['text']}" if case else event["text"])
        elif kind in FINAL:
            self._finish(kind, event)

    def fraction(self) -> float | None:
        """How far the phase is, from 0 to 1, or None where it cannot be said."""
        return min(1.0, self.step / self.of) if self.of else None

    def text(self) -> str:
        """Return the line beside the progress bar."""
        if not self.running:
            return "\n".join([self.message, *self.problems]).strip()
        if self.paused:
            return _("Paused")
        parts = [phaseTitle(self.phase) if self.phase else self.title]
        if self.of > 1:  # while a case is at work, the step counts the cases that are done
            number = min(int(self.step) + 1, int(self.of)) if self.case else int(self.step)
            parts += [self.case] if self.case else []
            parts.append(_("{step} of {count}").format(step=number, count=int(self.of)))
        remaining = remainingText(self.left)
        return " · ".join([*parts, remaining] if remaining else parts)

    def _timeLeft(self, estimate: float | None) -> float | None:
        """The time that is said to be left, in seconds: it never grows, and nothing is said while it would be wrong.

        The first estimates are not believed; one that is a little longer than what was said leaves that as it is, and
        while one is much longer, nothing is said.
        """
        if estimate is None or self.phase not in TIMED_PHASES or (self.fraction() or 0.0) < _FIRST_SHARE:
            return None
        if self._said is None or estimate <= self._said:
            self._said = estimate
        return self._said if estimate <= _DOUBT * self._said else None

    def _note(self, problem: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def _finish(self, kind: str, event: Mapping[str, Any]) -> None:
        self.running, self.paused, self.outcome = False, False, kind
        if kind == "failed":
            self.message = f"{event['text']} {event.get('hint') or ''}".strip()
            self.log = event.get("log") or ""
            self.codes.add(event["code"])
        elif kind == "cancelled":
            resumable = event.get("resumable")
            self.message = _("Cancelled. The run is kept and can be resumed.") if resumable else _("Cancelled.")
            self.result = {"resumable": resumable}
        else:
            self.result = dict(event.get("result") or {})
            some = event.get("exit_code") == 1
            self.message = _("Finished, but some cases failed.") if some else _("Finished.")


def logLine(event: Mapping[str, Any]) -> str:
    """Return the line that an event leaves in the log, or an empty text where it leaves none."""
    kind = event["event"]
    if kind in ("log", "warning"):
        return event["text"]
    if kind == "started":
        return _("Started: {job}").format(job=event["job"])
    if kind == "case_failed":
        return _("Case {case} failed: {text}").format(case=event["case"], text=event["text"])
    if kind == "artifact":
        return _("Wrote {path}").format(path=event["path"])
    if kind == "failed":
        return "\n".join(filter(None, [event["text"], event.get("hint"), event.get("log")]))
    if kind == "cancelled":
        return _("Cancelled.")
    return _("Finished.") if kind == "done" else ""
