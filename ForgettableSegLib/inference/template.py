"""Making a locator: a small template of an image, and the regions that lie in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_image
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.inference.locator import AIR, as_image, shrunk
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.models.regions import COARSEST_TEMPLATE, LARGEST_TEMPLATE, LocatorCard, read_regions

THRESHOLD = 0.45
"""Least fit at which a template counts as found (measured in Testing/Benchmarks/RESULTS.md)."""


def with_locator(
    package: ModelPackage, image: str | Path, regions: str | Path, *, mask: str | Path | None = None, source: str = ""
) -> ModelPackage:
    """A model with a locator.

    Args:
        package: the model.
        image: file of the template.
        regions: JSON file, see `models.regions.read_regions`.
        mask: label map on the image's grid, what is compared.
        source: where the template comes from, with its licence.

    Raises:
        ForgettableSegError: what reading the files raises; MODEL_INVALID for regions that cannot be used; CASE_INVALID.
    """
    try:
        content = json.loads(Path(regions).read_text(encoding="utf-8-sig"))
    except OSError as error:
        message = f"The file of regions {regions} cannot be read: {error.strerror or error}."
        raise ForgettableSegError(ErrorCode.FILE_MISSING, message) from error
    except (ValueError, RecursionError) as error:
        message = f"The file of regions {regions} is not JSON ({error})."
        raise ForgettableSegError(ErrorCode.REQUEST_INVALID, message) from error
    return add_locator(package, _read(image), content, mask=None if mask is None else _read(mask), source=source)


def add_locator(
    package: ModelPackage, image: sitk.Image, regions: object, *, mask: sitk.Image | None = None, source: str = ""
) -> ModelPackage:
    """As `with_locator`, of what was read already."""
    template, grid = make_template(image, mask)
    card = LocatorCard(grid.spacing, grid.origin, read_regions(regions), THRESHOLD, source)
    return package.with_parts({"locator": card.to_dict()}, template=torch.from_numpy(template))


def _read(path: str | Path) -> sitk.Image:
    values, geometry = read_image(Case("template", "template", (Path(path),)), channels=1)
    return as_image(values[0], geometry)


def make_template(image: sitk.Image, mask: sitk.Image | None = None) -> tuple[np.ndarray, Geometry]:
    """Reduce an image to a template of 4 mm, or finer where it stays small, cut to what is compared.

    Args:
        image: any orientation.
        mask: on the same grid, what is compared; where the image is above a tenth of its range if None.

    Returns:
        The template, uint8 ``[z, y, x]``, and its grid, along the LPS axes.

    Raises:
        ForgettableSegError: CASE_INVALID, where it is too large or holds nothing.
    """
    upright = sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "LPS")
    values = _on_grid(upright, COARSEST_TEMPLATE)
    low, high = np.quantile(sitk.GetArrayFromImage(values), (0.005, 0.998))
    scaled = np.clip((sitk.GetArrayFromImage(values) - low) / max(high - low, 1e-6), 0, 1)
    if mask is None:
        inside = scaled > AIR
    else:
        flat = sitk.DICOMOrient(sitk.Cast(mask > 0, sitk.sitkFloat32), "LPS")
        inside = sitk.GetArrayFromImage(sitk.Resample(flat, values, sitk.Transform(), sitk.sitkLinear, 0.0)) > 0.3
    if not inside.any():
        raise ForgettableSegError(ErrorCode.CASE_INVALID, "The template shows nothing.", hint="Use another image.")
    places = np.argwhere(inside)
    corner, end = places.min(0), places.max(0) + 1
    box = tuple(slice(a, b) for a, b in zip(corner, end, strict=True))
    template = np.where(inside, np.maximum(np.rint(scaled * 255), 1), 0).astype(np.uint8)[box]
    if template.size > LARGEST_TEMPLATE:
        message = f"The template would have {template.size:,} voxels of 4 mm; at most {LARGEST_TEMPLATE:,} are allowed."
        raise ForgettableSegError(ErrorCode.CASE_INVALID, message, hint="Crop the image.")
    whole = Geometry.from_image(values)
    origin = tuple(whole.index_to_physical(corner[::-1]).tolist())
    return template, replace(whole, size=template.shape[::-1], origin=origin)


def _on_grid(image: sitk.Image, spacing: float) -> sitk.Image:
    """An upright image at an isotropic spacing along the LPS axes, smoothed as it needs."""
    fine = shrunk(image, spacing / 2)
    size = [
        max(1, int(count * step / spacing)) for count, step in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    origin = centre - (np.array(size) - 1) / 2 * spacing
    smooth = sitk.DiscreteGaussian(fine, (spacing / 4) ** 2)
    return sitk.Resample(
        smooth, size, sitk.Transform(), sitk.sitkLinear, origin.tolist(), [spacing] * 3, np.eye(3).ravel().tolist(), 0.0
    )
