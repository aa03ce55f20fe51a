"""Which class of a model each class of files or segments stands for (standard library only)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ForgettableSegLib.cases.structures import SIDES, key_of, meaning_of, telling_words, words_of
from ForgettableSegLib.cases.task import SegmentClass, Task

# What programs call segments and classes that nobody has named.
_NAMELESS = re.compile(r"(segment|label|class|structure|region|object|roi|value|mask|foreground)?[\W_]*\d*", re.I)
_TISSUE = "85756007"  # the code of segments that say nothing
Codes = tuple[str, ...]


class How(StrEnum):
    """By what a class was matched, in the order of trust."""

    NAME = "name"
    SYNONYM = "synonym"
    TERMINOLOGY = "terminology"
    PART = "part of the name"
    VALUE = "value"


@dataclass(frozen=True)
class FoundClass:
    """A class as files or segments hold it.

    Args:
        key: tells it from the others: its name, or the id of a segment.
        name: what it is called; "Segment_1" and the like count as no name.
        value: its label value, None where it has none.
        codes: of its terminology: type, modifier, region and the region's modifier, "" for each that there is not.
    """

    key: str
    name: str = ""
    value: int | None = None
    codes: Codes = ()

    @property
    def is_nameless(self) -> bool:
        """Whether its name says nothing."""
        return _NAMELESS.fullmatch(self.name.strip()) is not None

    @property
    def text(self) -> str:
        """What a sentence calls it."""
        return self.name or (self.key if self.value is None else f"value {self.value}")


@dataclass(frozen=True)
class Matching:
    """What stands for what.

    Args:
        found: the classes of the files or segments.
        classes: the classes of the model.
        matches: key of a found class: the class that it stands for, and by what that is known.
        ambiguous: key of a found class: names of the classes that it might stand for.
    """

    found: tuple[FoundClass, ...]
    classes: tuple[SegmentClass, ...]
    matches: Mapping[str, tuple[SegmentClass, How]]
    ambiguous: Mapping[str, tuple[str, ...]]

    def class_of(self, key: str) -> SegmentClass | None:
        """The class that a found one stands for, or None."""
        match = self.matches.get(key)
        return None if match is None else match[0]

    @property
    def unused(self) -> tuple[FoundClass, ...]:
        """Found classes that stand for none."""
        return tuple(one for one in self.found if one.key not in self.matches)

    @property
    def missing(self) -> tuple[SegmentClass, ...]:
        """Classes that none of the found stands for."""
        used = {one.value for one, _ in self.matches.values()}
        return tuple(one for one in self.classes if one.value not in used)

    @property
    def is_complete(self) -> bool:
        """Whether each found class stands for a class, and each class is found."""
        return not self.unused and not self.missing

    @property
    def is_plain(self) -> bool:
        """Whether all is called, and valued, alike, so that there is nothing to tell."""
        return self.is_complete and all(
            match[0].name == one.name and match[0].value == one.value
            for one in self.found
            if (match := self.matches.get(one.key))
        )

    @property
    def values(self) -> dict[int, int]:
        """The class's label value for each label value found."""
        pairs = ((one.value, self.class_of(one.key)) for one in self.found)
        return {value: match.value for value, match in pairs if value is not None and match is not None}

    @property
    def sentence(self) -> str:
        """What was matched and by what, what was not, and what may be one or another."""
        parts = []
        for how in How:
            pairs = [(one, self.matches[one.key]) for one in self.found if one.key in self.matches]
            named = [f"{one.text} -> {match.name}" for one, (match, by) in pairs if by is how]
            if named:
                parts.append(f"by {how}: {', '.join(named)}")
        text = f"Matched {'; '.join(parts)}." if parts else "No class was matched."
        unclear = [
            f"{one.text} may be {' or '.join(self.ambiguous[one.key])}"
            for one in self.found
            if one.key in self.ambiguous
        ]
        alone = [one.text for one in self.unused if one.key not in self.ambiguous]
        text += f" Ambiguous: {', '.join(unclear)}." if unclear else ""
        return text + (f" Not matched: {', '.join(alone)}." if alone else "")


def match_classes(
    found: Iterable[FoundClass],
    classes: Sequence[SegmentClass],
    *,
    codes: Mapping[str, Codes] | None = None,
    trust_values: bool = False,
) -> Matching:
    """Match what files or segments hold with the classes of a model.

    First by name (whatever its case, number, word order, punctuation and spelling), then by a name that means the same,
    by terminology, by a part of the name ("Anterior" for "anterior hippocampus") and at last by value, each only where
    just one class comes into question. Left and right, and words such as "anterior" or "tumor", are never passed over.
    Several found classes may stand for one by name, synonym or terminology, never by a part of the name or by value.

    Args:
        found: what files or segments hold.
        classes: of the model.
        codes: codes of the classes by name, where more is known than the classes themselves say.
        trust_values: whether values count also for names that mean nothing here ("L1" and "L2"), if no class at all is
            known by its name; otherwise they count for what has no name only.
    """
    found, classes = tuple(found), tuple(classes)
    known = {**{each.name: codes_of(each) for each in classes}, **(codes or {})}
    matches: dict[str, tuple[SegmentClass, How]] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    tests: tuple[tuple[How, Callable[[FoundClass, SegmentClass], bool]], ...] = (
        (How.NAME, lambda one, each: () != key_of(each.name) == key_of(one.name)),
        (How.SYNONYM, _means_the_same),
        (How.TERMINOLOGY, lambda one, each: _says_something(one.codes) and known[each.name] == one.codes),
    )
    for one in found:
        for how, is_same in tests:
            same = [each for each in classes if is_same(one, each)]
            if len(same) == 1:
                matches[one.key] = same[0], how
                ambiguous.pop(one.key, None)
                break
            if same:
                ambiguous[one.key] = tuple(each.name for each in same)
    _match_parts(found, classes, matches, ambiguous)
    _match_values(found, classes, matches, ambiguous, trust_values=trust_values)
    return Matching(found, classes, matches, {key: ambiguous[key] for key in ambiguous if key not in matches})


def found_in(task: Task) -> tuple[FoundClass, ...]:
    """The classes that a case list describes."""
    return tuple(FoundClass(each.name, each.name, each.value, codes_of(each)) for each in task.classes)


def codes_of(each: SegmentClass) -> Codes:
    """The codes that a class itself carries."""
    if not each.terminology:
        return ()
    return (*(code[1] if (code := each.terminology.get(part)) else "" for part in ("type", "modifier")), "", "")


def task_to_write(task: Task, found: Sequence[FoundClass]) -> str:
    """The JSON of a task for these files, to be corrected by hand: classes of the model with the values found."""
    values = [one.value for one in found if one.value is not None]
    free = iter([*values, *range(max(values, default=0) + 1, max(values, default=0) + 1 + len(task.classes))])
    classes = tuple(replace(each, value=next(free), terminology=None, color=None) for each in task.classes)
    content = replace(task, classes=classes).to_dict()
    content["classes"] = [{"name": each["name"], "value": each["value"]} for each in content["classes"]]
    return json.dumps(content)


def _means_the_same(one: FoundClass, each: SegmentClass) -> bool:
    own = [each.name, *([each.prompt] if each.prompt and "[object]" not in each.prompt else [])]
    meaning = meaning_of(one.name)
    return any(key_of(text) == key_of(one.name) or (meaning and meaning_of(text) == meaning) for text in own)


def _says_something(codes: Codes) -> bool:
    return any(codes) and codes[0] != _TISSUE


def _match_parts(
    found: Sequence[FoundClass],
    classes: Sequence[SegmentClass],
    matches: dict[str, tuple[SegmentClass, How]],
    ambiguous: dict[str, tuple[str, ...]],
) -> None:
    used = {each.value for each, _ in matches.values()}
    free = [each for each in classes if each.value not in used]
    candidates = {
        one.key: [each for each in free if _is_part(one.name, each.name)]
        for one in found
        if one.key not in matches and not one.is_nameless
    }
    for key, own in candidates.items():
        rivals = [other for other, theirs in candidates.items() if own and own[0] in theirs]
        if len(own) == 1 and len(rivals) == 1:
            matches[key] = own[0], How.PART
        elif own:
            ambiguous[key] = tuple(each.name for each in own)


def _is_part(one: str, other: str) -> bool:
    """Whether one name is the other one shortened by words that tell no structures apart."""
    first, second = set(words_of(one)), set(words_of(other))
    if not first or not second or not (first < second or second < first):
        return False
    if telling_words(one) != telling_words(other) or not (first & second) - SIDES:
        return False
    meant, other_meant = meaning_of(one), meaning_of(other)
    return meant is None or other_meant is None or meant <= other_meant or other_meant <= meant


def _match_values(
    found: Sequence[FoundClass],
    classes: Sequence[SegmentClass],
    matches: dict[str, tuple[SegmentClass, How]],
    ambiguous: Mapping[str, tuple[str, ...]],
    *,
    trust_values: bool,
) -> None:
    rest = [one for one in found if one.key not in matches]
    used = {each.value for each, _ in matches.values()}
    free = {each.value: each for each in classes if each.value not in used}
    values = [one.value for one in rest]
    if None in values or set(values) != set(free) or len(values) != len(free):
        return
    names_say_nothing = trust_values and not matches and not ambiguous and not any(meaning_of(one.name) for one in rest)
    if names_say_nothing or all(one.is_nameless for one in rest):
        matches.update({one.key: (free[one.value], How.VALUE) for one in rest})
