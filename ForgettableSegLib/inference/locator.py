"""Finds in a volume of any size what a small template shows: an affine registration by mutual information.

SimpleITK alone. Everything is deterministic: fixed starts, regular samples, one thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.regions import COARSEST_TEMPLATE, LocatorCard, LocatorRegion

_BINS = 24
_COARSE_MM = 8.0
_COARSE_BINS = 16
# Templates made of many people are larger than most of them.
_SCALES = (0.84, 0.94)
_TILTS = ((0.0, 0.0, 0.0), *(tuple(s * 0.35 * (i == a) for i in range(3)) for a in range(3) for s in (1.0, -1.0)))
_SHIFTS = tuple(itertools.product((-16.0, 0.0, 16.0), (-20.0, 0.0, 20.0), (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0)))
_BEST_PLACES, _BEST_STARTS, _BEST_RIGID = 6, 4, 2
# Volumes reach below what is looked for (a neck): its middle is sought in this much below the top, mm.
_HEIGHT_MM = 150.0
_LEAST_INSIDE = 0.35
AIR = 0.1
# Beyond these, an affine map has shrunk or grown the template into something else.
_STRETCH = (0.65, 1.3)
# Part of a region that may lie outside of the volume.
_MAY_BE_CUT = 0.05
_WINDOW_VOXELS = 2.0
_BIAS_ITERATIONS = (30, 20, 10)


@dataclass(frozen=True)
class Located:
    """Where the template lies in a volume.

    Args:
        transform: from the template's LPS millimetres to those of the volume.
        fit: mean local correlation of template and volume, the lesser of that in the whole template and that in the
            worst region, -1 to 1.
    """

    transform: sitk.AffineTransform
    fit: float

    @property
    def rotation(self) -> np.ndarray:
        """The rigid part of the transform, 3x3."""
        left, _, right = np.linalg.svd(np.reshape(self.transform.GetMatrix(), (3, 3)))
        return left @ right

    def grid(self, region: LocatorRegion, *, spacing: tuple[float, float, float]) -> Geometry:
        """The grid, along the template's axes, on which a region looks as the model has learnt it.

        Nothing is added around it: a volume a little larger than the training patch cost 0.02 to 0.08 of Dice.

        Args:
            region: of the locator.
            spacing: of the grid along x, y, z.
        """
        low, high = np.array(region.box)
        size = np.maximum(np.ceil((high - low) / np.array(spacing)), 1).astype(int)
        axes = self.rotation * ([-1.0, 1.0, 1.0] if region.mirror else [1.0, 1.0, 1.0])
        centre = np.array(self.transform.TransformPoint(((low + high) / 2).tolist()))
        origin = centre - axes @ ((size - 1) / 2 * np.array(spacing))
        return Geometry(tuple(size.tolist()), spacing, tuple(origin.tolist()), tuple(axes.ravel().tolist()))


@dataclass(frozen=True)
class Locator:
    """A template and its regions.

    Args:
        card: regions, threshold, and where the template's voxels lie.
        template: uint8 ``[z, y, x]``, 0 where it is not compared.
    """

    card: LocatorCard
    template: np.ndarray

    def locate(self, image: np.ndarray, geometry: Geometry) -> Located:
        """Find the template in a volume.

        Args:
            image: one channel ``[z, y, x]``.
            geometry: of the volume.

        Raises:
            ForgettableSegError: FIELD_OF_VIEW, where it is not in it, or a region is cut off.
        """
        small = shrunk(as_image(image, geometry), COARSEST_TEMPLATE)
        located = self._locate(small, geometry) or self._locate(_evenly_lit(small), geometry)
        if located is None:
            raise not_found()
        return located

    def _locate(self, small: sitk.Image, geometry: Geometry) -> Located | None:
        fixed, moving = self._fixed(), _with_equal_shades(small)
        with _one_thread():
            found = [] if moving is None else list(_registered(fixed, moving))
        if not found:
            return None
        _, transform = min(found, key=lambda each: each[0])
        located = Located(transform, self._fit(transform, moving))
        if located.fit < self.card.threshold or not all(self._holds(geometry, located, r) for r in self.card.regions):
            return None
        return located

    def _fixed(self) -> sitk.Image:
        values = self.template.astype(np.float32)
        inside = self.template > 0
        values[inside] = np.maximum(_equalised(values[inside]), 1e-3)
        image = sitk.GetImageFromArray(values)
        image.SetSpacing(self.card.spacing)
        image.SetOrigin(self.card.origin)
        return image

    def _fit(self, transform: sitk.Transform, moving: sitk.Image) -> float:
        local, inside = local_correlation(self._fixed(), moving, transform)
        fits = [float(local[inside].mean()) if inside.any() else -1.0]
        for region in self.card.regions:
            corners = (np.array(region.box) - self.card.origin) / np.array(self.card.spacing)
            low, high = np.maximum(np.floor(corners[0]), 0).astype(int), np.ceil(corners[1]).astype(int) + 1
            box = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
            fits.append(float(local[box][inside[box]].mean()) if inside[box].any() else -1.0)
        return min(fits)

    @staticmethod
    def _holds(geometry: Geometry, located: Located, region: LocatorRegion) -> bool:
        """Whether a volume holds a region, but for a sliver."""
        steps = [np.linspace(low, high, 9) for low, high in zip(*region.box, strict=True)]
        points = [
            located.transform.TransformPoint(point) for point in itertools.product(*map(np.ndarray.tolist, steps))
        ]
        volume = geometry.reference_image()
        index = np.array([volume.TransformPhysicalPointToContinuousIndex(point) for point in points])
        is_inside = ((index >= -0.5) & (index <= np.array(geometry.size) - 0.5)).all(axis=1)
        return bool(is_inside.mean() >= 1 - _MAY_BE_CUT)


def not_found() -> ForgettableSegError:
    """The error where a locator finds nothing."""
    message = "The brain was not found in this volume. Choose a region."
    return ForgettableSegError(ErrorCode.FIELD_OF_VIEW, message)


def local_correlation(
    fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of two images in a Gaussian window around each voxel; slow changes of brightness do not count.

    Args:
        fixed: compared where it is above 0.
        moving: any grid.
        transform: from fixed to moving.

    Returns:
        The correlation ``[z, y, x]`` on the grid of ``fixed``, and where both have values.
    """
    one = sitk.GetArrayFromImage(fixed)
    other = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -1.0))
    inside = (one > 0) & (other >= 0)
    weight = np.maximum(_smooth(inside.astype(np.float32)), 1e-3)
    mean_one, mean_other = (_smooth(np.where(inside, each, 0)) / weight for each in (one, other))
    covariance = _smooth(np.where(inside, one * other, 0)) / weight - mean_one * mean_other
    variances = [
        np.maximum(_smooth(np.where(inside, each**2, 0)) / weight - mean**2, 1e-4)
        for each, mean in ((one, mean_one), (other, mean_other))
    ]
    return covariance / np.sqrt(variances[0] * variances[1]), inside


def _registered(fixed: sitk.Image, moving: sitk.Image) -> Iterator[tuple[float, sitk.AffineTransform]]:
    """Affine maps that the best starts lead to, with the metric (the lower the better)."""
    rigid = []
    for start in _starts(fixed, moving):
        for scale in _SCALES:
            transform = sitk.Similarity3DTransform(start)
            transform.SetScale(scale)
            rigid.append(
                (_improve(fixed, moving, transform, (6.0, 0.3, 60), share=0.2, weights=[1] * 6 + [0]), transform)
            )
    for _, transform in sorted(rigid, key=lambda each: each[0])[:_BEST_RIGID]:
        _improve(fixed, moving, transform, (1.5, 0.1, 30), share=0.3)
        affine = sitk.AffineTransform(3)
        affine.SetMatrix(transform.GetMatrix())
        affine.SetCenter(transform.GetCenter())
        affine.SetTranslation(transform.GetTranslation())
        metric = _improve(fixed, moving, affine, (1.0, 0.03, 80), share=0.5)
        stretch = np.linalg.svd(np.reshape(affine.GetMatrix(), (3, 3)), compute_uv=False)
        if _STRETCH[0] <= stretch.min() and stretch.max() <= _STRETCH[1]:
            yield metric, affine


def _improve(
    fixed: sitk.Image,
    moving: sitk.Image,
    transform: sitk.Transform,
    steps: tuple[float, float, int],
    *,
    share: float,
    weights: list[float] | None = None,
) -> float:
    """Move a transform, in place, to where the mutual information is highest; return the metric, infinite if lost.

    Args:
        fixed: compared where it is above 0.
        moving: the volume.
        transform: where to begin.
        steps: first and least length of a step in mm, and the most steps.
        share: of the voxels that are looked at.
        weights: of the transform's parameters; 0 holds one fast.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(fixed > 0)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(share, 1)
    method.SetInterpolator(sitk.sitkLinear)
    first, least, most = steps
    method.SetOptimizerAsRegularStepGradientDescent(first, least, most, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    if weights is not None:
        method.SetOptimizerWeights(weights)
    method.SetInitialTransform(transform, True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # the template has left the volume
        return np.inf
    return float(method.GetMetricValue())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads would add up the metric in another order each time."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _starts(fixed: sitk.Image, moving: sitk.Image) -> list[sitk.Similarity3DTransform]:
    """The most promising places and tilts to begin at, no two nearly alike."""
    coarse, coarse_mask, volume = (shrunk(each, _COARSE_MM) for each in (fixed, _inside(fixed), moving))
    inside = sitk.GetArrayFromImage(coarse_mask) > 0.5
    target = _codes(sitk.GetArrayFromImage(coarse)[inside])
    middle, below = _middle(inside, coarse), sitk.GetArrayFromImage(volume) > AIR
    if not below.any():
        return []
    around = _middle(below, volume, height_mm=_HEIGHT_MM)
    # Slices are often laid along the brain, however the head lay.
    along = _nearest_rotation(np.reshape(moving.GetDirection(), (3, 3)))
    frames = [np.eye(3)] if np.allclose(along, np.eye(3), atol=0.05) else [np.eye(3), along]

    def start(place: np.ndarray, turned: np.ndarray, scale: float) -> _Start:
        transform = sitk.Similarity3DTransform()
        transform.SetMatrix((scale * turned).ravel().tolist(), 1e-6)
        transform.SetCenter(middle.tolist())
        transform.SetTranslation((place - middle).tolist())
        seen = sitk.GetArrayFromImage(sitk.Resample(volume, coarse, transform, sitk.sitkLinear, -1.0))[inside]
        known = seen >= 0
        share = float(known.mean())
        score = share * _information(target[known], _codes(seen[known])) if share >= _LEAST_INSIDE else -1.0
        return _Start(score, place, turned, transform)

    places = [start(around + shift, np.eye(3), float(np.mean(_SCALES))) for shift in np.array(_SHIFTS)]
    best = sorted(places, key=lambda each: -each.score)[:_BEST_PLACES]
    turns = [frame @ _rotation(tilt) for frame in frames for tilt in _TILTS]
    found = [start(each.place, turn, scale) for each in best for turn in turns for scale in _SCALES]
    chosen: list[_Start] = []
    for one in sorted(found, key=lambda each: -each.score):
        if one.score >= 0 and not any(one.is_like(other) for other in chosen):
            chosen.append(one)
    return [each.transform for each in chosen[:_BEST_STARTS]]


@dataclass(frozen=True)
class _Start:
    """Mutual information at 8 mm, the place of the template's middle, how it is turned, and all as a transform."""

    score: float
    place: np.ndarray
    turned: np.ndarray
    transform: sitk.Similarity3DTransform

    def is_like(self, other: _Start) -> bool:
        """Whether the optimiser would come from both to the same."""
        return np.linalg.norm(self.place - other.place) <= 18 and np.abs(self.turned - other.turned).max() <= 0.2


def _information(one: np.ndarray, other: np.ndarray) -> float:
    """Mutual information of codes 0 to 15, nats."""
    joint = np.bincount(one * _COARSE_BINS + other, minlength=_COARSE_BINS**2).reshape(_COARSE_BINS, -1) / len(one)
    expected = np.outer(joint.sum(1), joint.sum(0))
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / expected[seen])).sum())


def _codes(values: np.ndarray) -> np.ndarray:
    return np.clip(values * _COARSE_BINS, 0, _COARSE_BINS - 1).astype(int)


def _middle(mask: np.ndarray, image: sitk.Image, *, height_mm: float = np.inf) -> np.ndarray:
    """Centre of a mask in LPS mm; of its uppermost part only, if a height is given."""
    places = Geometry.from_image(image).index_to_physical(np.argwhere(mask)[:, ::-1])
    top = np.quantile(places[:, 2], 0.995)
    return places[places[:, 2] > top - height_mm].mean(axis=0)


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    return np.reshape(sitk.Euler3DTransform((0.0, 0.0, 0.0), *angles).GetMatrix(), (3, 3))


def _nearest_rotation(direction: np.ndarray) -> np.ndarray:
    """The rotation that brings the LPS axes onto the nearest axes of a volume."""
    order = max(itertools.permutations(range(3)), key=lambda each: np.abs(direction[range(3), each]).sum())
    axes = direction[:, order]
    left, _, right = np.linalg.svd(axes * np.sign(np.diag(axes)))
    return left @ right


def _evenly_lit(small: sitk.Image) -> sitk.Image:
    """A volume without its bias field (N4), for coils may shade a head from one side to the other."""
    values = sitk.GetArrayFromImage(small)
    low, high = np.quantile(values, (0.005, 0.998))
    scaled = sitk.ShiftScale(small, -float(low), 1 / max(float(high - low), 1e-6), sitk.sitkFloat32)
    lit = scaled > AIR
    if not sitk.GetArrayViewFromImage(lit).any():
        return small
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetMaximumNumberOfIterations(_BIAS_ITERATIONS)
    try:
        with _one_thread():
            correction.Execute(sitk.Maximum(scaled, 1e-3), lit)
    except RuntimeError:  # too few slices
        return small
    return sitk.Divide(scaled, sitk.Exp(correction.GetLogBiasFieldAsImage(scaled)))


def _with_equal_shades(small: sitk.Image) -> sitk.Image | None:
    """A volume with equalised intensities, 0 to 1; None where it shows nothing."""
    values = sitk.GetArrayFromImage(small)
    if not values.max() > values.min():
        return None
    equalised = sitk.GetImageFromArray(_equalised(values))
    equalised.CopyInformation(small)
    return equalised


def _equalised(values: np.ndarray) -> np.ndarray:
    """Values brought to 0 to 1 so that each shade above air is as frequent: contrast agents and fat take no room."""
    low, high = np.quantile(values, (0.005, 0.998))
    scaled = ((values - low) / max(high - low, 1e-6)).astype(np.float32)
    shades = np.quantile(scaled[scaled > AIR], np.linspace(0, 1, 65)) if (scaled > AIR).any() else [1.0]
    # The shades must rise for interpolation.
    known = np.maximum.accumulate(np.concatenate([[0.0], shades])) + np.arange(len(shades) + 1) * 1e-7
    return np.interp(scaled, known, [0.0, *np.linspace(AIR, 1, len(shades))]).astype(np.float32)


def shrunk(image: sitk.Image, spacing: float) -> sitk.Image:
    """Means of blocks of voxels of about that length."""
    axes = zip(image.GetSize(), image.GetSpacing(), strict=True)
    factors = [min(count, max(1, round(spacing / step))) for count, step in axes]
    return sitk.BinShrink(image, factors)


def _inside(fixed: sitk.Image) -> sitk.Image:
    return sitk.Cast(fixed > 0, sitk.sitkFloat32)


def _smooth(values: np.ndarray) -> np.ndarray:
    image = sitk.GetImageFromArray(values.astype(np.float32))
    return sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, _WINDOW_VOXELS**2, 8, 0.01, False))


def as_image(values: np.ndarray, geometry: Geometry) -> sitk.Image:
    """One channel ``[z, y, x]`` as an image on its grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
    geometry.apply_to(image)
    return image
