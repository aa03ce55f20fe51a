"""What is said of the bank of hard samples, without Qt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..i18n import tr as _


@dataclass(frozen=True)
class BankSample:
    """A hard sample in the bank."""

    case: str
    slice: int
    position: tuple[float, float, float]  # RAS, mm
    className: str
    score: float
    age: int
    replays: int
    sliceAxis: int = 0


def bankFromList(content: Any, *, sliceAxis: int = 0) -> list[BankSample]:
    """Return the samples that the library wrote, hardest first; what cannot be read is left out."""
    samples = []
    for row in content if isinstance(content, list) else []:
        try:
            left, posterior, superior = (float(value) for value in row["position_lps"])
            samples.append(
                BankSample(
                    case=str(row["case"]),
                    slice=int(row["slice"]),
                    position=(-left, -posterior, superior),
                    className=str(row.get("class") or ""),
                    score=float(row.get("score") or 0.0),
                    age=int(row.get("age") or 0),
                    replays=int(row.get("replays") or 0),
                    sliceAxis=sliceAxis,
                )
            )
        except (KeyError, TypeError, ValueError):
            continue
    return sorted(samples, key=lambda sample: -sample.score)


def sampleCaption(sample: BankSample) -> str:
    """Return the text under a thumbnail."""
    return "{} · {}".format(sample.className or "-", f"{sample.score:.2f}")


def sampleToolTip(sample: BankSample) -> str:
    """Return all that is known of a sample."""
    return _("{case}, slice {slice}: {name}\nScore {score:.2f}, {age} iterations old, replayed {replays} times").format(
        case=sample.case,
        slice=sample.slice,
        name=sample.className or "-",
        score=sample.score,
        age=sample.age,
        replays=sample.replays,
    )


def bankSentence(values: Mapping[str, Any]) -> str:
    """Return one line on the bank from its metric event."""
    return _("Sample bank: {size} of {capacity} samples, {replays} replays, {suspects} suspects").format(
        size=int(values.get("size") or 0),
        capacity=int(values.get("capacity") or 0),
        replays=int(values.get("replays") or 0),
        suspects=int(values.get("suspects") or 0),
    )
