"""The card of a model as the panels show it, read from what the library says of the model."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ForgettableSegError

from .i18n import tr as _


@dataclass(frozen=True)
class ModelCard:
    """What there is to know of a model before using it.

    Args:
        name: the name under which the library finds the model.
        title: how the model is called on the screen.
        task: its modality, channels and classes.
        prompts: the text of each foreground class, in the task's order.
        spacing: resolution at which it works, in mm; None for an axis that keeps the case's own.
        learntSize: length of the volumes that it has learnt, along R, A, S in mm; None where nobody measured.
        heldOut: Dice by class (and "mean") on cases kept out of its training.
        shipped: whether it came with the extension and stays.
    """

    name: str
    title: str
    task: Task
    prompts: tuple[str, ...] = ()
    description: str = ""
    licence: str = ""
    attribution: str = ""
    spacing: tuple[float | None, ...] = ()
    spatialDims: int = 2
    learntSize: tuple[float, ...] | None = None
    heldOut: Mapping[str, float] = field(default_factory=dict)
    path: str = ""
    bytes: int = 0
    shipped: bool = False

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the input channels."""
        return tuple(self.task.channels)

    @property
    def classNames(self) -> tuple[str, ...]:
        """Names of the foreground classes."""
        return tuple(each.name for each in self.task.classes)


def cardFromDict(entry: Mapping[str, Any]) -> ModelCard | None:
    """Return the card of a model from the library's answer, or None where the answer cannot be used."""
    card = entry.get("card") or entry
    try:
        task = Task.from_dict(card["task"])
    except (KeyError, TypeError, ForgettableSegError):
        return None
    preprocessing, text = card.get("preprocessing") or {}, card.get("text") or {}
    metrics = (card.get("metrics") or {}).get("held_out") or {}
    return ModelCard(
        name=str(entry.get("name") or card.get("name") or ""),
        title=str(card.get("title") or card.get("name") or entry.get("name") or ""),
        task=task,
        prompts=tuple(str(prompt) for prompt in text.get("prompts") or ()),
        description=str(card.get("description") or ""),
        licence=str(card.get("licence") or ""),
        attribution=str(card.get("attribution") or ""),
        spacing=tuple(preprocessing.get("spacing") or ()),
        spatialDims=int(preprocessing.get("spatial_dims") or 2),
        learntSize=_learntSize(card.get("field_of_view")),
        heldOut=heldOutDice(metrics),
        path=str(entry.get("path") or ""),
        bytes=int(entry.get("bytes") or 0),
        shipped=bool(entry.get("shipped")),
    )


@dataclass(frozen=True)
class BrokenModel:
    """A model folder that cannot be used, and why."""

    name: str
    problem: str
    bytes: int = 0
    shipped: bool = False


def brokenFromDict(entry: Mapping[str, Any]) -> BrokenModel:
    """Return what there is to say of a model that cannot be used."""
    problem = str(entry.get("problem") or _("The description of this model cannot be read."))
    return BrokenModel(str(entry.get("name") or ""), problem, int(entry.get("bytes") or 0), bool(entry.get("shipped")))


def _learntSize(fieldOfView: Any) -> tuple[float, ...] | None:
    """The median length along each axis."""
    try:
        return tuple(float(quantiles[1]) for quantiles in fieldOfView["extent_mm"])
    except (KeyError, TypeError, IndexError, ValueError):
        return None


def heldOutDice(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return Dice by class of held-out metrics, which are numbers or a mapping that holds "dice"."""
    source = metrics.get("dice") if isinstance(metrics.get("dice"), Mapping) else metrics
    found = {}
    for name, value in source.items():
        number = value.get("dice") if isinstance(value, Mapping) else value
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            found[str(name)] = float(number)
    return found


def cardSummary(card: ModelCard) -> str:
    """Return the card in two short lines of rich text."""
    facts = [card.task.modality, f"{card.spatialDims}D"]
    if card.heldOut:
        facts.append(_("Dice {dice} on held-out cases").format(dice=diceText(meanDice(card.heldOut))))
    classes = html.escape(", ".join(card.classNames))
    return "{}<br><span style='color:gray'>{}</span>".format(classes, html.escape(" · ".join(facts)))


def cardDetails(card: ModelCard) -> str:
    """Return all of the card as rich text, a fact a line."""
    rows = [
        (_("Classes"), ", ".join(card.classNames)),
        (_("Modality"), card.task.modality),
        (_("Channels"), ", ".join(card.channels)),
        (_("Network"), f"{card.spatialDims}D"),
        (_("Spacing"), spacingText(card.spacing)),
        (_("Held-out Dice"), ", ".join(f"{name} {diceText(dice)}" for name, dice in card.heldOut.items())),
        (_("Licence"), card.licence),
        (_("Source"), card.attribution),
    ]
    lines = [f"<b>{html.escape(name)}:</b> {html.escape(value)}" for name, value in rows if value]
    head = [html.escape(card.description)] if card.description else []
    return "<br>".join(head + lines)


def spacingText(spacing: Sequence[float | None]) -> str:
    """Return a resolution in words, an axis that keeps the case's own included."""
    if not any(spacing):
        return ""
    own = _("own")
    return " x ".join(own if value is None else f"{value:.2f}" for value in spacing) + " mm"


def meanDice(dice: Mapping[str, float]) -> float | None:
    """Return the mean that is given, or that of the classes."""
    if "mean" in dice:
        return dice["mean"]
    return sum(dice.values()) / len(dice) if dice else None


def diceText(dice: float | None) -> str:
    """Return a Dice with three digits, or a dash."""
    return "-" if dice is None else f"{dice:.3f}"


def sizeText(size: int) -> str:
    """Return a number of bytes in words."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
