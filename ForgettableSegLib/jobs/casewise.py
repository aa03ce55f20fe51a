"""The frame of the jobs that ask a model about one case after the other, `segment` and `audit`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.arguments import DICOM_SEG, FILE_FORMATS
from ForgettableSegLib.jobs.classes import labels_of_model
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.inputs import load_cases, load_predictor, rank_device
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import (
    CaseFolder,
    OtherFile,
    failed_ids,
    for_each_case,
    gather,
    open_output,
    to_json,
    write_table,
    write_text,
)

if TYPE_CHECKING:
    import numpy as np

    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.cases.geometry import Geometry
    from ForgettableSegLib.inference.predictor import Predictor
    from ForgettableSegLib.jobs.requests import AuditRequest, SegmentRequest

PHASES = {
    "prepare": (0.0, 0.05),
    "locate": (0.0, 0.05),
    "predict": (0.05, 0.8),
    "restore": (0.8, 0.9),
    "review": (0.9, 0.95),
}
"""Share of a case's work at which each phase of the predictor begins and ends."""

_TABLE, _SUMMARY = "summary.csv", "summary.json"
_PATIENCE_S = 10.0

Rows = Sequence[Mapping[str, Any]]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class CaseOutcome:
    """What a job found of a case.

    Args:
        volumes: arrays to write, by kind.
        geometry: of the volumes.
        review: content of the review file; None for none.
        notes: sentences for the user.
        seconds: wall time by phase.
        cells: of the case's row in the summary.
        others: files that are no volumes, by kind.
    """

    volumes: Mapping[str, np.ndarray]
    geometry: Geometry
    review: Mapping[str, Any] | None
    notes: Sequence[str]
    seconds: Mapping[str, float]
    cells: Mapping[str, Any]
    others: Mapping[str, OtherFile] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CaseJob:
    """What one of these jobs does.

    Args:
        phase: word for the progress.
        verb: begins the sentence that tells how many cases are done.
        kinds: every kind of file that the job may put into the folder of a case.
        table_kind: kind of artifact that the summary is.
        compute: asks the model about a case; is given what to call with phase, step and number of steps.
        reads_labels: whether the labels of the cases matter.
        headlines: lines before the sentence, of the rows that are done.
    """

    phase: str
    verb: str
    kinds: Sequence[str]
    table_kind: str
    compute: Callable[[Predictor, Case, Progress], CaseOutcome]
    reads_labels: bool = False
    headlines: Callable[[Rows], list[str]] = lambda rows: []

    def run(self, request: SegmentRequest | AuditRequest, source: Any, context: JobContext) -> JobResult:
        """Do the cases one after the other and sum them up; under torchrun each rank takes its share.

        Args:
            request: of the job.
            source: of the cases, see `load_cases`.
            context: of the job.

        Raises:
            ForgettableSegError: if nothing can be done at all.
            Cancelled: what is complete stays.
        """
        from ForgettableSegLib.cases.validation import series_warnings
        from ForgettableSegLib.training.distributed import process_group

        with process_group() as group:
            context.quiet = not group.is_main
            listed = load_cases(source)
            predictor = load_predictor(request.model, str(rank_device(request.device, group)))
            task = predictor.model.task
            if listed.task is None:  # only the model knows how many channels a case has
                listed = load_cases(source, task)
            if self.reads_labels:
                listed = labels_of_model(listed, task, context, whole=True)
            cases = listed.cases
            output = open_output(request.output, cases, context)

            def one(case: Case, tell: Callable[[float], None]) -> dict[str, Any]:
                for finding in series_warnings(case):
                    context.warning(finding.message, case=case.case_id)
                found = self.compute(predictor, case, _share_teller(tell))
                for note in found.notes:
                    context.warning(note, case=case.case_id)
                tell(PHASES["review"][1])
                ending = FILE_FORMATS[0] if request.file_format == DICOM_SEG else request.file_format
                folder = CaseFolder(output, case, file_format=ending, kinds=self.kinds)
                for kind, path in folder.write(found.volumes, found.geometry, found.review, found.others).items():
                    context.artifact(kind, path, case=case.case_id)
                return {**found.cells, "seconds": round(sum(found.seconds.values()), 2)}

            model = predictor.model.name
            # A job that is cancelled or cut off leaves the summary of what is done.
            keep = partial(_write_summary, output, model)
            if group.is_distributed:
                if group.is_main:
                    _remove_summary(output)
                group.wait()
                keep = partial(_add_to_summary, output, model, [case.case_id for case in cases])
            done_here = for_each_case(context, cases, one, phase=self.phase, group=group, keep=keep)
            rows = gather(done_here, output, group)
        if not rows:
            return JobResult()
        failed = failed_ids(rows)
        table, content = _write_summary(output, model, rows)
        for path in (table, content):
            context.artifact(self.table_kind, path)
        done = [row for row in rows if row["status"] == "done"]
        sentence = f"{self.verb} {len(done)} of {len(rows)} cases with {model}; results are in {output}."
        lines = [*self.headlines(done), sentence, *([f"Failed: {', '.join(failed)}."] if failed else [])]
        result = {"output": str(output), "summary": str(content), "cases": len(rows), "failed": failed}
        return JobResult(EXIT_SOME_CASES_FAILED if failed else EXIT_DONE, result, "\n".join(lines))


def _write_summary(output: Path, model: str, rows: Rows) -> tuple[Path, Path]:
    table = write_table(output / _TABLE, rows)
    return table, write_text(output / _SUMMARY, to_json({"schema": 1, "model": model, "cases": rows}))


def _remove_summary(output: Path) -> None:
    for name in (_TABLE, _SUMMARY):
        (output / name).unlink(missing_ok=True)


def _add_to_summary(output: Path, model: str, order: Sequence[str], rows: Rows) -> None:
    """Put the rows of one of several ranks into the summary that all of them share, in the order of the cases."""
    from filelock import SoftFileLock, Timeout

    # A rank that was killed may have left the lock; the others write the whole summary at the end.
    with suppress(Timeout), SoftFileLock(output / ".summary.lock", timeout=_PATIENCE_S):
        path = output / _SUMMARY
        known = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.is_file() else []
        found = {row["case"]: row for row in (*known, *rows)}
        _write_summary(output, model, [found[case] for case in order if case in found])


def _share_teller(tell: Callable[[float], None]) -> Progress:
    """What the predictor calls with its phases, and `tell` hears as the done share of the case."""

    def progress(phase: str, step: int, of: int) -> None:
        begin, end = PHASES.get(phase, (0.0, 0.0))
        tell(begin + (end - begin) * step / of)

    return progress
