"""Names of structures: their words in one spelling, and which names mean the same (standard library only)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ForgettableSegLib.resources import resources_dir

SIDES = frozenset({"left", "right"})

_SHORT_SIDES = {"l": "left", "r": "right", "lt": "left", "rt": "right", "lh": "left", "rh": "right"}
_FILLERS = frozenset({"a", "an", "the", "of", "in"})
_SPELLINGS = {
    "grey": "gray",
    "tumour": "tumor",
    "oesophagus": "esophagus",
    "oedema": "edema",
    "haemorrhage": "hemorrhage",
    "haematoma": "hematoma",
    "caecum": "cecum",
    "foetal": "fetal",
}
# Words in "s" that are no plurals and whose ending does not tell so.
_SINGULAR = frozenset({"pons", "lens", "pancreas", "gas", "atlas", "biceps", "triceps"})
_LESIONS = "49755003"  # morphologically altered structures
# Words that make another structure of the one they stand beside.
_POSITIONS = frozenset({
    "anterior", "posterior", "superior", "inferior", "upper", "lower", "middle", "medial", "lateral", "ventral",
    "dorsal", "proximal", "distal", "deep", "inner", "outer", "central", "peripheral", "internal", "external",
    "ascending", "descending", "third", "fourth", "common",
})  # fmt: skip
_PARTS = frozenset({
    "wall", "lobe", "head", "body", "tail", "neck", "stem", "core", "rim", "margin", "cavity", "canal", "capsule",
    "cortex", "medulla", "horn", "zone", "nerve", "duct", "vessel", "artery", "vein", "hyperintensity",
    "calcification", "whole", "enhancing", "and", "or", "not", "without",
})  # fmt: skip


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in one spelling: lower case, singular, American, sides written out, without articles.

    `words_of("Kidneys_R") == ("kidney", "right")`.
    """
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.sub(r"[\W_]+", " ", separated).casefold().split()
    words = [_singular(word) for word in words if word not in _FILLERS]
    words = [_SPELLINGS.get(word, word) for word in words]
    return tuple(_SHORT_SIDES.get(word, word) for word in words) if len(words) > 1 else tuple(words)


def key_of(name: str) -> tuple[str, ...]:
    """The words of a name without their order: equal for names that are spelt alike."""
    return tuple(sorted(words_of(name)))


def names_a_side(names: Iterable[str]) -> bool:
    """Whether one of these names or sentences says left or right."""
    return any(SIDES.intersection(words_of(name)) for name in names)


@lru_cache(maxsize=4096)
def meaning_of(name: str) -> frozenset[str] | None:
    """The structures, and the side, that a name stands for, in the names of the table; None for an unknown one.

    A lesion with the organ that it lies in stands for both: "liver cancer" for "liver" and "tumor".
    """
    words = words_of(name)
    found = _whole_meaning(words)
    for cut in range(1, len(words)):
        if found is not None:
            break
        first, second = _whole_meaning(words[:cut]), _whole_meaning(words[cut:])
        if first and second and (first | second) & _lesions():
            found = first | second
    return found


def telling_words(name: str) -> frozenset[str]:
    """Those words of a name without which it means another structure: sides, positions, parts, lesions, numbers."""
    telling = SIDES | _POSITIONS | _PARTS | _lesion_words()
    return frozenset(word for word in words_of(name) if word in telling or any(map(str.isdigit, word)))


def _whole_meaning(words: tuple[str, ...]) -> frozenset[str] | None:
    names = _names()
    if (row := names.get(tuple(sorted(words)))) is not None:
        return frozenset({row})
    sides = SIDES.intersection(words)
    rest = tuple(sorted(word for word in words if word not in SIDES))
    if len(sides) == 1 and (row := names.get(rest)) is not None:
        return frozenset({row, *sides})
    return None


def _singular(word: str) -> str:
    if len(word) < 4 or word in _SINGULAR or word.endswith(("us", "is", "ss")):
        return word
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("ae", "a"), ("campi", "campus"), ("s", "")):
        if word.endswith(plural):
            return word.removesuffix(plural) + singular
    return word


@lru_cache(maxsize=1)
def structure_table() -> dict[str, Any]:
    """The content of Resources/Terminology/structures.json."""
    path = resources_dir() / "Terminology" / "structures.json"
    return json.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _names() -> dict[tuple[str, ...], str]:
    """Name of the structure by the key of each of its names; what only shares its code ("kinds") is one of its own."""
    names = {key_of(kind): kind for row in structure_table()["structures"] for kind in row.get("kinds", ())}
    names |= {key_of(name): row["name"] for row in structure_table()["structures"] for name in row["synonyms"]}
    return names | {key_of(row["name"]): row["name"] for row in structure_table()["structures"]}


@lru_cache(maxsize=1)
def _lesions() -> frozenset[str]:
    rows = [row for row in structure_table()["structures"] if row.get("category", ("", ""))[1] == _LESIONS]
    return frozenset(name for row in rows for name in (row["name"], *row.get("kinds", ())))


@lru_cache(maxsize=1)
def _lesion_words() -> frozenset[str]:
    rows = [row for row in structure_table()["structures"] if row.get("category", ("", ""))[1] == _LESIONS]
    names = [name for row in rows for name in (row["name"], *row["synonyms"])]
    return frozenset(word for name in names for word in words_of(name))
