"""The job `validate`: everything that would spoil a training on these cases, in one list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.inputs import load_cases, load_task, require_task
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import ValidateRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case


def run(request: ValidateRequest, context: JobContext) -> JobResult:
    """Send a finding for every defect; the exit code is 1 if a case cannot be used.

    Raises:
        ForgettableSegError: if the case list or the task cannot be read.
        Cancelled: at the next case.
    """
    from ForgettableSegLib.cases.validation import validate_cases

    cases = load_cases(request.cases, load_task(request.task))
    task = require_task(cases.task, cases.source if isinstance(request.cases, str) else "The request")

    def progress(done: int, of: int, case_id: str) -> None:
        context.check_cancelled()
        context.progress("validate", done, of, case=case_id or None)

    findings = [
        {
            "severity": str(finding.severity),
            "code": str(finding.code),
            "case": finding.case_id,
            "path": None if finding.path is None else str(finding.path),
            "text": finding.message,
        }
        for finding in validate_cases(cases, task, progress=progress)
    ]
    for finding in findings:
        context.emit({"event": "finding", **finding})
    errors = sum(finding["severity"] == "error" for finding in findings)
    text = f"{len(cases)} cases: {errors} errors, {len(findings) - errors} warnings."
    result = {
        "cases": len(cases),
        "errors": errors,
        "task": task.to_dict(),
        "findings": findings,
        "case_list": [_as_item(case) for case in cases],
    }
    return JobResult(EXIT_SOME_CASES_FAILED if errors else EXIT_DONE, result, text)


def _as_item(case: Case) -> dict[str, Any]:
    """The case as a request names it, so that a client can show the list and ask for a part of it."""
    item = {"id": case.case_id, "group": case.group, "images": [str(path.absolute()) for path in case.images]}
    item |= {} if case.label is None else {"label": str(case.label.absolute())}
    return item | ({"label_values": {str(old): new for old, new in case.label_values}} if case.label_values else {})
