"""Text prompts: one string a foreground class, from the paper's templates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ForgettableSegLib.cases.task import SegmentClass

OBJECT = "[object]"

_ARTICLE = re.compile(r"\b(a) \[object\]", re.IGNORECASE)
# Sounds, not letters: "a uterus", "a urinary bladder", but "an ulna"; "an MS lesion", but "a CT".
_VOWEL = re.compile(r"(?!(?i:eu|u(?:te|re|ri|ni|se|su)|one\b))(?i:[aeiou])|[FHLMNRSX][A-Z]{0,3}\b")

# The three of the paper's Table 4, with the modality's own words; the first is the default.
TEMPLATES: dict[str, tuple[str, str, str]] = {
    "MR": (
        f"A magnetic resonance imaging of a {OBJECT}",
        f"There is {OBJECT} in this magnetic resonance imaging",
        f"A photo of a {OBJECT}",
    ),
    "CT": (
        f"A computerized tomography of a {OBJECT}",
        f"There is {OBJECT} in this computerized tomography",
        f"A photo of a {OBJECT}",
    ),
}
_OTHER_MODALITY = (
    f"A medical image of a {OBJECT}",
    f"There is {OBJECT} in this medical image",
    f"A photo of a {OBJECT}",
)


def templates_for(modality: str) -> tuple[str, str, str]:
    """The templates of a modality ("MR", "CT" or any other), default first."""
    return TEMPLATES.get(modality, _OTHER_MODALITY)


def prompt_for(cls: SegmentClass, modality: str, template: str | None = None) -> str:
    """The prompt of one class.

    Args:
        cls: its ``prompt`` stands for its name; where it holds ``[object]`` it is a template of its own for the name.
        modality: "MR", "CT" or any other.
        template: the template of the classes that have none of their own; default: the modality's first.
    """
    name = cls.name.replace("_", " ")
    if OBJECT in cls.prompt:
        return fill(cls.prompt, name)
    return fill(template or templates_for(modality)[0], cls.prompt or name)


def fill(template: str, name: str) -> str:
    """A template with the name of a structure in it, and the article before it that fits."""
    if _VOWEL.match(name):
        template = _ARTICLE.sub(rf"\1n {OBJECT}", template)
    return template.replace(OBJECT, name)


def object_of(prompt: str) -> str:
    """The structure that a prompt from one of the templates names; of another prompt all of it."""
    for template in (*(each for group in TEMPLATES.values() for each in group), *_OTHER_MODALITY):
        pattern = _ARTICLE.sub(f"\\1n? {OBJECT}", template).replace(OBJECT, "(.+)")
        found = re.fullmatch(pattern, prompt.strip(), re.IGNORECASE)
        if found:
            return found.group(found.re.groups)
    return prompt
