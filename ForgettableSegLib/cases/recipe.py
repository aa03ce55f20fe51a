"""How cases are prepared for a model, as its card says it (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

# Written into models and cache keys; raise it when the same settings give other arrays.
VERSION = 1
# Millimetres: what microscopes and any scanner lie between.
_SPACINGS = (1e-4, 1e4)


@dataclass(frozen=True)
class Preprocessing:
    """How cases are prepared. It belongs to a model, and travels with it.

    Args:
        spatial_dims: 2 (a network sees slices) or 3.
        modality: "CT" clips and scales with `ct_statistics`; every other word scales each image by itself.
        slice_axis: axis of the LPS frame that becomes the slice axis: 0 axial, 1 coronal, 2 sagittal.
        spacing: millimetres along the LPS array axes z, y, x; None keeps each case's own, as on the slice axis in 2D.
        isotropic: whether the spacing is one number for all axes, as in the paper.
        ct_statistics: mean and standard deviation of clipped foreground voxels of each channel, for CT.
        same_grid: whether a channel or a label on another grid than the first image is refused, not resampled.
        orientation: the anatomical frame; always "LPS".
        version: of this algorithm.
    """

    spatial_dims: int
    modality: str
    slice_axis: int
    spacing: tuple[float | None, float | None, float | None]
    isotropic: bool = False
    ct_statistics: tuple[tuple[float, float], ...] | None = None
    same_grid: bool = False
    orientation: str = "LPS"
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION or self.orientation != "LPS":
            raise _invalid(
                f"These preprocessing settings are version {self.version} in frame '{self.orientation}', which this "
                f"version of ForgettableSeg does not know; update it."
            )
        if self.spatial_dims not in (2, 3):
            raise _invalid(f"spatial_dims must be 2 or 3, not {self.spatial_dims!r}.")
        if self.slice_axis not in (0, 1, 2):
            raise _invalid(f"slice_axis must be 0 (axial), 1 (coronal) or 2 (sagittal), not {self.slice_axis!r}.")
        low, high = _SPACINGS
        if len(self.spacing) != 3 or not all(step is None or low <= step <= high for step in self.spacing):
            raise _invalid(f"spacing must be three numbers above zero ({low} to {high:g} mm), not {self.spacing!r}.")
        if self.modality == "CT" and not self.ct_statistics:
            raise _invalid("Preprocessing of CT needs the intensity statistics of the training cases.")
        if not all(math.isfinite(mean) and 0 < deviation < math.inf for mean, deviation in self.ct_statistics or ()):
            raise _invalid(f"The intensity statistics {self.ct_statistics!r} are no means and deviations above zero.")

    @property
    def sides_axis(self) -> int:
        """Prepared axis (0 S, 1 H, 2 W) that runs from one side of the body to the other: x of the LPS frame."""
        return 0 if self.slice_axis == 2 else 2

    def to_dict(self) -> dict[str, Any]:
        """Content for JSON; `from_dict` gives the same settings back."""
        content = asdict(self)
        content["spacing"] = list(self.spacing)
        content["ct_statistics"] = None if self.ct_statistics is None else [list(pair) for pair in self.ct_statistics]
        if not self.same_grid:
            del content["same_grid"]  # which models of before do not know
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Preprocessing:
        """The settings that `to_dict` stored.

        Raises:
            ForgettableSegError: `SETTING_INVALID`.
        """
        unknown = sorted(set(content) - {one.name for one in fields(cls)})
        if unknown:
            raise _invalid(f"Preprocessing has no setting '{unknown[0]}'.")
        missing = [one for one in ("spatial_dims", "modality", "slice_axis", "spacing") if one not in content]
        if missing:
            raise _invalid(f"The preprocessing settings lack {', '.join(missing)}.")
        statistics = content.get("ct_statistics")
        converted = {
            "spacing": tuple(content["spacing"]),
            "ct_statistics": None if statistics is None else tuple((mean, deviation) for mean, deviation in statistics),
        }
        return cls(**{**content, **converted})


def _invalid(message: str) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.SETTING_INVALID, message)
