"""The classes that labels hold, and those of the model that meets them: one way for all jobs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ForgettableSegLib.cases.case import Case, CaseList
    from ForgettableSegLib.cases.matching import Matching
    from ForgettableSegLib.cases.task import SegmentClass, Task
    from ForgettableSegLib.jobs.job import JobContext


def labels_of_model(cases: CaseList, model: Task, context: JobContext, *, whole: bool = False) -> CaseList:
    """The cases with labels that are read in the values of a model's task.

    Classes of the labels that the model does not know count as background, which is told.

    Args:
        cases: what their source says of the classes is matched with the model's; if it says nothing, the labels have to
            hold the model's values.
        model: the task of the model.
        context: is told what was matched.
        whole: whether the labels have to hold all of the model's classes and no other.

    Returns:
        The cases; their task has those of the model's classes that the labels hold.

    Raises:
        ForgettableSegError: TASK_INVALID if classes are ambiguous, none is known, or (`whole`) some are not.
    """
    if cases.task is None:
        return replace(cases, task=model)
    matching = _match(cases.task, model, trust_values=True)
    if matching.ambiguous or not matching.matches or (whole and not matching.is_complete):
        raise _unclear(cases.task, model, matching)
    _tell(matching, context)
    if matching.unused:
        names = ", ".join(one.text for one in matching.unused)
        context.warning(f"The model does not know these classes of the labels, which count as background: {names}.")
    if matching.missing:
        names = ", ".join(each.name for each in matching.missing)
        context.warning(f"The labels do not hold these classes of the model, which are left out: {names}.")
    held = tuple(each for each in model.classes if each not in matching.missing)
    values = {one.value: 0 for one in cases.task.classes} | matching.values
    return _with_values(replace(cases, task=replace(model, classes=held)), values)


def classes_to_train(cases: CaseList, start: Task, context: JobContext, *, is_given: bool) -> CaseList:
    """The cases for a training that starts from a model, with the task to train.

    Where each of the labels' classes is one of the model's, and each of the model's is found, the model's task is
    trained on, and the labels are read in its values. Otherwise the classes that are known have the model's names, and
    the others are new.

    Args:
        cases: their task is what the labels hold; None for the model's.
        start: the task of the model.
        context: is told what was matched.
        is_given: whether the user has given the task; then names hold, and nothing is ambiguous.

    Raises:
        ForgettableSegError: TASK_INVALID if classes of the case list are ambiguous.
    """
    if cases.task is None or len(cases.task.channels) != len(start.channels):
        return replace(cases, task=cases.task or start)
    matching = _match(cases.task, start, trust_values=not is_given)
    if matching.ambiguous and not is_given:
        raise _unclear(cases.task, start, matching)
    _tell(matching, context)
    prompts = {matching.matches[each.name][0].value: each.prompt for each in cases.task.classes
               if each.prompt and each.name in matching.matches}  # fmt: skip
    if matching.is_complete:
        classes = tuple(replace(each, prompt=prompts.get(each.value, each.prompt)) for each in start.classes)
        named = replace(cases.task, channels=start.channels, classes=classes) if is_given else start
        return _with_values(replace(cases, task=replace(named, classes=classes)), matching.values)
    classes = _partly_new(cases.task, matching)
    return replace(cases, task=replace(cases.task, classes=classes))


def shared_values(one: Task, other: Task) -> dict[int, int]:
    """The other task's value for each value of the classes that both tasks name alike."""
    values = {each.name: each.value for each in other.classes}
    return {each.value: values[each.name] for each in one.classes if each.name in values}


def sided_task(labels: Path) -> Task | None:
    """The task that `segment` has written beside a label map, where it tells left from right; None otherwise."""
    from ForgettableSegLib.cases.files import stem_of
    from ForgettableSegLib.cases.structures import SIDES, words_of
    from ForgettableSegLib.cases.task import Task

    path = labels.with_name(f"{stem_of(labels).removesuffix('_segmentation')}_task.json")
    try:
        task = Task.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ForgettableSegError):
        return None
    return task if any(SIDES.intersection(words_of(each.name)) for each in task.classes) else None


def values_in(sided: Task, task: Task) -> dict[int, int]:
    """The value in another task of each value of a sided one: of the same class, else of the class without its side.

    Classes that the other task does not have become background.
    """
    from ForgettableSegLib.cases.structures import SIDES, words_of

    keys = {tuple(sorted(words_of(each.name))): each.value for each in task.classes}
    found = {}
    for each in sided.classes:
        words = words_of(each.name)
        unsided = tuple(sorted(word for word in words if word not in SIDES))
        found[each.value] = keys.get(tuple(sorted(words)), keys.get(unsided, 0))
    return found


def _match(labels: Task, model: Task, *, trust_values: bool) -> Matching:
    from ForgettableSegLib.cases.matching import found_in, match_classes

    return match_classes(found_in(labels), model.classes, trust_values=trust_values)


def _tell(matching: Matching, context: JobContext) -> None:
    if not matching.is_plain:
        context.log(matching.sentence)


def _partly_new(labels: Task, matching: Matching) -> tuple[SegmentClass, ...]:
    """The labels' classes, those that are known described as the model does (one of several that are the same)."""
    classes: list[SegmentClass] = []
    for each in labels.classes:
        known = matching.class_of(each.name)
        taken = known is None or any(known.name == other.name for other in classes)
        classes.append(each if taken else replace(known, value=each.value, prompt=each.prompt or known.prompt))
    return tuple(classes)


def _with_values(cases: CaseList, values: Mapping[int, int]) -> CaseList:
    if all(found == value for found, value in values.items()):
        return cases
    return replace(cases, cases=tuple(_read_with(case, values) for case in cases))


def _read_with(case: Case, values: Mapping[int, int]) -> Case:
    """The case with its label read in other values, also where it is read in others already."""
    before = dict(case.label_values) or {value: value for value in values}
    pairs = {found: values.get(value, 0) for found, value in before.items()}
    return replace(case, label_values=tuple(sorted(pairs.items())))


def _unclear(labels: Task, model: Task, matching: Matching) -> ForgettableSegError:
    from ForgettableSegLib.cases.matching import found_in, task_to_write

    names = [", ".join(each.name for each in task.classes) for task in (labels, model)]
    return ForgettableSegError(
        ErrorCode.TASK_INVALID,
        f"The labels of the cases hold {names[0]}, but the model segments {names[1]}. {matching.sentence}",
        hint="Give a task with the model's classes and the values that they have in these labels, for example "
        f"{task_to_write(model, found_in(labels))}",
    )
