"""What every row of bad input shares: good files beside it, earlier results, and how a refusal is judged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from case_volumes import blocks, grid, noise, save
from small_models import make_package

from ForgettableSegLib import cli
from ForgettableSegLib.errors import ErrorCode
from ForgettableSegLib.worker.protocol import encode_event

SHAPE = (3, 16, 16)
TASK: dict[str, Any] = {
    "name": "abdomen",
    "modality": "MR",
    "channels": ["T2"],
    "classes": [{"name": "liver", "value": 1}, {"name": "spleen", "value": 4}],
}
EARLIER = b"an earlier result"
# What a refused job may leave: its log, and the lock of a run folder.
_OF_REFUSED_JOBS = {"log.txt", "log.jsonl", ".lock"}
# A job of which single cases fail also writes what its summary says of them.
_OF_JOBS_WITH_FAILED_CASES = _OF_REFUSED_JOBS | {"summary.csv", "summary.json"}


@dataclass(frozen=True)
class Good:
    """Sound files that a row spoils one of.

    Args:
        folder: of the row's own, with earlier results in `out`, `run` and `exported`.
        model: a model package.
        image, label: a case.
    """

    folder: Path
    model: Path
    image: Path
    label: Path

    @property
    def out(self) -> Path:
        """A folder of results, in which there are some."""
        return self.folder / "out"

    @property
    def task(self) -> Path:
        """A task file."""
        return self.write("task.json", TASK)

    def write(self, name: str, content: Any) -> Path:
        """A file of the row's own: bytes, text, or anything else as JSON."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def table(self, image: Path | str | None = None, label: Path | str | None = None, **columns: str) -> Path:
        """A case list of one case, "bad"."""
        row = {"id": "bad", "image": str(image or self.image), "label": str(label or self.label), **columns}
        return self.write("cases.csv", "\n".join([",".join(row), ",".join(row.values())]))

    def segment(self, source: Path | str) -> list[str]:
        """Command that segments."""
        return ["segment", str(source), *self._with_model(), "--no-heatmap"]

    def audit(self, label: Path | str) -> list[str]:
        """Command that compares the model with a label."""
        return ["audit", str(self.table(label=label)), *self._with_model()]

    def validate(self, cases: Path | str, task: Path | None = None) -> list[str]:
        """Command that looks for defects."""
        return ["validate", str(cases), "--task", str(task or self.task)]

    def train(self, *settings: str, cases: Path | str | None = None) -> list[str]:
        """Command that trains, each setting as NAME=VALUE."""
        assignments = [f"--set={setting}" for setting in ("text=onehot", *settings)]
        run = str(self.folder / "run")
        return ["train", str(cases or self.table()), "--task", str(self.task), "--run", run, *assignments]

    def _with_model(self) -> list[str]:
        return ["--model", str(self.model), "--output", str(self.out), "--device", "cpu"]


@dataclass(frozen=True)
class Row:
    """One kind of bad input.

    Args:
        name: of the row.
        code: error code that it must be refused with.
        names: pattern of what the sentence must name.
        command: makes the bad input and returns the arguments of the command line.
        exit_code: 2 where the request is refused, 1 where its case is.
        like: another row that may be refused with the same words.
    """

    name: str
    code: str
    names: str
    command: Callable[[Good], list[str]]
    exit_code: int = 2
    like: str = ""


def make_good(folder: Path, model: Path) -> Good:
    """Sound files and earlier results."""
    geometry = grid(SHAPE, spacing=(1.25, 1.25, 4.0))
    image = save(folder / "image.nii.gz", noise(SHAPE), geometry)
    label = save(folder / "label.nii.gz", blocks(SHAPE), geometry)
    good = Good(folder, model, image, label)
    for name in ("out/bad/bad_segmentation.nrrd", "out/report.csv", "run/notes.txt", "exported/notes.txt"):
        good.write(name, EARLIER)
    return good


def make_model(folder: Path) -> Path:
    """A tiny model of `TASK`."""
    return make_package().write(folder / "abdomen")


def tree(*folders: Path) -> dict[Path, bytes]:
    """Every file with its content."""
    return {file: file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


def refused(row: Row, good: Good, home: Path, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> str:
    """Run a row through the command line, check that it is refused well, and return the sentence without its paths."""
    command = row.command(good)
    before = tree(good.folder, good.model, home)
    events: list[dict[str, Any]] = []

    def heard() -> Callable[[dict[str, Any]], None]:
        show = console()

        def sink(event: dict[str, Any]) -> None:
            encode_event(event)
            events.append(event)
            show(event)

        return sink

    console = cli.console
    patch.setattr(cli, "console", heard)
    code = cli.main(command)
    shown = "".join(capfd.readouterr())
    sentence = _sentence_of(row, events)
    assert code == row.exit_code, shown
    assert re.search(row.names, sentence), sentence
    assert sentence in shown
    assert "Traceback" not in shown
    assert 'File "' not in shown
    _check_tree(before, tree(good.folder, good.model, home), row)
    _check_log(good, home)
    return sentence.replace(str(good.folder), "FOLDER")


def _sentence_of(row: Row, events: list[dict[str, Any]]) -> str:
    """The sentence of the error that the row is about, with its documented code."""
    kind = "failed" if row.exit_code == 2 else "case_failed"
    errors = [event for event in events if event["event"] == kind]
    assert len(errors) == 1, events
    error = errors[0]
    assert error["code"] in set(ErrorCode)
    assert error["code"] == row.code, error
    assert "\n" not in error["text"]
    assert error["text"].rstrip().endswith((".", "?", ")")), error["text"]
    return error["text"]


def _check_tree(before: dict[Path, bytes], after: dict[Path, bytes], row: Row) -> None:
    changed = [path for path, content in before.items() if after.get(path) != content]
    assert changed == []
    allowed = _OF_REFUSED_JOBS if row.exit_code == 2 else _OF_JOBS_WITH_FAILED_CASES
    own = [path for path in set(after) - set(before) if ".cache" not in path.parts]  # matplotlib's list of fonts
    new = [path for path in own if path.name not in allowed and path.parent.name != "logs"]
    assert new == []


def _check_log(good: Good, home: Path) -> None:
    logs = [*good.folder.rglob("log.txt"), *(home / ".forgettableseg" / "logs").glob("*.txt")]
    assert any("Traceback (most recent call last)" in log.read_text(encoding="utf-8") for log in logs)
