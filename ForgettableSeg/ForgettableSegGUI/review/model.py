"""What the Review panel shows: the hardest slices, a summary of the classes, the reviewed cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..i18n import tr as _
from ..reviews import ClassSummary, HardSlice, Review


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
    words = {
        "empty": _("nothing found"),
        "usual": _("as usual"),
        "hard": _("harder than usual"),
        "unlike": _("unlike the training"),
    }
    return [[name, round(review.percentile or 0.0, 1), words.get(review.verdict, "-")] for name, review in ordered]


def caseSentence(review: Review | None) -> str:
    """Return one sentence on the whole case."""
    if review is None:
        return _("Choose a segmentation that was made with the heatmap.")
    if review.percentile is None:
        return ""
    text = _("This case is harder than {percentile:.0f} % of the training cases.").format(percentile=review.percentile)
    if review.verdict == "unlike":
        return _("This case is unlike anything that was held out of the training. Do not trust its segmentation.")
    return f"{text} {_('Look at it with care.')}" if review.verdict == "hard" else text


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


def referenceSentence(mapping: Mapping[str, str], matched: str, *, chosen: bool) -> str:
    """Return what is said of a reference whose segments are not all called like classes.

    Args:
        mapping: class by name of the segment.
        matched: what the matcher says.
        chosen: whether the user has chosen classes, so that what the matcher says no longer holds.
    """
    if not any(mapping.values()):
        return _("Say in the table which class each segment of the reference stands for.")
    left = [name for name, chosenClass in mapping.items() if not chosenClass]
    text = _("The classes of the reference are those that you chose.") if chosen else matched
    return text + (" " + _("Left out: {names}.").format(names=", ".join(left)) if left and chosen else "")


@dataclass(frozen=True)
class CompareState:
    """Everything that decides whether a comparison with a reference can start."""

    missing: tuple[str, ...] = ()
    hasResult: bool = False
    hasReference: bool = False
    modelKnown: bool = False
    whyNoModels: str = ""
    same: bool = False
    matched: bool = True
    busy: str = ""

    def isValid(self) -> tuple[bool, str]:
        """Return whether the comparison can start, and if not one sentence that says why."""
        reasons = (
            (bool(self.missing), _("Install the missing packages in Setup first.")),
            (not self.hasResult, _("Choose a segmentation that was made here.")),
            (not self.hasReference, _("Choose a reference segmentation.")),
            (self.same, _("The reference must be another segmentation than the result.")),
            (
                not self.modelKnown,
                self.whyNoModels or _("The model of this segmentation is not installed any more."),
            ),
            (not self.matched, _("Say which class each segment of the reference stands for.")),
            (bool(self.busy), _("Wait until the running job has ended: {title}.").format(title=self.busy)),
        )
        reason = next((text for holds, text in reasons if holds), "")
        return not reason, reason
