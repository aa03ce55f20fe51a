"""What a structure is in SNOMED CT, from its name or prompt: a segment's terminology entry and its colour."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.cases.structures import structure_table

if TYPE_CHECKING:
    from ForgettableSegLib.cases.task import SegmentClass

Code = tuple[str, str, str]
"""Coding scheme, value, meaning."""

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

# Colours of structures that have none: told apart on dark images and by most people who see colours otherwise.
_FALLBACK_COLORS: tuple[Color, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (120, 120, 255),
    (160, 220, 90),
)
_SAME_COLOR = 60.0  # Euclidean distance in RGB below which two segments are mistaken for each other
_CONTAINERS = frozenset(
    {"tomography", "resonance", "imaging", "image", "scan", "ct", "mr", "mri", "pet", "ultrasound", "photo"}
)
_ARTICLES = frozenset({"a", "an", "the"})
_SHORT_SIDES = {"l": "left", "r": "right", "lt": "left", "rt": "right"}


@dataclass(frozen=True)
class Terminology:
    """What a segment is.

    Args:
        category: for example Anatomical Structure.
        type: for example Kidney.
        modifier: for example Left, or None.
        region: where it lies, for what has no place of its own (a tumor), or None.
        regionModifier: for example Left, or None.
        context: name of the terminology that Slicer looks the category and the type up in.
        regionContext: name of the terminology of the region; empty without a region.
        color: recommended colour, or None.
    """

    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    regionModifier: Code | None = None
    context: str = ""
    regionContext: str = ""
    color: Color | None = None

    def entry(self) -> str:
        """Return the entry as Slicer writes it on a segment."""
        codes = (self.category, self.type, self.modifier)
        region = (self.region, self.regionModifier)
        parts = [self.context, *map(_codeText, codes), self.regionContext, *map(_codeText, region)]
        return "~".join(parts)

    def isSameStructure(self, other: Terminology) -> bool:
        """Whether both say the same structure, whatever contexts, meanings and colours they name."""
        return self.codes() == other.codes()

    def isUnspecific(self) -> bool:
        """Whether it says no more than "tissue", so that only the segment's name tells what it is."""
        fallback = structure_table()["fallback"]
        return self.type[:2] == tuple(fallback["type"][:2]) and self.modifier is None and self.region is None

    def toDict(self) -> dict[str, Any]:
        """Return the codes as a task's JSON carries them."""
        content: dict[str, Any] = {"category": list(self.category), "type": list(self.type)}
        content["modifier"] = None if self.modifier is None else list(self.modifier)
        if self.region is not None:
            content["region"] = list(self.region)
            content["region_modifier"] = None if self.regionModifier is None else list(self.regionModifier)
        return content

    def codes(self) -> tuple[str, str, str, str]:
        """Return the codes of type, modifier, region and the region's modifier, "" for each that there is not."""
        type_, modifier, region, side = (
            code[1] if code else "" for code in (self.type, self.modifier, self.region, self.regionModifier)
        )
        return type_, modifier, region, side


def terminologyOfClass(segmentClass: SegmentClass) -> Terminology:
    """Return what a class of a task is: by its own codes, else by its name, else by its prompt, else "tissue"."""
    if segmentClass.terminology:
        return terminologyFromDict(segmentClass.terminology)
    return findTerminology(segmentClass.name, segmentClass.prompt) or _fallback()


def terminologyFromDict(codes: Mapping[str, Any]) -> Terminology:
    """Return the terminology of a task's JSON: "category", "type" and perhaps "modifier", "region" and its modifier."""
    category, type_, modifier = (codes.get(name) for name in ("category", "type", "modifier"))
    region, side = codes.get("region"), codes.get("region_modifier")
    if not type_:
        return _fallback()
    known = next((each for each in _structures() if each.type[:2] == tuple(type_[:2])), None)
    table = structure_table()
    return Terminology(
        category=_code(category or table["default_category"]),
        type=_code(type_),
        modifier=_code(modifier) if modifier else None,
        region=_code(region) if region else None,
        regionModifier=_code(side) if region and side else None,
        context=known.context if known else table["contexts"]["other"],
        regionContext=table["contexts"]["region"] if region else "",
        color=known.color if known else None,
    )


def findTerminology(name: str, prompt: str = "") -> Terminology | None:
    """Return what is called `name`, or else what the prompt speaks of; None if neither is known.

    Left and right, anterior and posterior are understood, and so is an organ named together with a lesion in it.
    """
    for text in (name, prompt):
        found = _findWords(_words(text))
        if found is not None:
            return found
    return None


def parseTerminology(entry: str) -> Terminology | None:
    """Return the terminology of a segment's entry text, or None where it says nothing."""
    parts = (entry or "").split("~")
    if len(parts) < 4:
        return None
    parts += [""] * (7 - len(parts))
    codes = [_codeFromText(parts[index]) for index in (1, 2, 3, 5, 6)]
    if codes[0] is None or codes[1] is None:
        return None
    return Terminology(*codes, context=parts[0], regionContext=parts[4])


def colorsOfClasses(classes: Sequence[SegmentClass]) -> list[Color]:
    """Return a colour for each class: its own, else the recommended one, else one by its position; no two alike.

    Args:
        classes: foreground classes in the task's order; the same list always gives the same colours.
    """
    colors: list[Color] = []
    for index, each in enumerate(classes):
        if each.color is not None:
            colors.append(_color(each.color))
            continue
        terminology = terminologyOfClass(each)
        recommended = None if terminology.isUnspecific() else terminology.color
        colors.append(_distinct(recommended or _fallbackColor(index), colors))
    return colors


def _findWords(words: list[str]) -> Terminology | None:
    names = _names()
    if not words:
        return None
    if (found := names.get(" ".join(words))) is not None:
        return found
    sides = [word for word in words if word in ("left", "right")]
    rest = [word for word in words if word not in ("left", "right")]
    if len(sides) == 1 and rest:
        return _findSided(rest, sides[0])
    ends = [word for word in words if word in ("anterior", "posterior")]
    if not sides and len(ends) == 1:
        whole = names.get(" ".join(word for word in words if word not in ends))
        if whole is not None:
            return replace(whole, modifier=_code(structure_table()["modifiers"][ends[0]]))
    return _findLesion(words, None)


def _findSided(words: list[str], side: str) -> Terminology | None:
    """A structure with left or right said of it; only of those that come in pairs, so that no name is bent."""
    code = _code(structure_table()["modifiers"][side])
    found = _names().get(" ".join(words))
    if found is None or " ".join(words) not in _pairedNames():
        return _findLesion(words, code)
    if found.modifier is not None:  # anterior or posterior stands there already, so the side is said of the region
        region = structure_table()["contexts"]["region"]
        return replace(found, region=found.type, regionModifier=code, regionContext=region)
    return replace(found, modifier=code)


def _findLesion(words: list[str], side: Code | None) -> Terminology | None:
    """A lesion with the organ that it lies in: "liver tumor", "cyst of the kidney"."""
    names, table = _names(), structure_table()
    for count in range(min(3, len(words)), 0, -1):
        for lesion, organ in ((words[-count:], words[:-count]), (words[:count], words[count:])):
            found = names.get(" ".join(lesion))
            if found is None or found.category[1] != "49755003":  # morphologically altered structures
                continue
            organ = [word for word in organ if word not in ("of", "in")]
            place = names.get(" ".join(organ)) if organ else None
            if place is None:
                return replace(found, modifier=side) if not organ else None
            return replace(found, region=place.type, regionModifier=side, regionContext=table["contexts"]["region"])
    return None


def _words(text: str) -> list[str]:
    """Return the words of a structure's name, without articles and without the prompt's talk of an image."""
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    words = re.sub(r"[^a-z0-9]+", " ", separated.lower()).split()
    for index, word in enumerate(words):
        if word == "of" and _CONTAINERS.intersection(words[:index]):
            words = words[index + 1 :]
            break
    words = [word for word in words if word not in _ARTICLES]
    if len(words) > 1:
        words = [_SHORT_SIDES.get(word, word) for word in words]
    return words


@lru_cache(maxsize=1)
def _names() -> dict[str, Terminology]:
    return {
        name: structure
        for row, structure in zip(structure_table()["structures"], _structures(), strict=True)
        for name in (row["name"], *row["synonyms"], *row.get("kinds", ()))
    }


@lru_cache(maxsize=1)
def _pairedNames() -> frozenset[str]:
    rows = [row for row in structure_table()["structures"] if row.get("paired")]
    return frozenset(name for row in rows for name in (row["name"], *row["synonyms"]))


@lru_cache(maxsize=1)
def _structures() -> tuple[Terminology, ...]:
    table = structure_table()
    return tuple(
        Terminology(
            category=_code(row.get("category", table["default_category"])),
            type=_code(row["type"]),
            modifier=_code(row["modifier"]) if "modifier" in row else None,
            region=_code(row["region"]) if "region" in row else None,
            context=table["contexts"]["listed" if row.get("listed", True) else "other"],
            regionContext=table["contexts"]["region"] if "region" in row else "",
            color=_color(row["color"]),
        )
        for row in table["structures"]
    )


def _fallback() -> Terminology:
    table = structure_table()
    codes = table["fallback"]
    return Terminology(_code(codes["category"]), _code(codes["type"]), context=table["contexts"]["listed"])


def _fallbackColor(index: int) -> Color:
    if index < len(_FALLBACK_COLORS):
        return _FALLBACK_COLORS[index]
    hue = (index * 0.618034) % 1.0  # the golden ratio spreads hues evenly, however many there are
    return _color(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.65, 0.95))


def _distinct(color: Color, taken: Sequence[Color]) -> Color:
    """Return the colour, or a neighbour of it where it would be mistaken for a taken one (the other kidney)."""
    candidates = [color, *(_varied(color, hue, light) for light in (0.25, 0.0, 0.4) for hue in (0.0, 0.12, -0.12, 0.3))]
    candidates += [_fallbackColor(len(taken) + index) for index in range(20)]
    for candidate in candidates:
        if all(_distance(candidate, other) >= _SAME_COLOR for other in taken):
            return candidate
    return max(candidates, key=lambda each: min(_distance(each, other) for other in taken))


def _varied(color: Color, hue: float, light: float) -> Color:
    """The colour with its hue turned (1 is a full turn) and brought nearer to white, never darker: views are black."""
    ownHue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in color))
    channels = colorsys.hls_to_rgb((ownHue + hue) % 1.0, lightness + (1 - lightness) * light, max(saturation, 0.4))
    return _color(round(255 * channel) for channel in channels)


def _distance(first: Color, second: Color) -> float:
    return sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5


def _color(channels: Iterable[int]) -> Color:
    red, green, blue = (int(channel) for channel in channels)
    return red, green, blue


def _code(texts: Iterable[str]) -> Code:
    scheme, value, meaning = (str(text) for text in texts)
    return scheme, value, meaning


def _codeText(code: Code | None) -> str:
    return "^".join(code or ("", "", ""))


def _codeFromText(text: str) -> Code | None:
    parts = text.split("^")
    return _code(parts) if len(parts) == 3 and parts[1] else None
