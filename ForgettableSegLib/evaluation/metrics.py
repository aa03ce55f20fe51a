"""How well a segmentation agrees with a reference, per class of a case, on the native grid.

Four conventions, for papers and tools disagree about absent classes and about distances:

============  ===========================  ==========================  =======================  ====================
convention    only the reference empty     only the prediction empty   both empty               HD95
============  ===========================  ==========================  =======================  ====================
``ours``      Dice 0, no HD95, FP volume   all 0, HD95 image diagonal  no value                 larger of both sides
``monai``     no value                     all 0, no HD95              no value                 larger of both sides
``medpy``     Dice 0, sensitivity 0        all 0, no HD95              Dice 1, sensitivity 0    both sides pooled
``nnunet``    Dice 0                       all 0                       no value                 never computed
============  ===========================  ==========================  =======================  ====================

``ours`` punishes a missed structure in every metric; with the others it can drop out of the mean distance unseen.
"No value" is NaN, which averages leave out and count. (medpy divides 0 by 0 for its 1 and 0 above and catches the
error; on a recent NumPy, where that raises no more, it returns NaN.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

Convention = Literal["ours", "monai", "medpy", "nnunet"]

METRICS = ("dice", "sensitivity", "hd95_mm", "hd95_voxels", "nsd", "false_positive_ml")
"""Names of the metrics of `ClassResult`, in the order of a report."""

HIGHER_IS_BETTER = {
    "dice": True,
    "sensitivity": True,
    "hd95_mm": False,
    "hd95_voxels": False,
    "nsd": True,
    "false_positive_ml": False,
}


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Agreement for one class of one case. NaN means: no value by the convention.

    Args:
        case: id of the case.
        name: of the class.
        dice: 2 TP / (2 TP + FP + FN), in [0, 1].
        sensitivity: TP / (TP + FN), in [0, 1].
        hd95_mm: 95th percentile of the distances between the surfaces, mm.
        hd95_voxels: the same in voxels (spacing 1), as some papers report it.
        nsd: normalised surface Dice: share of both surfaces that lies within the tolerance of the other, in [0, 1].
        false_positive_ml: volume of the prediction outside the reference, ml.
        predicted_ml: volume of the prediction, ml.
        reference_ml: volume of the reference, ml.
        missed: the reference holds the class, the prediction does not (``ours``: HD95 is the image diagonal then).
        invented: the prediction holds the class, the reference does not.
    """

    case: str
    name: str
    dice: float
    sensitivity: float
    hd95_mm: float
    hd95_voxels: float
    nsd: float
    false_positive_ml: float
    predicted_ml: float
    reference_ml: float
    missed: bool
    invented: bool

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, None where there is no value."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ClassResult:
        """The result that `to_dict` gave."""
        return cls(**{key: math.nan if value is None else value for key, value in content.items()})


def evaluate_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing: Sequence[float],
    classes: Sequence[tuple[str, int | Sequence[int]]],
    convention: Convention = "ours",
    tolerance: float = 1.0,
    case: str = "",
) -> list[ClassResult]:
    """Compare the label map of a case with its reference.

    Args:
        prediction: label values ``[z, y, x]``.
        reference: label values on the same grid.
        spacing: of the array's axes, (z, y, x), mm.
        classes: name and label value of each class, or several values for a region that is the union of classes.
        convention: see the module.
        tolerance: of the normalised surface Dice, mm.
        case: id for the results.

    Returns:
        One result a class, in the order of the classes.

    Raises:
        ForgettableSegError: CASE_INVALID if the grids differ, SETTING_INVALID for an unknown convention.
    """
    if convention not in get_args(Convention):
        raise ForgettableSegError(
            ErrorCode.SETTING_INVALID, f"The convention {convention!r} is unknown; use one of {get_args(Convention)}."
        )
    if prediction.shape != reference.shape or len(spacing) != reference.ndim:
        raise ForgettableSegError(
            ErrorCode.CASE_INVALID,
            f"The prediction of case {case!r} has the grid {prediction.shape} and its reference {reference.shape}.",
            hint="Compare label maps on the same grid.",
        )
    return [
        _evaluate_class(
            np.isin(prediction, value),
            np.isin(reference, value),
            spacing=np.asarray(spacing, dtype=float),
            convention=convention,
            tolerance=tolerance,
            labels={"case": case, "name": name},
        )
        for name, value in classes
    ]


def _evaluate_class(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing: np.ndarray,
    convention: Convention,
    tolerance: float,
    labels: dict[str, str],
) -> ClassResult:
    """Compare two masks (bool, same shape)."""
    predicted, referenced = int(prediction.sum()), int(reference.sum())
    shared = int((prediction & reference).sum())
    voxel_ml = float(spacing.prod()) / 1000
    return ClassResult(
        **labels,
        dice=dice(shared, predicted, referenced, convention),
        sensitivity=sensitivity(shared, referenced, convention),
        **_surface_metrics(prediction, reference, spacing, convention, tolerance),
        false_positive_ml=(predicted - shared) * voxel_ml,
        predicted_ml=predicted * voxel_ml,
        reference_ml=referenced * voxel_ml,
        missed=referenced > 0 and predicted == 0,
        invented=predicted > 0 and referenced == 0,
    )


def dice(shared: int, predicted: int, referenced: int, convention: Convention) -> float:
    """Dice coefficient from the voxels of the intersection, the prediction and the reference."""
    if predicted + referenced == 0:
        return 1.0 if convention == "medpy" else math.nan
    if referenced == 0 and convention == "monai":
        return math.nan
    return 2 * shared / (predicted + referenced)


def sensitivity(shared: int, referenced: int, convention: Convention) -> float:
    """Sensitivity (recall) from the voxels of the intersection and the reference."""
    if referenced == 0:
        return 0.0 if convention == "medpy" else math.nan
    return shared / referenced


def _surface_metrics(
    prediction: np.ndarray, reference: np.ndarray, spacing: np.ndarray, convention: Convention, tolerance: float
) -> dict[str, float]:
    """HD95 in mm and in voxels, and the normalised surface Dice."""
    found, wanted = bool(prediction.any()), bool(reference.any())
    if not (found and wanted):
        diagonal = convention == "ours" and wanted
        return {
            "hd95_mm": float(np.linalg.norm(spacing * reference.shape)) if diagonal else math.nan,
            "hd95_voxels": float(np.linalg.norm(reference.shape)) if diagonal else math.nan,
            "nsd": 0.0 if found or wanted else math.nan,
        }
    millimetres, voxels = surface_distances(prediction, reference, spacing)
    pooled = np.concatenate(millimetres)
    return {
        "hd95_mm": hausdorff95(millimetres, convention),
        "hd95_voxels": hausdorff95(voxels, convention),
        # Distances are float32: a surface at exactly the tolerance has to count.
        "nsd": float((pooled <= tolerance * (1 + 1e-6)).mean()),
    }


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Distances of every surface voxel to the other mask's surface, both ways: in mm, and in voxels.

    A surface voxel has a face neighbour outside the mask; beyond the image is outside. Axes of a single voxel are
    dropped first: along those every voxel of a slice would be surface.

    Args:
        prediction: bool, not empty.
        reference: bool, not empty.
        spacing: of the axes, mm.
    """
    kept = [axis for axis, size in enumerate(reference.shape) if size > 1] or [0]
    shape = [reference.shape[axis] for axis in kept]
    edges = get_mask_edges(prediction.reshape(shape), reference.reshape(shape))
    millimetres = _both_ways(edges, spacing[kept])
    return millimetres, _both_ways(edges, np.ones(len(kept)))


def _both_ways(edges: tuple[np.ndarray, np.ndarray], spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = edges
    sampling = spacing.tolist()
    return (
        np.asarray(get_surface_distance(first, second, spacing=sampling)),
        np.asarray(get_surface_distance(second, first, spacing=sampling)),
    )


def hausdorff95(distances: tuple[np.ndarray, np.ndarray], convention: Convention) -> float:
    """95th percentile of the surface distances: the larger of the two directions, or (``medpy``) of both pooled."""
    if convention == "nnunet":
        return math.nan
    if convention == "medpy":
        return float(np.percentile(np.concatenate(distances), 95))
    return max(float(np.percentile(one, 95)) for one in distances)
