"""The cases of the demonstration, made of the MNI152 template that the package nilearn ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

HIPPOCAMPUS_CENTRES = {"left_hippocampus": (-27.0, -20.0, -16.0), "right_hippocampus": (27.0, -20.0, -16.0)}
"""Where both hippocampi lie in MNI space: right, anterior, superior, in mm."""

HEAD = "mni152"
"""Name of the whole template as a case."""

BOTH_HIPPOCAMPI_CROP = (110, 90, 62)
"""Voxels of the part of the template that pictures show."""

TISSUES = {"grey matter": "gm", "white matter": "wm"}
"""Classes of the tissue task, and the probability map of each."""

SLABS = 6
SLAB_SLICES = 8
SLAB_GAP = 7
LOWEST_SLAB_MM = -25.0
"""Axial slabs, as if they were cases; the gaps keep neighbouring slices out of different parts of the split."""

TISSUE_TASK = {
    "name": "brain tissue",
    "modality": "MR",
    "channels": ["T1"],
    "classes": [
        {"name": "grey matter", "value": 1, "color": [128, 174, 128]},
        {"name": "white matter", "value": 2, "color": [241, 214, 145]},
    ],
}


def template(kind: str) -> sitk.Image:
    """The MNI152 volume of 1 mm as a SimpleITK image.

    Args:
        kind: "t1", or "gm" and "wm" for the probability (0 to 255) of grey and white matter.

    Raises:
        ForgettableSegError: PACKAGE_MISSING, if nilearn is not installed.
    """
    # Looked up, not imported: importing nilearn takes seconds and only its files are wanted.
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise ForgettableSegError(
            ErrorCode.PACKAGE_MISSING,
            "The demonstration needs the package nilearn, which brings the volume to segment.",
            hint="Install it: pip install nilearn",
        )
    folder = Path(found.origin).parent / "datasets" / "data"
    path = folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise ForgettableSegError(
            ErrorCode.FILE_MISSING,
            f"The installed nilearn does not hold {path.name}.",
            hint="Install a newer one: pip install --upgrade nilearn",
        )
    return sitk.ReadImage(str(path))


def crop_around(image: sitk.Image, centre_ras: tuple[float, float, float], size: tuple[int, int, int]) -> sitk.Image:
    """The part of `image` of `size` voxels (x, y, z) around a point in mm; it keeps its place in space."""
    right, anterior, superior = centre_ras
    centre = image.TransformPhysicalPointToIndex((-right, -anterior, superior))
    low = [index - extent // 2 for index, extent in zip(centre, size, strict=True)]
    return image[tuple(slice(start, start + extent) for start, extent in zip(low, size, strict=True))]


def write_head(folder: Path) -> dict[str, Any]:
    """Write the whole template; return it as a case of a request."""
    path = folder / f"{HEAD}.nii.gz"
    write(template("t1"), path)
    return {"id": HEAD, "images": [str(path)]}


def write_tissue_cases(folder: Path) -> list[dict[str, Any]]:
    """Write axial slabs of the template with grey and white matter as labels; return them as cases of a request.

    A voxel belongs to the tissue of which its probability is above one half.
    """
    image = template("t1")
    label = sitk.Cast(image, sitk.sitkUInt8) * 0
    for value, kind in enumerate(TISSUES.values(), start=1):
        label += sitk.Cast(template(kind) > 127, sitk.sitkUInt8) * value
    _, _, first = image.TransformPhysicalPointToIndex((0.0, 0.0, LOWEST_SLAB_MM))
    cases = []
    for number in range(SLABS):
        low = first + number * (SLAB_SLICES + SLAB_GAP)
        slab = (slice(None), slice(None), slice(low, low + SLAB_SLICES))
        case_id = f"slab_{number + 1}"
        paths = [folder / f"{case_id}.nii.gz", folder / f"{case_id}_label.nii.gz"]
        write(image[slab], paths[0])
        write(label[slab], paths[1])
        cases.append({"id": case_id, "group": case_id, "images": [str(paths[0])], "label": str(paths[1])})
    return cases


def write_overview(folder: Path, parts: dict[str, Path]) -> dict[str, Path]:
    """Write the part of the template that holds both hippocampi, and the same part of maps of the whole of it.

    Args:
        folder: receives the volumes.
        parts: the file of each map by its name.

    Returns:
        The path of each map, and of the image under "image".
    """
    left, right = HIPPOCAMPUS_CENTRES.values()
    middle = tuple((one + other) / 2 for one, other in zip(left, right, strict=True))
    paths = {name: folder / f"hippocampi_{name}.nrrd" for name in parts} | {"image": folder / "hippocampi.nrrd"}
    write(crop_around(template("t1"), middle, BOTH_HIPPOCAMPI_CROP), paths["image"])
    for name, file in parts.items():
        write(crop_around(sitk.ReadImage(str(file)), middle, BOTH_HIPPOCAMPI_CROP), paths[name])
    return paths


def write(image: sitk.Image, path: Path) -> None:
    """Write a SimpleITK image, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)
