"""The job `suspects`: labels that are probably wrong, with the class that the model wants instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.inputs import load_cases, load_predictor
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import failed_ids, for_each_case, open_output, to_json, write_table, write_text
from ForgettableSegLib.jobs.quarantine import reviews_of
from ForgettableSegLib.jobs.requests import SuspectsRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ForgettableSegLib.cases.case import Case, CaseList
    from ForgettableSegLib.cases.reviews import Reviews
    from ForgettableSegLib.cases.task import Task
    from ForgettableSegLib.evaluation.pages import Picture
    from ForgettableSegLib.inference.judging import Judgement

SCHEMA = 1
JSON_FILE, REPORT_FILE = "suspects.json", "suspects.html"
PREDICTED = "predicted"
MOST_PICTURES = 60
_NOT_IN_TABLES = ("position_lps", "images", "label", "label_key", "predicted", "values")
HELD_OUT, OWN = "held out", "learnt from it"


@dataclass(frozen=True)
class Judge:
    """A model, the cases that it judges, and whether it has learnt from them ("held out" or "learnt from it")."""

    model: str
    cases: Sequence[Case]
    kind: Mapping[str, str] = field(default_factory=dict)


def run(request: SuspectsRequest, context: JobContext) -> JobResult:
    """Judge the labels of every case, and write the ranking.

    Raises:
        ForgettableSegError: if no case can be judged at all.
        Cancelled: nothing is written then.
    """
    judges, listed = _judges(request, context)
    reviews = reviews_of(listed, request.reviews)
    output = open_output(request.output, listed.cases, context)
    found: dict[str, Judgement] = {}
    rows: list[dict[str, Any]] = []
    for judge in judges:
        rows += _judge(judge, request, output, context, found)
    if not found:
        message = "None of the cases could be judged; the messages above say why."
        raise ForgettableSegError(ErrorCode.CASE_INVALID, message)
    kinds = {case: kind for judge in judges for case, kind in judge.kind.items()}
    by_id = {case.case_id: case for case in listed}
    if OWN in kinds.values():
        context.warning(
            "Some cases were judged by a model that has learnt from their labels, which it may have learnt by heart; "
            "a training with --folds has a judge for each case that has not."
        )
    content = _content(found, rows, kinds, by_id, reviews, request.budget)
    content |= {"models": [judge.model for judge in judges], "task": listed.task.to_dict()}
    for row in content["cases"]:
        row |= _files(by_id[row["case"]], listed.task, output)
    paths = _write(output, content, found if request.images else {})
    for path in paths:
        context.artifact("report" if path.suffix == ".html" else "table", path)
    failed = failed_ids(rows)
    result = {"output": str(output), "suspects": str(output / JSON_FILE), "reviews": str(reviews.path)}
    result |= {"slices": len(content["slices"]), "cases": len(rows), "failed": failed}
    code = EXIT_SOME_CASES_FAILED if failed else EXIT_DONE
    return JobResult(code, result, _text(content, output, failed))


def _judges(request: SuspectsRequest, context: JobContext) -> tuple[list[Judge], CaseList]:
    """Who judges which cases, and all of these."""
    if request.run is not None:
        return _judges_of_run(Path(request.run).absolute())
    from ForgettableSegLib.jobs.classes import labels_of_model

    task = load_predictor(request.model, request.device).model.task
    listed = labels_of_model(load_cases(request.cases, task), task, context, whole=True)
    labelled = [case for case in listed if case.label is not None]
    kind = {case.case_id: "another model" for case in labelled}
    return [Judge(request.model, labelled, kind)], listed


def _judges_of_run(folder: Path) -> tuple[list[Judge], CaseList]:
    from ForgettableSegLib.cases.case import CaseList
    from ForgettableSegLib.training.config import RunConfig

    folds = sorted(folder.glob("fold*/config.json"), key=lambda path: int(path.parent.name[4:]))
    judges = []
    cases: dict[str, Case] = {}
    for own in [path.parent for path in folds] or [folder]:
        config = RunConfig.read(own)
        if not (own / "model" / "model.json").is_file():
            message = f"The run in {own} has no model yet."
            raise ForgettableSegError(ErrorCode.RUN_MISMATCH, message, hint="Wait for its end, or resume it.")
        judged = config.select(config.split.test) if folds else list(config.cases)
        trained = set(config.split.train)
        kind = {case.case_id: OWN if case.case_id in trained else HELD_OUT for case in judged}
        judges.append(Judge(str(own / "model"), judged, kind))
        cases |= {case.case_id: case for case in judged}
        task = config.task
    return judges, CaseList(tuple(cases.values()), task, folder)


def _files(case: Case, task: Task, output: Path) -> dict[str, Any]:
    """The files of a case, and the value that its label file has for each class."""
    pairs = case.label_values or tuple((value, value) for value in task.label_values)
    values = {each.name: found for found, value in reversed(pairs) for each in task.classes if each.value == value}
    predicted = str(output / PREDICTED / f"{case.folder_name}.nrrd")
    return {"images": [str(path) for path in case.images], "predicted": predicted, "values": values}


def _judge(
    judge: Judge, request: SuspectsRequest, output: Path, context: JobContext, found: dict[str, Judgement]
) -> list[dict[str, Any]]:
    """Judge the cases of one judge and keep what it finds in them; the rows say which could not be."""
    from ForgettableSegLib.cases.files import write_volume
    from ForgettableSegLib.inference.judging import judge_case
    from ForgettableSegLib.inference.run import Watch
    from ForgettableSegLib.training.distributed import ProcessGroup

    model = load_predictor(judge.model, request.device).model

    def one(case: Case, tell: Callable[[float], None]) -> dict[str, Any]:
        watch = Watch(lambda phase, step, of: tell(step / of if phase == "predict" else 0.0))
        judged = judge_case(model, case, watch=watch, pictures=request.images)
        for note in judged.notes:
            context.warning(note, case=case.case_id)
        (output / PREDICTED).mkdir(exist_ok=True)
        write_volume(output / PREDICTED / f"{case.folder_name}.nrrd", judged.predicted, judged.geometry)
        found[case.case_id] = replace(judged, predicted=None)
        return {"score": judged.score}

    return for_each_case(context, judge.cases, one, phase="judge labels", group=ProcessGroup())


def _content(
    found: Mapping[str, Judgement],
    rows: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, str],
    by_id: Mapping[str, Case],
    reviews: Reviews,
    budget: int,
) -> dict[str, Any]:
    """What suspects.json holds: cases, slices and regions, the most suspicious first, without what was decided."""
    from ForgettableSegLib.cases.reviews import label_key

    keys = {case_id: label_key(case.label) for case_id, case in by_id.items()}

    def ranked(of: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        open_rows = [row for row in of if not reviews.hides(row["case"], row["axis"], row["slice"], keys[row["case"]])]
        best = sorted(open_rows, key=lambda row: (-row["score"], row["case"], row["slice"]))[:budget]
        return [{"rank": rank, **_rounded(row)} for rank, row in enumerate(best, 1)]

    judged = sorted((row for row in rows if row["status"] == "done"), key=lambda row: -row["score"])
    open_cases = [row for row in judged if not reviews.hides(row["case"], None, None, keys[row["case"]])]
    return {
        "schema": SCHEMA,
        "reviews": str(reviews.path),
        "decided": reviews.counts(),
        "cases": [
            {
                "rank": rank,
                "case": row["case"],
                "score": round(row["score"], 3),
                "judge": kinds[row["case"]],
                "label": str(by_id[row["case"]].label),
                "label_key": keys[row["case"]],
            }
            for rank, row in enumerate(open_cases, 1)
        ],
        "slices": ranked([row for each in found.values() for row in each.slices if row["score"] > 0]),
        "regions": ranked([row for each in found.values() for row in each.regions]),
        "failed": [dict(row) for row in rows if row["status"] == "failed"],
    }


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def _write(output: Path, content: Mapping[str, Any], found: Mapping[str, Judgement]) -> list[Path]:
    paths = []
    for name in ("cases", "slices", "regions"):
        rows = [{key: value for key, value in row.items() if key not in _NOT_IN_TABLES} for row in content[name]]
        for row, full in zip(rows, content[name], strict=True):
            row |= dict(zip(("x_lps_mm", "y_lps_mm", "z_lps_mm"), full.get("position_lps", ()), strict=False))
        paths.append(write_table(output / f"suspect_{name}.csv", rows))
    paths.append(write_text(output / JSON_FILE, to_json(content)))
    paths.append(write_text(output / REPORT_FILE, _report(content, found)))
    return paths


def _report(content: Mapping[str, Any], found: Mapping[str, Judgement]) -> str:
    from ForgettableSegLib.evaluation import pages

    explanation = (
        "The score is how much more a label surprises the model than the model's own doubt lets expect, for the size "
        "of what is at stake. Class is what the label says, wanted what the model would say. A high score is a reason "
        "to look, not a proof."
    )
    shown: list[tuple[Picture, str]] = []
    for row in content["slices"]:
        judged = found.get(row["case"])
        picture = None if judged is None else judged.pictures.get((row["axis"], row["slice"]))
        if picture is not None and len(shown) < MOST_PICTURES:
            place = f"{row['case']}, {row['axis']} = {row['slice']}"
            shown.append((picture, f"{row['rank']}. {place}: {row['class']}, wanted {row['wanted']}"))
    parts = [pages.paragraph(explanation), pages.heading("Cases")]
    parts.append(pages.table(content["cases"][:50], ("rank", "case", "score", "judge")))
    if shown:
        parts.append(pages.heading("Slices: label yellow, model pink"))
        parts += [pages.figure(picture, caption) for picture, caption in shown]
    columns = ("rank", "case", "axis", "slice", "class", "wanted", "score")
    parts += [pages.heading("Slices"), pages.table(content["slices"], (*columns, "share"))]
    parts += [pages.heading("Regions"), pages.table(content["regions"], (*columns, "voxels", "volume_ml"))]
    return pages.page("Labels that are probably wrong", parts)


def _text(content: Mapping[str, Any], output: Path, failed: Sequence[str]) -> str:
    lines = [
        f"{row['rank']}. {row['case']}, {row['axis']} = {row['slice']}: labelled {row['class']}, the model wants "
        f"{row['wanted']} (score {row['score']:.1f})"
        for row in content["slices"][:10]
    ]
    lines.append(f"Judged {len(content['cases'])} cases; tables and report are in {output}.")
    return "\n".join([*lines, *([f"Failed: {', '.join(failed)}."] if failed else [])])
