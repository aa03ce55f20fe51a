"""What the running application (Slicer 5.13) told of its classes, as far as the project uses them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "Python" / "data" / "slicer_gui_api_extract.json"
# What PythonQt gives to every object, beside what the class itself tells.
_EVERYWHERE = {"connect", "disconnect", "delete", "className", "inherits", "help"}


@functools.cache
def classes() -> dict[str, Any]:
    """The classes by name: "mro", "properties", "signals", "names" (all that Python sees), "designer"."""
    return json.loads(FILE.read_text(encoding="utf-8"))["classes"]


def ancestors(name: str) -> list[str]:
    """The class and those it inherits from, as far as they are known."""
    known = classes()
    return [each for each in (known.get(name, {}).get("mro") or [name]) if each in known]


@functools.cache
def properties(name: str) -> frozenset[str]:
    """Names of the properties, inherited ones included."""
    return frozenset(each for ancestor in ancestors(name) for each in classes()[ancestor].get("properties", ()))


@functools.cache
def signals(name: str) -> frozenset[str]:
    """Signatures of the signals, inherited ones included."""
    return frozenset(each for ancestor in ancestors(name) for each in classes()[ancestor].get("signals", ()))


@functools.cache
def names(name: str) -> frozenset[str]:
    """Everything that Python sees on the class."""
    seen = frozenset(each for ancestor in ancestors(name) for each in classes()[ancestor].get("names", ()))
    return seen | properties(name) | {signature.partition("(")[0] for signature in signals(name)} | _EVERYWHERE


def require(className: str, name: str) -> None:
    """Refuse a name that Slicer's class lacks.

    Raises:
        AttributeError: naming both.
    """
    if className not in classes():
        msg = f"the class {className} is not in the extract of Slicer's interface; make the extract anew"
        raise AttributeError(msg)
    if name not in names(className):
        msg = f"in Slicer, {className} has no {name}"
        raise AttributeError(msg)


def requireSignal(className: str, signature: str) -> None:
    """Refuse a signal that Slicer's class lacks; in Slicer a misspelt one is only a warning.

    Raises:
        AttributeError: naming both.
    """
    if signature not in signals(className):
        msg = f"in Slicer, {className} has no signal {signature}; it has {sorted(signals(className))}"
        raise AttributeError(msg)
