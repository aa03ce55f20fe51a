"""What people decided on suspicious labels: a small JSON file beside the cases that survives runs.

A decision is on a slice of a case, or on all of it: *confirmed* (the label is right), *fixed* (it was corrected), or
*quarantined* (it is wrong and stays out of training). Standard library only, for Slicer imports it in its own process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

SCHEMA = 1
REVIEW_FILE = "forgettableseg_review.json"
STATES = ("confirmed", "fixed", "quarantined")
AXES = "ijk"


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Args:
        case: id of the case.
        state: one of `STATES`.
        axis: i, j or k of the label file; None for the whole case.
        slice: voxel index along the axis; None for the whole case.
        label: hash of the label file when it was decided, "" where it is no file.
        time: seconds since 1970.
    """

    case: str
    state: str
    axis: str | None = None
    slice: int | None = None
    label: str = ""
    time: float = 0.0

    @property
    def place(self) -> tuple[str, str | None, int | None]:
        """Case, axis and slice."""
        return self.case, self.axis, self.slice


class Reviews:
    """The decisions on the cases of a list, and which of the unlabelled ones were asked for.

    Args:
        path: of the file; it need not exist.

    Raises:
        ForgettableSegError: CASE_LIST_INVALID, naming the file, if it is none of these.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decisions: dict[tuple[str, str | None, int | None], Decision] = {}
        self.asked: dict[str, list[str]] = {}
        if path.is_file():
            self._read()

    @property
    def decisions(self) -> list[Decision]:
        """The newest decision on each place, in the order in which they were made."""
        return sorted(self._decisions.values(), key=lambda each: each.time)

    def decide(self, decision: Decision) -> None:
        """Add a decision; an earlier one on the same place gives way."""
        if decision.state not in STATES:
            msg = f"'{decision.state}' is no decision; there are {', '.join(STATES)}."
            raise ForgettableSegError(ErrorCode.REQUEST_INVALID, msg)
        self._decisions[decision.place] = dataclasses.replace(decision, time=decision.time or round(time.time(), 3))

    def include(self, other: Reviews) -> None:
        """Take the decisions of another file in, where they are newer or on other places."""
        for each in other.decisions:
            known = self._decisions.get(each.place)
            if known is None or known.time <= each.time:
                self._decisions[each.place] = each

    def forget(self, case: str, axis: str | None, index: int | None) -> None:
        """Take a decision back."""
        self._decisions.pop((case, axis, index), None)

    def hides(self, case: str, axis: str | None, index: int | None, label: str) -> bool:
        """Whether a suspect was decided on, so that nobody has to look at it again.

        A label file that has changed since is looked at again, unless the place is quarantined.

        Args:
            case, axis, index: the place.
            label: hash of the label file now, see `label_key`.
        """
        for place in {(case, axis, index), (case, None, None)}:
            found = self._decisions.get(place)
            if found is not None and (found.state == "quarantined" or found.label == label):
                return True
        return False

    def quarantined_cases(self) -> set[str]:
        """Cases that stay out of training as a whole."""
        return {each.case for each in self._decisions.values() if each.state == "quarantined" and each.axis is None}

    def quarantined_slices(self) -> dict[str, list[tuple[str, int]]]:
        """(axis, slice) pairs that stay out of training, by case."""
        found: dict[str, list[tuple[str, int]]] = {}
        for each in self.decisions:
            if each.state == "quarantined" and each.axis is not None and each.slice is not None:
                found.setdefault(each.case, []).append((each.axis, each.slice))
        return {case: sorted(places) for case, places in sorted(found.items())}

    def counts(self) -> dict[str, int]:
        """How many places there are of each state."""
        states = [each.state for each in self._decisions.values()]
        return {state: states.count(state) for state in STATES}

    def write(self) -> Path:
        """Write the file whole or not at all; returns its path.

        Raises:
            ForgettableSegError: OUTPUT_UNWRITABLE.
        """
        decisions = [dataclasses.asdict(each) for each in self.decisions]
        content = {"schema": SCHEMA, "decisions": decisions, "asked": self.asked}
        draft = self.path.with_name(f".{uuid.uuid4().hex}")
        try:
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self.path)
        except OSError as error:
            message = f"The decisions cannot be kept in {self.path}: {error.strerror or error}."
            raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, message, hint="Choose another file.") from error
        finally:
            draft.unlink(missing_ok=True)
        return self.path

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                msg = f"it has schema {content['schema']!r} instead of {SCHEMA}"
                raise ValueError(msg)
            for entry in content["decisions"]:
                self.decide(_decision(entry))
            asked: Mapping[str, Any] = content.get("asked", {})
            self.asked = {str(model): [str(case) for case in cases] for model, cases in asked.items()}
        except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            message = f"The decisions in {self.path} cannot be read: {error}."
            hint = "Restore the file, or move it away to begin anew."
            raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint=hint) from error


def _decision(entry: Mapping[str, Any]) -> Decision:
    decision = Decision(**{field.name: entry[field.name] for field in dataclasses.fields(Decision)})
    is_slice = decision.axis in tuple(AXES) and isinstance(decision.slice, int) and decision.slice >= 0
    is_case = decision.axis is None and decision.slice is None
    if decision.state not in STATES or not isinstance(decision.case, str) or not (is_slice or is_case):
        msg = f"an entry of {str(decision.case)[:60]!r} is wrong"
        raise ValueError(msg)
    return decision


def review_path(files: Iterable[Path]) -> Path:
    """Where the decisions on cases are kept: beside them.

    Args:
        files: label files of the cases (images, where they have no labels), whose common folder it is.
    """
    folders = [str(path.absolute().parent) for path in files]
    try:
        return Path(os.path.commonpath(folders)) / REVIEW_FILE
    except ValueError:  # none, or on several drives
        return Path(REVIEW_FILE).absolute()


def label_key(path: Path | None) -> str:
    """Hash of the content of a label file; empty for none, a folder, or a file that cannot be read."""
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def told(reviews: Reviews, of: Sequence[str]) -> str:
    """One sentence on what is quarantined of these cases, empty for nothing."""
    cases = sorted(reviews.quarantined_cases() & set(of))
    slices = {case: places for case, places in reviews.quarantined_slices().items() if case in set(of)}
    parts = []
    if cases:
        parts.append(f"{len(cases)} case{'s' * (len(cases) > 1)} ({', '.join(cases[:5])}{', ...' * (len(cases) > 5)})")
    if slices:
        number = sum(map(len, slices.values()))
        parts.append(f"{number} slice{'s' * (number > 1)} of {len(slices)} case{'s' * (len(slices) > 1)}")
    return f"Left out, for they are quarantined in {reviews.path}: {' and '.join(parts)}." if parts else ""
