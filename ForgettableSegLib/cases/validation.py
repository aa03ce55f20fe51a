"""Everything that is wrong with a list of cases, in one list, before anything trains."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.content import file_key
from ForgettableSegLib.cases.dicom import read_series
from ForgettableSegLib.cases.facts import CaseFacts, count_values
from ForgettableSegLib.cases.files import check_finite, read_image
from ForgettableSegLib.cases.findings import CaseError, Finding, FindingCode, hearing
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.label_files import label_path, onto_image, read_label_map, task_values
from ForgettableSegLib.cases.outliers import find_outliers, label_facts
from ForgettableSegLib.cases.task import Task

Progress = Callable[[int, int, str], None]


def validate_cases(
    cases: Iterable[Case], task: Task | None, *, labels_required: bool = True, progress: Progress | None = None
) -> list[Finding]:
    """Read every case once and list what is wrong with it: the findings of `examine_cases`."""
    return examine_cases(cases, task, labels_required=labels_required, progress=progress)[0]


def examine_cases(
    cases: Iterable[Case], task: Task | None, *, labels_required: bool = True, progress: Progress | None = None
) -> tuple[list[Finding], list[CaseFacts]]:
    """Read every case once: what is wrong with it, and what it looks like.

    Args:
        cases: a case list, or cases.
        task: what they are meant for; without one, any number of channels and any label values are right.
        labels_required: whether a case without a label is an error, as it is for training.
        progress: called before each case with the number of cases done, the number of cases and the case's id; and at
            the end. It may raise, for example `Cancelled`.

    Returns:
        Findings in the order of the cases, those about the whole list last (empty if all is well); and the facts of
        the cases that could be read.
    """
    cases = list(cases)
    findings: list[Finding] = []
    facts: list[CaseFacts] = []
    for done, case in enumerate(cases):
        if progress:
            progress(done, len(cases), case.case_id)
        with _collecting(findings, case):
            facts += _check_case(case, task, findings, labels_required=labels_required)
    if progress:
        progress(len(cases), len(cases), "")
    findings += _repeated_ids(cases)
    findings += _repeated_files(cases)
    present = {value for each in facts for value in each.voxels}
    if present and task is not None:
        findings += _absent_classes(task, present)
    findings += _unusual_labels(cases, facts, task)
    return findings, facts


def series_warnings(case: Case) -> list[Finding]:
    """What a user should know of the DICOM folders among a case's images: which series was taken, and uneven slices.

    Raises:
        CaseError: if a series cannot be read.
    """
    found = []
    for folder in (path for path in case.images if path.is_dir()):
        series = read_series(folder)
        if series.series_in_folder > 1:
            message = (
                f"Folder {folder} holds {series.series_in_folder} DICOM series; the one with most slices "
                f"({len(series.files)}) was taken. Keep each series in a folder of its own to choose another."
            )
            found.append(Finding("warning", FindingCode.SEVERAL_SERIES, case.case_id, folder, message))
        if series.is_uneven:
            message = (
                f"The distance between slices varies in the DICOM series in {folder}, so positions are inexact; "
                f"look for missing slices and export the series again."
            )
            found.append(Finding("warning", FindingCode.SLICES_UNEVEN, case.case_id, folder, message))
    return found


@contextmanager
def _collecting(findings: list[Finding], case: Case) -> Iterator[None]:
    """Turn the error that ends a check into a finding."""
    try:
        yield
    except CaseError as error:
        findings.append(Finding("error", error.finding, case.case_id, error.path, str(error)))


def _check_case(case: Case, task: Task | None, findings: list[Finding], *, labels_required: bool) -> list[CaseFacts]:
    """Append what is wrong with one case, and return its facts if it could be read."""

    def hear(finding: Finding) -> None:
        own = replace(finding, case_id=case.case_id)
        if own not in findings:  # however often a header is read
            findings.append(own)

    with hearing(hear):
        return _facts_of(case, task, findings, labels_required=labels_required)


def _facts_of(case: Case, task: Task | None, findings: list[Finding], *, labels_required: bool) -> list[CaseFacts]:
    image, geometry = None, None
    with _collecting(findings, case):
        findings += series_warnings(case)
        image, geometry = _check_image(case, task, findings)
    if case.label is None and not labels_required:
        return [] if geometry is None else [CaseFacts(case.case_id, geometry)]
    values, own_geometry = _check_label(case, task, geometry, findings)
    fits = image is not None and values.shape == geometry.shape and bool(np.isfinite(image[0]).all())
    label = label_facts(image[0], values, geometry) if fits else None
    return [CaseFacts(case.case_id, geometry or own_geometry, count_values(values), label)]


def _check_image(case: Case, task: Task | None, findings: list[Finding]) -> tuple[NDArray[np.float32], Geometry]:
    """Append what is wrong with the channels, and return them with their grid."""
    image, geometry = read_image(case, channels=None if task is None else len(task.channels))
    for index, channel in enumerate(image):
        path = case.images[index] if len(case.images) == len(image) else case.images[0]
        with _collecting(findings, case):
            check_finite(channel, path)
    return image, geometry


def _check_label(
    case: Case, task: Task | None, geometry: Geometry | None, findings: list[Finding]
) -> tuple[NDArray[np.integer], Geometry]:
    """Append what is wrong with a label, and return it on the image's grid if it can be brought there."""
    path = label_path(case)
    values, own_geometry = read_label_map(path)
    if geometry is not None:
        with _collecting(findings, case):
            values = onto_image(values, own_geometry, case, geometry)
    with _collecting(findings, case):
        values = task_values(values, case, task)
    if not values.any():
        message = (
            f"{path} holds background only. Check that the right file was chosen; "
            f"if the case shows nothing to segment, all is well."
        )
        findings.append(Finding("warning", FindingCode.FOREGROUND_EMPTY, case.case_id, path, message))
    return values, own_geometry


def _repeated_ids(cases: Sequence[Case]) -> list[Finding]:
    counts = Counter(case.case_id for case in cases)
    message = "{} cases have the id '{}'. Give each case its own, or their results overwrite each other."
    return [
        Finding("error", FindingCode.CASE_ID_REPEATED, case_id, None, message.format(count, case_id))
        for case_id, count in counts.items()
        if count > 1
    ]


def _repeated_files(cases: Sequence[Case]) -> list[Finding]:
    """Files of the same content: within a case a mistake, among cases a leak between the parts of a split."""
    found = []
    cases_of: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        with suppress(CaseError):
            keys = {path: file_key(path) for path in case.files}
            keys = [file_key(path) for path in case.files]
            cases_of[keys[0]].append(case)
            if len(set(keys)) < len(keys):
                twice = next(path for index, path in enumerate(case.files) if keys[index] in keys[:index])
                message = f"Case '{case.case_id}' uses {twice} twice. Give each channel, and the label, its own file."
                found.append(Finding("error", FindingCode.FILE_REPEATED, case.case_id, twice, message))
    for same in cases_of.values():
        if len(same) > 1:
            ids = ", ".join(case.case_id for case in same[:3]) + (" and more" if len(same) > 3 else "")
            message = (
                f"{len(same)} cases have the same image as {same[0].images[0]}: {ids}. "
                f"Leave out all but one, or the same image may both train and test."
            )
            found.append(Finding("warning", FindingCode.FILE_REPEATED, same[1].case_id, same[1].images[0], message))
    return found


def _unusual_labels(cases: Sequence[Case], facts: Sequence[CaseFacts], task: Task | None) -> list[Finding]:
    paths = {case.case_id: case.label for case in cases}
    message = "{} differs from the labels of the other cases: {}. Look whether it belongs to its image."
    return [
        Finding("warning", FindingCode.LABEL_UNUSUAL, case_id, paths[case_id], message.format(paths[case_id], reasons))
        for case_id, reasons in find_outliers(facts, task)
    ]


def _absent_classes(task: Task, present: set[int]) -> list[Finding]:
    message = "No label holds class '{}' (value {}). Correct its value, or remove it from the task."
    return [
        Finding("warning", FindingCode.CLASS_ABSENT, "", None, message.format(one.name, one.value))
        for one in task.classes
        if one.value not in present
    ]
