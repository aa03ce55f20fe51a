"""What the Review panel shows: the hardest slices, a summary of the classes, the reviewed cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .i18n import tr as _

ESTIMATED = ("confidence", "prototype_ratio")
AUDITED = ("T1", "T2", "T3", "T4", "score")


def channelTitle(channel: str) -> str:
    """Return how a channel of the heatmap is called on the screen."""
    titles = {
        "confidence": _("Confidence (1 - probability)"),
        "prototype_ratio": _("Prototype ratio"),
        "T1": _("T1: far from its own prototype"),
        "T2": _("T2: near another prototype"),
        "T3": _("T3: squared error"),
        "T4": _("T4: missing confidence"),
        "score": _("Sum of T1 to T4"),
    }
    return titles.get(channel, channel)


@dataclass(frozen=True)
class HardSlice:
    """A slice of the list: where it is, for which class, and how hard it is."""

    slice: int
    className: str
    percentile: float
    difficulty: float
    area: float
    position: tuple[float, float, float]  # RAS, mm


@dataclass(frozen=True)
class ClassSummary:
    """One class of a reviewed case."""

    name: str
    volume: float | None
    difficulty: float | None
    above: float | None


@dataclass(frozen=True)
class Review:
    """The review of one case, as the library wrote it.

    Args:
        case: its name.
        channels: the channels of difficulty that there are.
        sliceAxis: 0 axial, 1 coronal, 2 sagittal.
        slices: hardest first.
        classes: in the task's order.
        percentile: of the whole case, against the training.
        above95: whether the case lies above the 95th percentile of the training.
    """

    case: str
    channels: tuple[str, ...]
    sliceAxis: int
    slices: tuple[HardSlice, ...]
    classes: tuple[ClassSummary, ...]
    percentile: float | None
    above95: bool


def reviewFromDict(content: Mapping[str, Any]) -> Review:
    """Return the review that the library wrote as JSON; what is missing is left empty."""
    whole = content.get("case_difficulty") or {}
    return Review(
        case=str(content.get("case") or ""),
        channels=tuple(content.get("channels") or ESTIMATED),
        sliceAxis=int(content.get("slice_axis") or 0),
        slices=tuple(_hardSlice(each) for each in content.get("slices") or ()),
        classes=tuple(_classSummary(each) for each in content.get("classes") or ()),
        percentile=_number(whole.get("percentile")),
        above95=bool(whole.get("above_95")),
    )


def _hardSlice(content: Mapping[str, Any]) -> HardSlice:
    left, posterior, superior = (float(value) for value in content["position_lps"])
    return HardSlice(
        slice=int(content["slice"]),
        className=str(content.get("class") or ""),
        percentile=_number(content.get("percentile")) or 0.0,
        difficulty=_number(content.get("difficulty")) or 0.0,
        area=_number(content.get("area_mm2")) or 0.0,
        position=(-left, -posterior, superior),
    )


def _classSummary(content: Mapping[str, Any]) -> ClassSummary:
    return ClassSummary(
        name=str(content.get("name") or ""),
        volume=_number(content.get("volume_ml")),
        difficulty=_number(content.get("mean_difficulty")),
        above=_number(content.get("share_above_95")),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def slicesOfClass(review: Review, className: str) -> list[HardSlice]:
    """Return the slices of one class, or all where the name is empty, hardest first."""
    return [each for each in review.slices if className in ("", each.className)]


def sliceRows(slices: Iterable[HardSlice]) -> list[list[str | float]]:
    """Return the rows of the table of slices; numbers stay numbers, for they are sorted."""
    return [[each.slice, each.className, round(each.percentile, 1), round(each.area, 1)] for each in slices]


def classRows(classes: Iterable[ClassSummary]) -> list[list[str]]:
    """Return the rows of the summary."""
    return [
        [
            each.name,
            "-" if each.volume is None else f"{each.volume:.2f}",
            "-" if each.difficulty is None else f"{each.difficulty:.2f}",
            "-" if each.above is None else f"{100 * each.above:.0f} %",
        ]
        for each in classes
    ]


def caseRows(reviews: Sequence[tuple[str, Review]]) -> list[list[str | float]]:
    """Return the rows of the table of cases from (name, review), hardest first."""
    ordered = sorted(reviews, key=lambda each: -(each[1].percentile or 0.0))
    return [
        [name, round(review.percentile or 0.0, 1), _("yes") if review.above95 else _("no")] for name, review in ordered
    ]


def caseSentence(review: Review | None) -> str:
    """Return one sentence on the whole case."""
    if review is None:
        return _("Choose a segmentation that was made with the heatmap.")
    if review.percentile is None:
        return ""
    text = _("This case is harder than {percentile:.0f} % of the training cases.").format(percentile=review.percentile)
    return f"{text} {_('Look at it with care.')}" if review.above95 else text


def slicesAsCsv(review: Review) -> str:
    """Return the table of slices as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "slice", "class", "difficulty", "percentile", "area_mm2", "r", "a", "s"])
    for each in review.slices:
        writer.writerow(
            [review.case, each.slice, each.className, each.difficulty, each.percentile, each.area, *each.position]
        )
    return text.getvalue()


def neighbour(row: int, step: int, count: int) -> int:
    """Return the row above or below, held at the ends of the list; -1 where the list is empty."""
    return -1 if count == 0 else min(count - 1, max(0, row + step))


@dataclass(frozen=True)
class CompareState:
    """Everything that decides whether a comparison with a reference can start."""

    missing: tuple[str, ...] = ()
    hasResult: bool = False
    hasReference: bool = False
    modelKnown: bool = False
    same: bool = False
    busy: str = ""

    def isValid(self) -> tuple[bool, str]:
        """Return whether the comparison can start, and if not one sentence that says why."""
        reasons = (
            (bool(self.missing), _("Install the missing packages in Setup first.")),
            (not self.hasResult, _("Choose a segmentation that was made here.")),
            (not self.hasReference, _("Choose a reference segmentation.")),
            (self.same, _("The reference must be another segmentation than the result.")),
            (not self.modelKnown, _("The model of this segmentation is not installed any more.")),
            (bool(self.busy), _("Wait until the running job has ended: {title}.").format(title=self.busy)),
        )
        reason = next((text for holds, text in reasons if holds), "")
        return not reason, reason
