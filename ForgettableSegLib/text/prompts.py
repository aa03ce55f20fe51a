"""Text prompts: one string a foreground class, from the paper's templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ForgettableSegLib.cases.task import SegmentClass

OBJECT = "[object]"

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
        return cls.prompt.replace(OBJECT, name)
    return (template or templates_for(modality)[0]).replace(OBJECT, cls.prompt or name)
