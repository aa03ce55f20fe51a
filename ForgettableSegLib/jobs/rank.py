"""The job `rank`: which unlabelled cases to label next, and which of their slices first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.inputs import load_cases, load_predictor
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import failed_ids, for_each_case, open_output, to_json, write_table, write_text
from ForgettableSegLib.jobs.requests import RankRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ForgettableSegLib.cases.case import Case, CaseList
    from ForgettableSegLib.cases.reviews import Reviews
    from ForgettableSegLib.inference.next_cases import Candidate
    from ForgettableSegLib.inference.run import LoadedModel

SCHEMA = 1
JSON_FILE, REPORT_FILE = "ranking.json", "ranking.html"


def run(request: RankRequest, context: JobContext) -> JobResult:
    """Rank the unlabelled cases and remember which were asked for.

    Raises:
        ForgettableSegError: CASE_LIST_INVALID if there is no unlabelled case that was not asked for yet.
        Cancelled: nothing is written or remembered then.
    """
    from ForgettableSegLib.inference.next_cases import look_at, order_of
    from ForgettableSegLib.inference.run import Watch
    from ForgettableSegLib.training.distributed import ProcessGroup

    model = load_predictor(request.model, request.device).model
    listed = load_cases(request.cases, model.task)
    reviews = _reviews(listed, request)
    key = model_key(model)
    cases = _open_cases(listed, reviews, key, request)
    output = open_output(request.output, cases, context)
    found: list[Candidate] = []

    def one(case: Case, tell: Callable[[float], None]) -> dict[str, Any]:
        watch = Watch(lambda phase, step, of: tell(step / of if phase == "predict" else 0.0))
        found.append(look_at(model, case, watch=watch, picture=request.images))
        return {}

    rows = for_each_case(context, cases, one, phase="look at cases", group=ProcessGroup())
    if not found:
        message = "None of the cases could be looked at; the messages above say why."
        raise ForgettableSegError(ErrorCode.CASE_INVALID, message)
    chosen = [found[number] for number in order_of(found, request.budget)]
    content = _content(found, chosen, model.name, key)
    content["failed"] = [row for row in rows if row["status"] == "failed"]
    for path in _write(output, content, chosen):
        context.artifact("report" if path.suffix == ".html" else "table", path)
    asked = [each.case for each in chosen]
    reviews.asked[key] = list(dict.fromkeys([*reviews.asked.get(key, ()), *asked]))
    reviews.write()
    failed = failed_ids(rows)
    lines = [f"{number}. {each.case}: {_told(each)}" for number, each in enumerate(chosen, 1)]
    lines.append(f"Looked at {len(found)} unlabelled cases; tables and report are in {output}.")
    result = {"output": str(output), "ranking": str(output / JSON_FILE), "asked": asked, "failed": failed}
    return JobResult(EXIT_SOME_CASES_FAILED if failed else EXIT_DONE, result, "\n".join(lines))


def model_key(model: LoadedModel) -> str:
    """Hash of a model's weights, by which it is known again whatever it is called."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _reviews(listed: CaseList, request: RankRequest) -> Reviews:
    from ForgettableSegLib.cases.reviews import Reviews, review_path

    images = [case.images[0] for case in listed]
    return Reviews(review_path(images) if request.reviews is None else Path(request.reviews).absolute())


def _open_cases(listed: CaseList, reviews: Reviews, key: str, request: RankRequest) -> Sequence[Case]:
    """The unlabelled cases that were not asked for yet."""
    unlabelled = [replace(case, label=None) for case in listed if case.label is None or not case.label.exists()]
    if not unlabelled:
        message = f"All {len(listed)} cases are labelled, so there is nothing to rank."
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint="Give cases without a label.")
    asked = set() if request.again else set(reviews.asked.get(key, ()))
    cases = [case for case in unlabelled if case.case_id not in asked]
    if not cases:
        message = f"All {len(unlabelled)} unlabelled cases were asked for with this model already."
        hint = "Label them and fine-tune the model, or rank them again with --again."
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint=hint)
    return cases


def _told(candidate: Candidate) -> str:
    slices = ", ".join(f"{row['axis']} = {row['slice']}" for row in candidate.slices)
    if not candidate.found:
        return f"the model finds nothing in it (begin with {slices})"
    return f"harder than {candidate.percentile:.0f} % of the cases held out (begin with {slices})"


def _content(found: Sequence[Candidate], chosen: Sequence[Candidate], model: str, key: str) -> dict[str, Any]:
    order = {each.case: number for number, each in enumerate(chosen, 1)}
    ranked = sorted(found, key=lambda each: (order.get(each.case, len(order) + 1), -each.difficulty, each.case))
    cases = [
        {
            "rank": rank,
            "case": each.case,
            "asked": each.case in order,
            "difficulty": round(each.difficulty, 5),
            "percentile": round(each.percentile, 1),
            "found": each.found,
        }
        for rank, each in enumerate(ranked, 1)
    ]
    slices = [{"rank": order[each.case], **row} for each in chosen for row in each.slices]
    return {"schema": SCHEMA, "model": model, "model_key": key, "cases": cases, "slices": slices}


def _write(output: Path, content: Mapping[str, Any], chosen: Sequence[Candidate]) -> list[Path]:
    slices = []
    for row in content["slices"]:
        position = dict(zip(("x_lps_mm", "y_lps_mm", "z_lps_mm"), row["position_lps"], strict=True))
        slices.append({key: value for key, value in row.items() if key != "position_lps"} | position)
    return [
        write_table(output / "ranking_cases.csv", content["cases"]),
        write_table(output / "ranking_slices.csv", slices),
        write_text(output / JSON_FILE, to_json(content)),
        write_text(output / REPORT_FILE, _report(content, chosen)),
    ]


def _report(content: Mapping[str, Any], chosen: Sequence[Candidate]) -> str:
    from ForgettableSegLib.evaluation import pages

    explanation = (
        "Ranked by estimated difficulty (the model's lack of confidence over what it finds), those asked for also by "
        "how different they are from each other. The estimate does not see confident errors."
    )
    figures = [
        pages.figure(each.picture, f"{number}. {each.case}: {_told(each)}")
        for number, each in enumerate(chosen, 1)
        if each.picture is not None
    ]
    columns = ("rank", "case", "asked", "difficulty", "percentile", "found")
    parts = [pages.paragraph(explanation), *figures, pages.heading("Cases"), pages.table(content["cases"], columns)]
    slices = pages.table(content["slices"], ("rank", "case", "axis", "slice", "difficulty"))
    return pages.page("What to label next", [*parts, pages.heading("Slices to begin with"), slices])
