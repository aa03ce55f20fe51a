"""The queue of suspicious labels: what the job `suspects` found, what was decided on it, what is next. No Qt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ForgettableSegLib.cases.reviews import Decision, Reviews, label_key
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

from ..i18n import tr as _

SCHEMA = 1
RESULT_FILE = "suspects.json"


@dataclass(frozen=True)
class Suspect:
    """A slice whose label is probably wrong: of which case, labelled as what, and what the model wants."""

    case: str
    axis: str
    slice: int
    className: str
    wanted: str
    score: float
    position: tuple[float, float, float]  # RAS, mm


@dataclass(frozen=True)
class SuspectCase:
    """The files of a case: its images, its labels, and what the model found.

    Args:
        values: label value in the label file by class.
    """

    images: tuple[Path, ...]
    label: Path
    predicted: Path
    values: Mapping[str, int]


class Queue:
    """The suspects of a result and the decisions on them, which are kept beside the cases.

    Args:
        path: suspects.json of the job.

    Raises:
        ForgettableSegError: FILE_UNREADABLE if it is no such file, CASE_LIST_INVALID if the decisions cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                msg = f"schema {content['schema']!r}"
                raise ValueError(msg)
            self.task = Task.from_dict(content["task"])
            self.cases = {str(row["case"]): _case(row) for row in content["cases"]}
            self.suspects = [_suspect(row) for row in content["slices"] if row["case"] in self.cases]
            reviews = Path(content["reviews"])
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            text = _("{path} holds no suspicious labels that can be read: {error}.").format(path=path, error=error)
            raise ForgettableSegError(ErrorCode.FILE_UNREADABLE, text) from error
        self.reviews = Reviews(reviews)
        self._keys: dict[str, str] = {}

    def open(self) -> list[Suspect]:
        """Return the suspects that nobody has decided on, the most suspicious first."""
        return [
            each
            for each in self.suspects
            if not self.reviews.hides(each.case, each.axis, each.slice, self._labelKey(each.case))
        ]

    def decide(self, suspect: Suspect, state: str) -> None:
        """Keep a decision.

        Args:
            suspect: what was decided on.
            state: confirmed, fixed or quarantined.

        Raises:
            ForgettableSegError: OUTPUT_UNWRITABLE.
        """
        self._keys.pop(suspect.case, None)
        key = self._labelKey(suspect.case)
        self.reviews.decide(Decision(suspect.case, state, suspect.axis, suspect.slice, key))
        self._follow(suspect.case, key)
        self.reviews.write()

    def labelClasses(self, case: str) -> list[SegmentClass]:
        """Return the classes with the values that the label file of a case has for them."""
        values = self.cases[case].values
        return [
            SegmentClass(name=each.name, value=values[each.name], color=each.color, terminology=each.terminology)
            for each in self.task.classes
            if each.name in values
        ]

    def progress(self) -> str:
        """Return one sentence on how far the review is."""
        counts, left = self.reviews.counts(), len(self.open())
        done = len(self.suspects) - left
        text = _("{done} of {count} slices decided. In all: {confirmed} confirmed, {fixed} fixed, {out} quarantined.")
        return text.format(
            done=done,
            count=len(self.suspects),
            confirmed=counts["confirmed"],
            fixed=counts["fixed"],
            out=counts["quarantined"],
        )

    def _labelKey(self, case: str) -> str:
        if case not in self._keys:
            self._keys[case] = label_key(self.cases[case].label)
        return self._keys[case]

    def _follow(self, case: str, key: str) -> None:
        """A correction of one slice changes the file of all: the other decisions on it hold for the new one."""
        for each in self.reviews.decisions:
            if each.case == case and each.state != "quarantined" and each.label != key:
                self.reviews.decide(Decision(case, each.state, each.axis, each.slice, key, each.time))


@dataclass(frozen=True)
class FindState:
    """Everything that decides whether suspicious labels can be looked for, or an earlier result be opened."""

    missing: tuple[str, ...] = ()
    path: str = ""
    modelKnown: bool = False
    whyNoModels: str = ""
    busy: str = ""

    @property
    def isResult(self) -> bool:
        """Whether the path is that of an earlier result."""
        return Path(self.path).name == RESULT_FILE

    def isValid(self) -> tuple[bool, str]:
        """Return whether it can start, and if not one sentence that says why."""
        reasons = (
            (not self.path, _("Choose labelled cases, or the file suspects.json of an earlier search.")),
            (self.isResult, ""),
            (bool(self.missing), _("Install the missing packages in Setup first.")),
            (not self.modelKnown, self.whyNoModels or _("Choose a model in Segment first.")),
            (bool(self.busy), _("Wait until the running job has ended: {title}.").format(title=self.busy)),
        )
        reason = next((text for holds, text in reasons if holds), "")
        return not reason, reason


def suspectRows(suspects: list[Suspect]) -> list[list[str | float]]:
    """Return the rows of the table."""
    return [
        [
            each.case,
            f"{each.axis} {each.slice}",
            _("{wanted}, not {label}").format(wanted=each.wanted, label=each.className),
            round(each.score, 1),
        ]
        for each in suspects
    ]


def suspectSentence(suspect: Suspect) -> str:
    """Return one sentence on a suspect."""
    text = _("Labelled {label} (yellow); the model wants {wanted} (pink).")
    return text.format(label=suspect.className, wanted=suspect.wanted)


def backupOf(label: Path) -> Path:
    """Return where the label file is kept as it was before it was corrected first."""
    return label.parent / "before_review" / label.name


def canBeCorrected(label: Path) -> bool:
    """Whether a label file is one file that can be replaced."""
    return label.name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".mha"))


def _case(row: Mapping[str, Any]) -> SuspectCase:
    return SuspectCase(
        images=tuple(Path(path) for path in row["images"]),
        label=Path(row["label"]),
        predicted=Path(row["predicted"]),
        values={str(name): int(value) for name, value in row["values"].items()},
    )


def _suspect(row: Mapping[str, Any]) -> Suspect:
    left, posterior, superior = (float(value) for value in row["position_lps"])
    return Suspect(
        case=str(row["case"]),
        axis=str(row["axis"]),
        slice=int(row["slice"]),
        className=str(row["class"]),
        wanted=str(row["wanted"]),
        score=float(row["score"]),
        position=(-left, -posterior, superior),
    )
