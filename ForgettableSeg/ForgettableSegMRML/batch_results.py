"""What the batch script leaves in a case's folder: a .seg.nrrd in place of the worker's label map, and the summary."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ForgettableSegError

from .headless import HeadlessSession
from .segmentations import loadLabelMap, readTask, writeSegmentation

_SUMMARY = "summary.csv"
_AUDIT = ".audit"


class CaseResults:
    """Hears the events of the worker and turns its files into what Slicer opens.

    Args:
        output: folder of the batch.
        task: of the model.
        say: hears what was done.
        complain: hears what went wrong.
    """

    def __init__(
        self, output: Path, task: Task, *, say: Callable[[str], None], complain: Callable[[str], None]
    ) -> None:
        self.segmented: list[str] = []
        self.auditFolder = output / _AUDIT
        self.evaluation: Path | None = None  # report of the worker, once there is one
        self._output = output
        self._task = task
        self._say = say
        self._complain = complain
        self._failed: list[str] = []
        self._meanwhile: list[Path] = []  # files that the .seg.nrrd files take the place of
        self._session = HeadlessSession()

    def onComparisonEvent(self, event: dict[str, Any]) -> None:
        """Note which cases could not be compared."""
        if event["event"] == "case_failed" and event["case"] not in self._failed:
            self._failed.append(event["case"])

    def onSegmentEvent(self, event: dict[str, Any]) -> None:
        """Write a `.seg.nrrd` for each label map; take away that of an earlier run where the case failed now."""
        self.onComparisonEvent(event)
        if event["event"] == "case_failed":
            self._segmentationFile(event["case"]).unlink(missing_ok=True)
        if event["event"] == "artifact" and event["kind"] == "segmentation":
            self._convert(event["case"], Path(event["path"]))

    def onAuditEvent(self, event: dict[str, Any]) -> None:
        """Put the maps of an audit beside the segmentation."""
        self.onComparisonEvent(event)
        if event["event"] == "artifact" and event.get("case"):
            path = Path(event["path"])
            name = f"{event['case']}_audit.json" if event["kind"] == "review" else path.name
            path.replace(self._output / event["case"] / name)

    def compared(self) -> list[str]:
        """Return the cases that had a reference."""
        dice = self._dice()
        return [case for case in self.segmented if case in dice]

    def finish(self) -> list[str]:
        """Complete the summary, take away what is only of use meanwhile, and return the cases that failed."""
        if self.evaluation is not None:
            for case in sorted({*self.segmented} - {*self.compared()} - {*self._failed}):
                self._complain(f"Warning: there is no reference for case {case}.")
        for path in self._meanwhile:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.auditFolder, ignore_errors=True)
        self._completeSummary()
        return self._failed

    def _segmentationFile(self, case: str) -> Path:
        return self._output / case / f"{case}.seg.nrrd"

    def _convert(self, case: str, labelMap: Path) -> None:
        node = self._session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", case)
        try:
            own = labelMap.with_name(f"{case}_task.json")
            task = readTask(own) if own.is_file() else self._task
            loadLabelMap(node, labelMap, task.classes)
            writeSegmentation(node, self._segmentationFile(case))
        except ForgettableSegError as error:
            self._failed.append(case)
            self._complain(f"Case {case} failed: {error}")
            return
        finally:
            self._session.scene.RemoveNode(node)
        self._meanwhile += [labelMap, own]
        self.segmented.append(case)
        self._say(f"{case}: {self._segmentationFile(case)}")

    def _completeSummary(self) -> None:
        """Add the segmentation's file and the Dice of each class to the table that the worker wrote."""
        path = self._output / _SUMMARY
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        dice = self._dice()
        for row in rows:
            case = row["case"]
            row["segmentation"] = f"{case}/{case}.seg.nrrd" if case in self.segmented else ""
            row |= {f"{name} Dice": value for name, value in dice.get(case, {}).items()}
        columns = list(dict.fromkeys(name for row in rows for name in row))
        draft = path.with_suffix(".tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(path)

    def _dice(self) -> dict[str, dict[str, str]]:
        """Dice by case and class, if this run compared with references."""
        if self.evaluation is None:
            return {}
        found: dict[str, dict[str, str]] = {}
        for row in json.loads(self.evaluation.read_text(encoding="utf-8"))["cases"]:
            value = row["dice"]
            found.setdefault(row["case"], {})[row["name"]] = "" if value is None else f"{value:.4f}"
        return found
