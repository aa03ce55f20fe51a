"""What a run tells while it goes on: events to whoever listens, and the files of the run folder."""

from __future__ import annotations

import contextlib
import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ForgettableSegLib.training.files import whole_text_file


class Listener(Protocol):
    """Who follows a run (a job's context is one)."""

    def metric(self, name: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Numbers to be plotted."""

    def progress(self, phase: str, step: float, of: float, *, case: str | None = None) -> None:
        """How far a phase has come."""

    def log(self, text: str) -> None:
        """What goes on."""

    def warning(self, text: str, *, case: str | None = None) -> None:
        """What the user should know although the run goes on."""

    def artifact(self, kind: str, path: Path | str, *, case: str | None = None) -> None:
        """A file that is complete."""

    def case_failed(self, case: str, error: BaseException) -> None:
        """A case that could not be used."""

    def check_cancelled(self) -> None:
        """A safe point: raises Cancelled if the run is to stop."""

    @property
    def is_cancelled(self) -> bool:
        """Whether the run is to stop."""


HISTORY_COLUMNS = (
    "iteration",
    "learning_rate",
    "loss",
    "main_loss",
    "replay_loss",
    "aux_loss",
    "consistency_loss",
    "T1",
    "T2",
    "T3",
    "T4",
    "score",
    "admitted",
    "suspects",
    "bank_size",
    "replays",
    "validation_dice",
)

BANK_HISTORY = "bank_history.jsonl"

# Events of every iteration would only fill the pipe: a curve needs a point now and then.
METRIC_INTERVAL_S = 0.25


class Recorder:
    """Tells the listener and writes log.jsonl and history.csv; on ranks other than 0 it is silent.

    Args:
        listener: who follows the run.
        folder: the run folder.
        is_main: whether this process speaks for the run.
    """

    def __init__(self, listener: Listener, folder: Path, *, is_main: bool = True) -> None:
        self.listener = listener
        self.folder = folder
        self.is_main = is_main
        self._rows: list[dict[str, Any]] = []
        self._last_sent = 0.0
        self._told_locked = False

    def metric(self, name: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Send numbers to be plotted, and log them."""
        if self.is_main:
            self.listener.metric(name, iteration, values)
            self._append({"event": "metric", "name": name, "iteration": iteration, "values": dict(values)})

    def warning(self, text: str) -> None:
        """Warn, and log it."""
        if self.is_main:
            self.listener.warning(text)
            self._append({"event": "warning", "text": text})

    def log(self, text: str) -> None:
        """Tell and log what goes on."""
        if self.is_main:
            self.listener.log(text)
            self._append({"event": "log", "text": text})

    def progress(self, phase: str, step: float, of: float) -> None:
        """Tell how far a phase has come."""
        if self.is_main:
            self.listener.progress(phase, step, of)

    def iteration(self, row: Mapping[str, float], *, replays: int, capacity: int) -> None:
        """Keep the numbers of an iteration, and send them if the last were sent long enough ago.

        Args:
            row: the columns of `HISTORY_COLUMNS`.
            replays: samples replayed so far.
            capacity: of the bank.
        """
        if not self.is_main:
            return
        self._rows.append({**row, "replays": replays})
        now = time.monotonic()
        if now - self._last_sent < METRIC_INTERVAL_S and "validation_dice" not in row:
            return
        self._last_sent = now
        iteration = int(row["iteration"])
        losses = {"total": row["loss"], "main": row["main_loss"], "replay": row.get("replay_loss")}
        losses |= {"auxiliary": row.get("aux_loss"), "consistency": row.get("consistency_loss")}
        self.metric("loss", iteration, {name: value for name, value in losses.items() if value is not None})
        if "score" in row:
            self.metric("scores", iteration, {name: row[name] for name in ("T1", "T2", "T3", "T4", "score")})
        if "bank_size" in row:
            bank = {"size": row["bank_size"], "capacity": capacity, "replays": replays}
            self.metric("bank", iteration, {**bank, "admitted": row["admitted"], "suspects": row["suspects"]})

    def bank(self, iteration: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write the bank of this process to bank.json, and its places to bank_history.jsonl (the last line holds).

        Args:
            iteration: iterations done.
            entries: see `bank_entries`.
        """
        if not self.is_main:
            return
        path = self.folder / "bank.json"
        with whole_text_file(path) as stream:
            stream.write(json.dumps(entries, indent=1))
        self.listener.artifact("bank", path)
        places = [[entry["case"], entry["slice"], entry["class"]] for entry in entries]
        with (self.folder / BANK_HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"iteration": iteration, "samples": places}) + "\n")

    def flush(self) -> None:
        """Write the rows kept so far to history.csv."""
        if not self.is_main or not self._rows:
            return
        path = self.folder / "history.csv"
        is_new = not path.exists()
        try:
            with path.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, HISTORY_COLUMNS, restval="")
                if is_new:
                    writer.writeheader()
                writer.writerows(self._rows)
        except PermissionError:  # open in another program, on Windows: the rows wait, and the training goes on
            if not self._told_locked:
                self._told_locked = True
                self.warning(f"{path} is open in another program; it is written once it is closed there.")
        else:
            self._rows.clear()

    def rewind(self, iteration: int) -> None:
        """Drop what the histories tell of iterations that a resumed run does again."""
        if self.is_main:
            self._rewind_bank(iteration)
        path = self.folder / "history.csv"
        if not self.is_main or not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as stream:
            # A kill can leave half a line at the end: whatever does not read as a row is dropped too.
            rows = [row for row in csv.DictReader(stream) if (row["iteration"] or "").isdigit() and row["loss"]]
        kept = [row for row in rows if int(row["iteration"]) < iteration]
        with whole_text_file(path) as stream:
            writer = csv.DictWriter(stream, HISTORY_COLUMNS, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def _rewind_bank(self, iteration: int) -> None:
        path = self.folder / BANK_HISTORY
        if path.exists():
            lines = (json.dumps(entry) + "\n" for entry in read_bank_history(path) if entry["iteration"] <= iteration)
            with whole_text_file(path) as stream:
                stream.writelines(lines)

    def _append(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({**event, "time": round(time.time(), 3)})
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def read_bank_history(path: Path) -> list[dict[str, Any]]:
    """The snapshots of a bank in order, {"iteration", "samples": [[case, slice, class]]}; none if there is no file."""
    snapshots: dict[int, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):  # a kill can leave half a line at the end
                entry = json.loads(line)
                snapshots[entry["iteration"]] = entry
    return [snapshots[iteration] for iteration in sorted(snapshots)]
