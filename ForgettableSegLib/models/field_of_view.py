"""What a model has learnt from, in summary numbers of its training cases (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

# A volume this many times longer than nearly all that were learnt is another kind of volume.
_TOO_LONG = 1.6
# So far beyond the quantiles may a result lie before it is called unlike what was learnt.
_MARGIN = 1.5
_MORE_PIECES = 2
_KEYS = {"extent_mm", "spacing_mm", "intensity", "classes"}
_CLASS_KEYS = {"volume_ml", "share", "pieces"}

Spread = tuple[float, float, float]
"""The 5 %, 50 % and 95 % quantile over the training cases."""


@dataclass(frozen=True)
class FieldOfView:
    """What the training cases of a model looked like; no single case can be told from it.

    Args:
        extent_mm: length of the volumes along x, y, z of the LPS frame.
        spacing_mm: distance of the voxels along the same axes.
        intensity: where the median lies between the 5 % and the 95 % quantile of a volume's intensities, 0 to 1.
        classes: by name, of the cases that hold the class: "volume_ml", "share" (of the whole volume, 0 to 1) and
            "pieces" (connected ones).
    """

    extent_mm: tuple[Spread, Spread, Spread]
    spacing_mm: tuple[Spread, Spread, Spread]
    intensity: Spread
    classes: Mapping[str, Mapping[str, Spread]]

    @classmethod
    def from_dict(cls, content: Any) -> FieldOfView:
        """Build it from JSON content.

        Raises:
            ForgettableSegError: MODEL_INVALID for what cannot be quantiles of such measures.
        """
        if not isinstance(content, Mapping) or set(content) != _KEYS or not isinstance(content["classes"], Mapping):
            raise _invalid("does not hold extent_mm, spacing_mm, intensity and classes")
        classes = {}
        for name, shape in content["classes"].items():
            if not isinstance(shape, Mapping) or set(shape) != _CLASS_KEYS:
                raise _invalid(f"does not hold volume_ml, share and pieces of '{name}'")
            classes[name] = {key: _spread(value, key) for key, value in shape.items()}
        axes = {}
        for key in ("extent_mm", "spacing_mm"):
            if not isinstance(content[key], list | tuple) or len(content[key]) != 3:
                raise _invalid(f"does not hold three axes of {key}")
            axes[key] = tuple(_spread(axis, key) for axis in content[key])
        return cls(**axes, intensity=_spread(content["intensity"], "intensity"), classes=classes)

    def is_too_large(self, extent_mm: Iterable[float]) -> bool:
        """Whether a volume of that extent (x, y, z of the LPS frame) is far longer along any axis than was learnt."""
        return any(own > _TOO_LONG * learnt[-1] for own, learnt in zip(extent_mm, self.extent_mm, strict=True))

    def refusal(self, extent_mm: Iterable[float]) -> ForgettableSegError:
        """The error for a volume that is too large."""
        learnt = _times(axis[1] for axis in self.extent_mm)
        return ForgettableSegError(
            ErrorCode.FIELD_OF_VIEW,
            f"This model has learnt volumes of about {learnt} mm; this one is {_times(extent_mm)} mm. Choose a region.",
        )

    def surprises(self, name: str, learnt_as: str, volume_ml: float, pieces: int) -> list[str]:
        """What is unlike the training cases in a structure of a result, a sentence each.

        Args:
            name: what the structure is called.
            learnt_as: the class that it was learnt as.
            volume_ml: its volume.
            pieces: number of its connected pieces.
        """
        shape = self.classes.get(learnt_as)
        if shape is None:
            return []
        found = []
        (low, _, high), most = shape["volume_ml"], shape["pieces"][-1]
        if not low / _MARGIN <= volume_ml <= high * _MARGIN:
            found.append(f"{name} has {volume_ml:.2f} ml; this model has learnt {low:.2f} to {high:.2f} ml.")
        if pieces > most + _MORE_PIECES:
            found.append(f"{name} lies in {pieces} pieces; this model has learnt {most:.0f} at most.")
        return [each[:1].upper() + each[1:] for each in found]


def _times(lengths: Iterable[float]) -> str:
    return " x ".join(f"{length:.0f}" for length in lengths)


def _spread(value: Any, name: str) -> Spread:
    is_list = isinstance(value, list | tuple) and len(value) == 3
    if not is_list or any(isinstance(one, bool) or not isinstance(one, int | float) for one in value):
        raise _invalid(f"does not hold three numbers for {name}")
    if not all(math.isfinite(one) and 0 <= one <= 1e6 for one in value) or list(value) != sorted(value):
        raise _invalid(f"does not hold rising numbers for {name}")
    return tuple(float(one) for one in value)


def _invalid(reason: str) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.MODEL_INVALID, f"What a model has learnt {reason}.")
