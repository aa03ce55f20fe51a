"""Where a model's structures lie in its locator's template: the part of a locator that model.json holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

TEMPLATE = "locator.template"
"""Name of the template among a package's tensors: uint8 [z, y, x], 0 outside of what is compared."""

LARGEST_TEMPLATE = 300_000
"""Most voxels (bytes) of a template."""

COARSEST_TEMPLATE = 4.0
"""Largest distance of its voxels, mm."""

SIDES = ("left", "right")
_MOST_REGIONS = 16

Point = tuple[float, float, float]


@dataclass(frozen=True)
class LocatorRegion:
    """A box of the template that is segmented as if it were a volume of its own.

    Args:
        name: of the region.
        box: lowest and highest corner in the template's LPS millimetres.
        side: "left" or "right", which the names of its classes then begin with, or None.
        mirror: whether it is turned left to right before the network sees it, for a model that has learnt one side.
    """

    name: str
    box: tuple[Point, Point]
    side: str | None = None
    mirror: bool = False


@dataclass(frozen=True)
class LocatorCard:
    """What ``locator`` in a model.json says.

    Args:
        spacing: of the template, mm, along x, y, z.
        origin: position of its first voxel, LPS mm; its axes are those of the LPS frame.
        regions: what is cut out.
        threshold: least fit at which the template counts as found, 0 to 1.
        source: where the template comes from, with its licence.
    """

    spacing: Point
    origin: Point
    regions: tuple[LocatorRegion, ...]
    threshold: float
    source: str = ""

    @classmethod
    def from_dict(cls, content: Any) -> LocatorCard:
        """Build it from JSON content.

        Raises:
            ForgettableSegError: MODEL_INVALID, naming what is wrong.
        """
        keys = {"spacing", "origin", "regions", "threshold", "source"}
        if not isinstance(content, Mapping) or not keys - {"source"} <= set(content) <= keys:
            raise _invalid("does not hold spacing, origin, regions and threshold")
        spacing, origin = (_point(content[key], key) for key in ("spacing", "origin"))
        if not all(0.5 <= step <= COARSEST_TEMPLATE for step in spacing):
            raise _invalid(f"has a template of another spacing than 0.5 to {COARSEST_TEMPLATE:g} mm")
        threshold = content["threshold"]
        if not _is_number(threshold) or not 0 < threshold < 1:
            raise _invalid("has a threshold that is no number between 0 and 1")
        if not isinstance(content.get("source", ""), str):
            raise _invalid("has a source that is not text")
        regions = read_regions(content["regions"])
        return cls(spacing, origin, regions, float(threshold), content.get("source", ""))

    def to_dict(self) -> dict[str, Any]:
        """Content for JSON."""
        return asdict(self)


def read_regions(content: Any) -> tuple[LocatorRegion, ...]:
    """Build regions from JSON content: a list of {"name", "box": [[x, y, z], [x, y, z]], "side", "mirror"}.

    Raises:
        ForgettableSegError: MODEL_INVALID, naming what is wrong.
    """
    if not isinstance(content, list | tuple) or not 1 <= len(content) <= _MOST_REGIONS:
        raise _invalid(f"does not hold 1 to {_MOST_REGIONS} regions")
    regions = tuple(map(_region, content))
    if len({each.name for each in regions}) != len(regions):
        raise _invalid("has two regions of one name")
    sides = [each.side for each in regions]
    if len(regions) > 1 and (None in sides or len(set(sides)) != len(sides)):
        raise _invalid("has several regions, which need a side of their own each")
    return regions


def _region(content: Any) -> LocatorRegion:
    if not isinstance(content, Mapping) or not {"name", "box"} <= set(content) <= {"name", "box", "side", "mirror"}:
        raise _invalid("has a region that does not hold a name and a box, and perhaps side and mirror")
    name, box, side = content["name"], content["box"], content.get("side")
    if not isinstance(name, str) or not 0 < len(name.strip()) <= 64:
        raise _invalid("has a region without a name")
    if side is not None and side not in SIDES:
        raise _invalid(f"has a region '{name}' with a side that is neither left nor right")
    if not isinstance(content.get("mirror", False), bool):
        raise _invalid(f"has a region '{name}' whose mirror is neither true nor false")
    if not isinstance(box, list | tuple) or len(box) != 2:
        raise _invalid(f"has a region '{name}' whose box is not two corners")
    low, high = (_point(corner, f"the box of '{name}'") for corner in box)
    if not all(5 <= b - a <= 400 for a, b in zip(low, high, strict=True)):
        raise _invalid(f"has a region '{name}' that is not 5 to 400 mm long along each axis")
    return LocatorRegion(name, (low, high), side, content.get("mirror", False))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _point(value: Any, name: str) -> Point:
    numbers: Iterable[Any] = value if isinstance(value, list | tuple) and len(value) == 3 else (None,)
    if not all(_is_number(one) and abs(one) <= 1e4 for one in numbers):
        raise _invalid(f"does not hold three numbers for {name}")
    return tuple(float(one) for one in value)


def _invalid(reason: str) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.MODEL_INVALID, f"The locator {reason}.")
