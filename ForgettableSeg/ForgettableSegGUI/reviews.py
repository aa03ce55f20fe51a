"""The review of a case as the library wrote it: what is hard, where, and for which class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .i18n import tr as _

ESTIMATED = ("confidence", "prototype_ratio")
# Beside the difficulty, of models with a memory of each class.
SEGMENTED = (*ESTIMATED, "memory")
AUDITED = ("T1", "T2", "T3", "T4", "score")


def channelTitle(channel: str) -> str:
    """Return how a channel of the heatmap is called on the screen."""
    titles = {
        "confidence": _("Uncertainty"),
        "prototype_ratio": _("Atypicality"),
        "memory": _("Memory: which class's answers"),
        "T1": _("T1: far from its own prototype"),
        "T2": _("T2: near another prototype"),
        "T3": _("T3: squared error"),
        "T4": _("T4: missing confidence"),
        "score": _("Sum of T1 to T4"),
    }
    return titles.get(channel, channel)


def channelMeaning(channel: str) -> str:
    """Return one sentence that says what a channel of the heatmap measures."""
    meanings = {
        "confidence": _("One minus the probability of the predicted class: high where the model is unsure."),
        "prototype_ratio": _(
            "The distance to the prototype of the predicted class against that of the nearest other one: high where "
            "the tissue looks unlike what the model has learnt."
        ),
    }
    if channel == "memory":
        return _(
            "Which class's memory the model asked here, in equal steps: 0 is the background's, 100 that of the last "
            "class. Lower the threshold to see the others."
        )
    scale = _("All values are percentiles: 100 is as high as the highest in cases that were held out of the training.")
    return "<br>".join(filter(None, [meanings.get(channel, ""), scale]))


def legendTitle(channel: str) -> str:
    """Return the title of the legend, short enough to stand over its narrow bar."""
    return channelTitle(channel).partition(":")[0]


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
        verdict: "usual", "hard" or "unlike" beside the cases held out of the training, "empty" where nothing
            was found; no text where nobody can tell.
    """

    case: str
    channels: tuple[str, ...]
    sliceAxis: int
    slices: tuple[HardSlice, ...]
    classes: tuple[ClassSummary, ...]
    percentile: float | None
    verdict: str


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
        verdict=str(whole.get("verdict") or ""),
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
