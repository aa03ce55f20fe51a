"""What the review of the cases keeps out of a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.requests import TrainingRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import CaseList
    from ForgettableSegLib.cases.reviews import Reviews


def reviews_of(cases: CaseList, path: str | None) -> Reviews:
    """Return the decisions on cases.

    Args:
        cases: with labels.
        path: of the file of decisions; None for those in the common folder of the labels and in the folder of each.

    Raises:
        ForgettableSegError: CASE_LIST_INVALID if the file is none.
    """
    from ForgettableSegLib.cases.reviews import REVIEW_FILE, Reviews, review_path

    if path is not None:
        return Reviews(Path(path).absolute())
    labels = [case.label.absolute() for case in cases if case.label is not None]
    reviews = Reviews(review_path(labels))
    # Cases of several data sets, or some of the scene, have no folder in common that anybody decided in.
    for folder in sorted({label.parent for label in labels} - {reviews.path.parent}):
        if (folder / REVIEW_FILE).is_file():
            reviews.include(Reviews(folder / REVIEW_FILE))
    return reviews


def without_quarantined(
    cases: CaseList, request: TrainingRequest, context: JobContext
) -> tuple[CaseList, dict[str, list[tuple[str, int]]]]:
    """Leave the quarantined cases out, and return the slices that stay out of loss and bank, by case.

    Raises:
        ForgettableSegError: CASE_LIST_INVALID if no case is left, or the file of decisions cannot be read.
    """
    from ForgettableSegLib.cases.reviews import told

    reviews = reviews_of(cases, request.reviews)
    ids = [case.case_id for case in cases]
    if text := told(reviews, ids):
        context.log(text)
    gone = reviews.quarantined_cases()
    kept = tuple(case for case in cases if case.case_id not in gone)
    if cases.cases and not kept:
        message = f"All {len(cases)} cases are quarantined in {reviews.path}, so there is nothing to train on."
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint="Take some decisions back.")
    slices = {case: own for case, own in reviews.quarantined_slices().items() if case in set(ids) - gone}
    return replace(cases, cases=kept), slices
