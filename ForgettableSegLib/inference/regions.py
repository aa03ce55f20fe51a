"""Connected regions of an audit: where reference and model disagree, ranked by the sum of T1 to T4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ForgettableSegLib.cases.preprocessing import Prepared
from ForgettableSegLib.inference.judging import file_place
from ForgettableSegLib.mining.suspects import suspect_regions

MOST_REGIONS = 30
_LOOKED_AT = 200


def audit_regions(
    scores: Mapping[str, NDArray], predicted: NDArray, prepared: Prepared, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The regions in which the model would call the reference otherwise.

    Args:
        scores: T1 to T4 and "score", float32 ``[S, H, W]``.
        predicted: the model's classes.
        prepared: the case, with the reference.
        names: of the classes, background included.

    Returns:
        "class" (of the reference), "wanted", "voxels", "volume_ml", the mean of each score, "slice" and
        "position_lps" (mm), the largest sum of the score first.
    """
    found = suspect_regions(scores["score"], predicted, prepared.label, num_classes=len(names), most=_LOOKED_AT)
    volume = float(np.prod(prepared.grid.spacing)) / 1000
    rows = []
    for region in found:
        box = tuple(slice(first, last + 1) for first, last in region.box)
        pair = (prepared.label[box] == region.label) & (predicted[box] == region.wanted)
        numbers, _ = ndimage.label(pair, np.ones((3, 3, 3)))
        own = numbers == numbers[tuple(n - part.start for n, part in zip(region.centre, box, strict=True))]
        _, file_slice, position = file_place(prepared.grid, region.centre)
        rows.append(
            {
                "class": names[region.label],
                "wanted": names[region.wanted],
                "voxels": region.voxels,
                "volume_ml": region.voxels * volume,
                **{name: float(values[box][own].mean(dtype=np.float64)) for name, values in scores.items()},
                "slice": file_slice,
                "position_lps": position,
            }
        )
    return sorted(rows, key=lambda row: -row["voxels"] * row["score"])[:MOST_REGIONS]
