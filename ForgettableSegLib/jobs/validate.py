"""The job `validate`: everything that would spoil a training on these cases, in one list."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.classes import classes_to_train
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.inputs import load_cases, load_task
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import ValidateRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.cases.task import Task


def run(request: ValidateRequest, context: JobContext) -> JobResult:
    """Send a finding for every defect; the exit code is 1 if a case cannot be used.

    Without a task, the result's task is None and its values are those that the labels hold, to be given names. With a
    model, the labels are looked at as fine-tuning it would read them.

    Raises:
        ForgettableSegError: if the case list or the task cannot be read.
        Cancelled: at the next case.
    """
    from ForgettableSegLib.cases.facts import facts_table, values_found
    from ForgettableSegLib.cases.validation import examine_cases

    cases = load_cases(request.cases, load_task(request.task))
    if request.model is not None:
        cases = classes_to_train(cases, _task_of(request.model), context, is_given=request.task is not None)
    task = cases.task

    def progress(done: int, of: int, case_id: str) -> None:
        context.check_cancelled()
        context.progress("validate", done, of, case=case_id or None)

    found, facts = examine_cases(cases, task, progress=progress)
    findings = [
        {
            "severity": str(finding.severity),
            "code": str(finding.code),
            "case": finding.case_id,
            "path": None if finding.path is None else str(finding.path),
            "text": finding.message,
        }
        for finding in found
    ]
    for finding in findings:
        context.emit({"event": "finding", **finding})
    errors = sum(finding["severity"] == "error" for finding in findings)
    lines = [f"{len(cases)} cases: {errors} errors, {len(findings) - errors} warnings."]
    if task is None:
        lines.append(
            f"No task says what the label values mean. Write one, for example {_task_for(values_found(facts))}"
        )
    result = {
        "cases": len(cases),
        "errors": errors,
        "task": None if task is None else task.to_dict(),
        "values": values_found(facts),
        "facts": [each.to_dict() for each in facts],
        "findings": findings,
        "case_list": [_as_item(case) for case in cases],
    }
    return JobResult(
        EXIT_SOME_CASES_FAILED if errors else EXIT_DONE, result, "\n".join([facts_table(facts, task), *lines])
    )


def _task_of(model: str) -> Task:
    from ForgettableSegLib.cases.task import Task
    from ForgettableSegLib.models.archive import read_card
    from ForgettableSegLib.models.registry import find_model

    return Task.from_dict(read_card(find_model(model), verify=False)["task"])


def _task_for(values: list[dict[str, int]]) -> str:
    """The JSON of a task for these label values, with the names left to be filled in."""
    classes = [{"name": f"class {each['value']}", "value": each["value"]} for each in values]
    return json.dumps({"name": "my task", "modality": "MR", "channels": ["T1"], "classes": classes})


def _as_item(case: Case) -> dict[str, Any]:
    """The case as a request names it, so that a client can show the list and ask for a part of it."""
    item = {"id": case.case_id, "group": case.group, "images": [str(path.absolute()) for path in case.images]}
    item |= {} if case.label is None else {"label": str(case.label.absolute())}
    item |= {"text": case.text} if case.text else {}
    return item | ({"label_values": {str(old): new for old, new in case.label_values}} if case.label_values else {})
