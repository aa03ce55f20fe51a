"""Which class of a model each segment or label value stands for: what the matcher proposes, what the user chose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

IGNORED = ""
"""The class that a segment stands for where it is left out."""


def mappingFromJson(text: str) -> dict[str, str]:
    """Return the class by name of a segment that the parameter node keeps; a damaged text says nothing."""
    try:
        return {str(name): str(chosen) for name, chosen in dict(json.loads(text or "{}")).items()}
    except (ValueError, TypeError):
        return {}


def completeMapping(
    names: Iterable[str], classes: Sequence[str], proposals: Mapping[str, str], kept: Mapping[str, str]
) -> dict[str, str]:
    """Return the class that each segment stands for.

    Args:
        names: of the segments; label values without a name are called "value 1" and the like.
        classes: names of the classes.
        proposals: class by name of a segment, as the matcher knows it.
        kept: what the user has chosen before; it wins while the class exists.
    """
    mapping = {}
    for name in dict.fromkeys(names):
        proposal = proposals.get(name, IGNORED)
        chosen = kept.get(name, proposal)
        mapping[name] = chosen if chosen in (*classes, IGNORED) else proposal
    return mapping
