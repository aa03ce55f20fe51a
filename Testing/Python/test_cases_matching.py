"""One matcher of what files and segments hold with the classes of a model."""

from __future__ import annotations

import json

import pytest

from ForgettableSegLib.cases.matching import FoundClass, How, match_classes, task_to_write
from ForgettableSegLib.cases.task import SegmentClass, Task

HIPPOCAMPUS = (SegmentClass("anterior hippocampus", 1), SegmentClass("posterior hippocampus", 2))
KIDNEYS = (SegmentClass("left kidney", 1), SegmentClass("right kidney", 2))
ANTERIOR = ("5366008", "255549009", "", "")


def names(*found: str) -> list[FoundClass]:
    return [FoundClass(name, name, value) for value, name in enumerate(found, start=1)]


def classes(*wanted: str) -> tuple[SegmentClass, ...]:
    return tuple(SegmentClass(name, value) for value, name in enumerate(wanted, start=11))


@pytest.mark.parametrize(
    ("found", "wanted", "how"),
    [
        ("Left Kidney", "left kidney", How.NAME),
        ("kidney_left", "left kidney", How.NAME),
        ("KidneyL", "left kidney", How.NAME),
        ("Kidneys (R)", "right kidney", How.NAME),
        ("liver tumours", "liver tumor", How.NAME),
        ("vertebrae-L1", "vertebra L1", How.NAME),
        ("hippocampi", "hippocampus", How.NAME),
        ("LV", "left ventricle", How.SYNONYM),
        ("head of the hippocampus", "anterior hippocampus", How.SYNONYM),
        ("cancer of liver", "liver tumor", How.SYNONYM),
        ("left hip bone", "hip left", How.SYNONYM),
        ("Anterior", "anterior hippocampus", How.PART),
        ("prostate peripheral zone of patient", "peripheral zone", How.PART),
        ("anterior hippocampus", "Anterior", How.PART),
    ],
)
def test_a_name_is_known_however_it_is_written(found: str, wanted: str, how: How) -> None:
    matching = match_classes(names(found), classes(wanted))
    assert matching.matches[found] == (SegmentClass(wanted, 11), how)
    assert matching.is_complete
    assert matching.sentence == f"Matched by {how}: {found} -> {wanted}."


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("left kidney", "right kidney"),
        ("kidney", "left kidney"),
        ("brain", "brain tumor"),
        ("brain", "brain stem"),
        ("bladder", "gall bladder"),
        ("hippocampus", "anterior hippocampus"),
        ("bladder wall", "bladder"),
        ("vertebra", "vertebra L1"),
        ("whole tumor", "enhancing tumor"),
        ("left", "left kidney"),
        ("liver", "spleen"),
        ("pons", "pon"),
    ],
)
def test_another_structure_is_never_taken_for_it(found: str, wanted: str) -> None:
    matching = match_classes(names(found), classes(wanted), trust_values=True)
    assert matching.matches == {}
    assert [each.name for each in matching.missing] == [wanted]


def test_parts_of_names_are_matched_only_one_to_one() -> None:
    matching = match_classes(names("tumor"), classes("liver tumor", "kidney tumor"))
    assert matching.matches == {}
    assert matching.ambiguous == {"tumor": ("liver tumor", "kidney tumor")}
    assert "tumor may be liver tumor or kidney tumor" in matching.sentence
    both = match_classes(names("liver tumor", "kidney tumor"), classes("tumor"))
    assert both.matches == {}, "two of them come into question"
    assert match_classes(names("liver", "liver tumor"), classes("liver", "tumor")).values == {1: 11, 2: 12}


def test_the_classes_of_the_decathlon_are_those_of_the_starter_model() -> None:
    matching = match_classes(names("Anterior", "Posterior"), HIPPOCAMPUS)
    assert matching.values == {1: 1, 2: 2}
    assert matching.is_complete
    assert not matching.is_plain
    swapped = match_classes(names("Posterior", "Anterior"), HIPPOCAMPUS)
    assert swapped.values == {1: 2, 2: 1}, "names come before values"


def test_terminology_decides_where_it_says_just_one_class() -> None:
    coded = {"category": ["SCT", "1", "c"], "type": ["SCT", "5366008", "Hippocampus"]}
    front = SegmentClass("front", 1, terminology={**coded, "modifier": ["SCT", "255549009", "Anterior"]})
    found = [FoundClass("id", "Vorn", None, ANTERIOR), FoundClass("tissue", "x", None, ("85756007", "", "", ""))]
    matching = match_classes(found, (front, SegmentClass("rear", 2, terminology=coded)))
    assert matching.matches == {"id": (front, How.TERMINOLOGY)}
    same = (front, SegmentClass("other", 2, terminology=front.terminology))
    assert match_classes(found, same).matches == {}
    assert match_classes([FoundClass("id", "other", 1, ANTERIOR)], same).class_of("id") == same[1], "the name does"


def test_what_has_no_name_is_matched_by_its_value() -> None:
    matching = match_classes(names("Segment_1", "Segment_2"), HIPPOCAMPUS)
    assert matching.values == {1: 1, 2: 2}
    text = "Matched by value: Segment_1 -> anterior hippocampus, Segment_2 -> posterior hippocampus."
    assert matching.sentence == text
    assert match_classes(names("Segment_1"), HIPPOCAMPUS).matches == {}, "not the same values"
    rest = match_classes([*names("Anterior"), FoundClass("b", "", 2)], HIPPOCAMPUS)
    assert rest.matches["b"] == (HIPPOCAMPUS[1], How.VALUE)


def test_names_that_mean_nothing_count_only_where_values_are_trusted() -> None:
    foreign = names("vorne", "hinten")
    assert match_classes(foreign, HIPPOCAMPUS).matches == {}
    assert match_classes(foreign, HIPPOCAMPUS, trust_values=True).values == {1: 1, 2: 2}
    new = match_classes(names("anterior hippocampus", "glorpus maximus"), HIPPOCAMPUS, trust_values=True)
    assert new.values == {1: 1}, "one known name shows that names are meant here"
    assert match_classes(names("liver", "spleen"), HIPPOCAMPUS, trust_values=True).matches == {}


def test_several_segments_may_stand_for_one_class() -> None:
    matching = match_classes([FoundClass("a", "Left kidney", 1), FoundClass("b", "kidney L", 2)], KIDNEYS)
    assert matching.values == {1: 1, 2: 1}
    assert not matching.is_complete


def test_the_task_to_write_can_be_read() -> None:
    task = Task("hippocampus", "MR", ("T1",), HIPPOCAMPUS)
    text = task_to_write(task, [FoundClass("a", "x", 7), FoundClass("b", "y", 9)])
    assert [each.value for each in Task.from_dict(json.loads(text)).classes] == [7, 9]
    assert len(Task.from_dict(json.loads(task_to_write(task, []))).classes) == 2
