"""The job `forgetting`: what a training learnt, forgot and never learnt, as tables and a report."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import open_output, to_json, write_table, write_text
from ForgettableSegLib.jobs.requests import ForgettingRequest

if TYPE_CHECKING:
    from ForgettableSegLib.training.config import RunConfig

SCHEMA = 1
TABLE_FILE, JSON_FILE, REPORT_FILE = "forgetting.csv", "forgetting.json", "forgetting.html"
MOST_PICTURES = 30
_WHOLE = ("slice", "looks", "learnt", "forgetting_events", "first_learnt", "prepared_slice")
_TEXT = ("case", "axis", "class", "group", "wanted")


def run(request: ForgettingRequest, context: JobContext) -> JobResult:
    """Sort and sum up what the run noted.

    Raises:
        ForgettableSegError: RUN_MISMATCH if the folder holds no run, or one without such notes.
    """
    from ForgettableSegLib.training.config import RunConfig

    folder = Path(request.run).absolute()
    config = RunConfig.read(folder)
    rows = read_dynamics(folder)
    output = open_output(request.output, config.cases, context)
    groups = Counter(row["group"] for row in rows)
    names = list(dict.fromkeys(row["class"] for row in rows))
    by_class = [
        {"class": name, **Counter(row["group"] for row in rows if row["class"] == name)} for name in sorted(names)
    ]
    rows.sort(key=_most_forgotten_first)
    content = {"schema": SCHEMA, "run": str(folder), "groups": dict(groups), "classes": by_class, "samples": rows}
    report = _report(content, config, context, images=request.images)
    paths = [
        write_table(output / TABLE_FILE, rows),
        write_text(output / JSON_FILE, to_json(content)),
        write_text(output / REPORT_FILE, report),
    ]
    for path in paths:
        context.artifact("report" if path.suffix == ".html" else "table", path)
    told = ", ".join(f"{number} {group}" for group, number in groups.most_common())
    text = f"{len(rows)} samples: {told}.\nTables and report are in {output}."
    return JobResult(context.exit_code(), {"output": str(output), "groups": dict(groups)}, text)


def read_dynamics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's dynamics.csv, numbers as numbers.

    Raises:
        ForgettableSegError: RUN_MISMATCH if there is none, or it is no such table.
    """
    from ForgettableSegLib.training.tables import DYNAMICS_FILE

    path = folder / DYNAMICS_FILE
    if not path.is_file():
        message = f"The run in {folder} has no {DYNAMICS_FILE}: it was trained without looks at its cases."
        hint = "Train with the setting dynamics, which is on by default."
        raise ForgettableSegError(ErrorCode.RUN_MISMATCH, message, hint=hint)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [_typed(row) for row in csv.DictReader(stream)]
    except (OSError, ValueError, TypeError) as error:
        message = f"{path} cannot be read as the table of a run: {error}."
        raise ForgettableSegError(ErrorCode.RUN_MISMATCH, message, hint="Restore it from the run.") from error


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: value if name in _TEXT else int(value) if name in _WHOLE else float(value) for name, value in row.items()
    }


def _most_forgotten_first(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Never learnt first, then by events; the less confident first."""
    order = ("never learnt", "highly forgettable", "moderately forgettable", "unforgettable", "unknown")
    return order.index(row["group"]), -row["forgetting_events"], row["confidence"], row["case"], row["slice"]


def _report(content: Mapping[str, Any], config: RunConfig, context: JobContext, *, images: bool) -> str:
    from ForgettableSegLib.evaluation import pages
    from ForgettableSegLib.mining.dynamics import GROUPS

    known = [row for row in content["samples"] if row["group"] != "unknown"]
    explanation = (
        "A sample is a slice of a training case with one class, and 'background' is all that the labels do not have "
        "there. Upper left: easy; right: ambiguous; lower left: hard, or labelled wrongly. Blue was right at every "
        "look, red never."
    )
    points = [(row["variability"], row["confidence"], row["correctness"]) for row in known]
    parts = [pages.paragraph(explanation), pages.dynamics_plot(points)]
    parts += [pages.heading("Samples by group"), pages.table(content["classes"], ("class", *GROUPS))]
    worst = [row for row in known if row["group"] in ("never learnt", "highly forgettable")][:MOST_PICTURES]
    if images and worst:
        parts.append(pages.heading("Never learnt or most forgotten (label yellow)"))
        parts += _pictures(worst, config, context)
    columns = ("case", "axis", "slice", "class", "group", "forgetting_events", "confidence", "variability", "wanted")
    parts += [pages.heading("The first 200 of the table"), pages.table(content["samples"][:200], columns)]
    return pages.page(f"What {config.name} learnt and forgot", parts)


def _pictures(rows: Sequence[Mapping[str, Any]], config: RunConfig, context: JobContext) -> list[str]:
    import numpy as np

    from ForgettableSegLib.cases.cache import CaseCache
    from ForgettableSegLib.evaluation.pages import Picture, figure
    from ForgettableSegLib.resources import user_cache_dir

    ids = list(dict.fromkeys(row["case"] for row in rows))
    prepared = CaseCache(user_cache_dir() / "cases").prepare(
        config.select(ids),
        config.task,
        config.preprocessing,
        progress=lambda done, of, case: context.check_cancelled(),
        on_error=lambda case, error: context.case_failed(case.case_id, error),
    )
    by_id = {case.case_id: case for case in prepared}
    order = slice(None) if config.preprocessing.slice_axis == 0 else slice(None, None, -1)
    figures = []
    for row in rows:
        case = by_id.get(row["case"])
        if case is None:
            continue
        image, label = (np.array(each[row["prepared_slice"]][order]) for each in (case.image[0], case.label))
        caption = f"{row['case']}, {row['axis']} = {row['slice']}: {row['class']}, {row['group']}"
        figures.append(figure(Picture(image, label, None, tuple(case.spacing[1:])), caption))
    return figures
