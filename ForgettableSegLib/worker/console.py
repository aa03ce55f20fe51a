"""Shows the events of a job to a person: bars on a terminal, plain lines in a file, errors as sentences."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from ForgettableSegLib.jobs.job import Event

_LINE_INTERVAL_S = 5.0


class Console:
    """Receives the events of one job.

    Results go to ``out``; progress, warnings and errors go to ``err``, so that results can be piped.

    Args:
        out: for results.
        err: for everything else; bars are drawn if it is a terminal.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._progress: _Bars | _Lines = _Bars(err) if err.isatty() else _Lines(self._say)
        self._show: dict[str, Callable[[Event], None]] = {
            "progress": self._progress.update,
            "metric": self._metric,
            "log": lambda event: self._say(event["text"]),
            "warning": lambda event: self._say(f"Warning: {_of_case(event)}{event['text']}"),
            "finding": self._finding,
            "case_failed": lambda event: self._say(f"Case '{event['case']}' failed: {event['text']}"),
            "paused": lambda event: self._say("Paused."),
            "resumed": lambda event: self._say("Going on."),
            "failed": self._failed,
            "cancelled": self._cancelled,
            "done": self._done,
        }

    def __call__(self, event: Event) -> None:
        """Show an event, if there is anything to show."""
        show = self._show.get(event["event"])
        if show is not None:
            show(event)

    def _say(self, text: str) -> None:
        self._progress.close()
        print(text, file=self._err, flush=True)

    def _metric(self, event: Event) -> None:
        values = {key: value for key, value in event["values"].items() if isinstance(value, (int, float))}
        if event["name"] == "validation":
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            self._say(f"Iteration {event['iteration']}: validation Dice {numbers}")
        elif event["name"] == "loss" and "total" in values:
            self._progress.note(f"loss {values['total']:.3f}")

    def _finding(self, event: Event) -> None:
        self._progress.close()
        print(f"{event['severity']}: {_of_case(event)}{event['text']}", file=self._out, flush=True)

    def _failed(self, event: Event) -> None:
        self._say(f"Error: {event['text']} {event['hint']}".rstrip())

    def _cancelled(self, event: Event) -> None:
        run = event["resumable"]
        self._say("Cancelled." if run is None else f"Cancelled. Go on with: forgettableseg resume '{run}'")

    def _done(self, event: Event) -> None:
        self._progress.close()
        if event.get("text"):
            print(event["text"], file=self._out, flush=True)


def _of_case(event: Event) -> str:
    return f"case '{event['case']}': " if event.get("case") else ""


def _far(event: Event, note: str) -> str:
    """How far a phase is, what it is at, and how long it and the whole job still take."""
    at_end = event["step"] >= event["of"]
    # While something is at work, the step counts what is done before it.
    step = min(int(event["step"]) + 1, event["of"]) if event.get("case") and not at_end else event["step"]
    parts = [f"{step:g} of {event['of']:g}"]
    if event.get("case"):
        parts.append(event["case"])
    if not at_end and event["eta_s"] is not None:
        parts.append(f"about {event['eta_s']:.0f} s left")
    if event.get("job_eta_s") is not None:
        parts.append(f"about {event['job_eta_s']:.0f} s to the end of the job")
    return ", ".join([*parts, note] if note else parts)


class _Bars:
    """One tqdm bar for the phase at work."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._bar: Any = None
        self._phase = ""
        self._note = ""

    def update(self, event: Event) -> None:
        from tqdm import tqdm

        if self._bar is None or self._phase != event["phase"]:
            self.close()
            self._phase, self._note = event["phase"], ""
            shape = "{desc}: {percentage:3.0f}%|{bar}|{postfix}"
            self._bar = tqdm(
                total=event["of"], desc=self._phase, file=self._err, dynamic_ncols=True, leave=True, bar_format=shape
            )
        self._bar.total = event["of"]  # a length in minutes corrects it as it goes
        self._bar.set_postfix_str(_far(event, self._note), refresh=False)
        self._bar.update(event["step"] - self._bar.n)

    def note(self, text: str) -> None:
        self._note = text

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """A line at the start and the end of a phase and every few seconds in between."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._phase = ""
        self._last = 0.0
        self._note = ""

    def update(self, event: Event) -> None:
        now = time.monotonic()
        at_end = event["step"] >= event["of"]
        if event["phase"] == self._phase and not at_end and now - self._last < _LINE_INTERVAL_S:
            return
        if event["phase"] != self._phase:
            self._note = ""
        self._phase, self._last = event["phase"], now
        self._say(f"{self._phase}: {_far(event, self._note)}")

    def note(self, text: str) -> None:
        self._note = text

    def close(self) -> None:
        """Nothing is open: every line is complete."""


def console() -> Console:
    """The console of this process's own streams."""
    return Console(sys.stdout, sys.stderr)
