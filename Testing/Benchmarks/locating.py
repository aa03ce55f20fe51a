"""How well the locator of the shipped model tells heads from other volumes: the table that its threshold comes from.

    python Testing/Benchmarks/locating.py [--data ../shared/data] [--heads head_01 ...]

Each head is also turned, cut, thinned to slices of 5 mm, stripped of its skull, darkened and shaded. "inside" is the
part of both labelled hippocampi that lies in the regions cut out for the model; "fit" is compared with the threshold. A
head whose hippocampi are cut off counts among those to be refused.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_image
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.inference.locator import Located, Locator, as_image
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.models.regions import TEMPLATE
from ForgettableSegLib.resources import resources_dir

HIPPOCAMPI = (17, 53)
OUTSIDE_BRAIN = (0, 24, 257, 258)
HEADS = ("head_01", "head_02", "head_04")
UNLABELLED = ("Examples/MR_Gd.nii.gz", "DicomBrain/T1post")
OTHERS = ("Examples/CT_AVM.nii.gz", "Examples/CT_pitch.nii.gz", "Examples/example_ct.nii.gz",
          "Examples/example_mr_sm.nii.gz", "AbdomenMR/imagesTr/*.nii.gz")  # fmt: skip
ABDOMENS = 6

Volume = tuple[str, sitk.Image, sitk.Image | None]
"""Name, image, and labels where there are some."""


def read(path: Path) -> sitk.Image:
    """One channel of any file or series."""
    values, geometry = read_image(Case("one", "one", (path,)))
    return as_image(values[0], geometry)


def turned(image: sitk.Image, angles: tuple[float, float, float], *, nearest: bool = False) -> sitk.Image:
    """The head turned in the scanner, about its middle, on the same grid."""
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    move = sitk.Euler3DTransform(middle, *angles)
    return sitk.Resample(image, image, move, sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear, 0.0)


def thinned(image: sitk.Image, axis: int, spacing: float) -> sitk.Image:
    """Thick slices along an axis: means of neighbouring ones."""
    factors = [1, 1, 1]
    factors[axis] = max(1, round(spacing / image.GetSpacing()[axis]))
    return sitk.BinShrink(image, factors)


def cut(image: sitk.Image, axis: str, low: float, high: float) -> sitk.Image:
    """The part of an image between two LPS coordinates, by the array axis nearest to the patient's."""
    upright = sitk.DICOMOrient(image, "LPS")
    index = "xyz".index(axis)
    places = [(c - upright.GetOrigin()[index]) / upright.GetSpacing()[index] for c in (low, high)]
    first, last = np.clip(np.rint(places), 0, upright.GetSize()[index]).astype(int).tolist()
    return upright[tuple(slice(first, last) if i == index else slice(None) for i in range(3))]


def shaded(image: sitk.Image) -> sitk.Image:
    """Darkened on one side, with another gamma."""
    values = sitk.GetArrayFromImage(image)
    ramp = np.linspace(0.4, 1.4, values.shape[2], dtype=np.float32)
    out = sitk.GetImageFromArray((np.clip(values / np.quantile(values, 0.999), 0, 1) ** 0.6) * ramp * 200)
    out.CopyInformation(image)
    return out


def good(name: str, image: sitk.Image, labels: sitk.Image) -> Iterator[Volume]:
    """A head in all the ways in which it must be found."""
    yield name, image, labels
    for axis, angles in (("x", (0.35, 0, 0)), ("-x", (-0.35, 0, 0)), ("y", (0, 0.35, 0)), ("z", (0, 0, 0.35))):
        yield f"{name}, turned 20 degrees about {axis}", turned(image, angles), turned(labels, angles, nearest=True)
    yield f"{name}, axes in another order", *(sitk.Flip(sitk.PermuteAxes(each, [2, 0, 1]), [True, False, True])
                                              for each in (image, labels))  # fmt: skip
    upright = sitk.DICOMOrient(image, "LPS")
    for axis, what in ((0, "sagittal"), (1, "coronal"), (2, "axial")):
        yield f"{name}, {what} slices of 5 mm", thinned(upright, axis, 5.0), labels
    brain = sitk.GetArrayFromImage(labels)
    stripped = sitk.GetImageFromArray(sitk.GetArrayFromImage(image) * ~np.isin(brain, OUTSIDE_BRAIN))
    stripped.CopyInformation(image)
    yield f"{name}, without skull", stripped, labels
    yield f"{name}, shaded", shaded(image), labels
    low, high = (place[2] for place in spread(labels))
    yield f"{name}, only 20 mm below to 30 mm above the hippocampi", cut(image, "z", low - 20, high + 30), labels
    yield f"{name}, lower part", cut(image, "z", -1e4, high + 20), labels
    yield f"{name}, upper part", cut(image, "z", low - 15, 1e4), labels


def incomplete(name: str, image: sitk.Image, labels: sitk.Image) -> Iterator[Volume]:
    """A head cut so that a hippocampus is missing."""
    low, high = spread(labels)
    middle = (low + high) / 2
    yield f"{name}, above the hippocampi", cut(image, "z", high[2] + 5, 1e4), None
    yield f"{name}, cut through the hippocampi", cut(image, "z", middle[2], 1e4), None
    yield f"{name}, right half", cut(image, "x", -1e4, middle[0]), None
    yield f"{name}, neck", cut(image, "z", -1e4, low[2] - 10), None


def made_up() -> Iterator[Volume]:
    """Phantoms and something like a knee: two bright shafts end to end in a dark cylinder with a bright rim."""
    z, y, x = np.meshgrid(*[np.arange(80) - 39.5] * 3, indexing="ij")
    noise = np.random.default_rng(0)
    knee = 30.0 * (np.hypot(x, y) < 30) + 60 * (np.hypot(x, y) < 33) * (np.hypot(x, y) > 28)
    knee += 150.0 * (np.hypot(x, y) < 14 + 6 * np.exp(-((np.abs(z) - 8) ** 2) / 90)) * (np.abs(z) > 3)
    arrays = {"ball": 100.0 * (x**2 + y**2 + z**2 < 30**2), "noise": noise.normal(100, 20, x.shape), "knee": knee}
    arrays["ball in a shell"] = arrays["ball"] * 0.5 + 80 * (np.abs(np.sqrt(x**2 + y**2 + z**2) - 34) < 2)
    for name, values in arrays.items():
        image = sitk.GetImageFromArray((values + noise.normal(0, 3, x.shape)).astype(np.float32))
        image.SetSpacing([2.5] * 3)
        yield f"made up: {name}", image, None


def spread(labels: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner of the hippocampi, LPS mm."""
    places = Geometry.from_image(labels).index_to_physical(hippocampi(labels))
    return places.min(0), places.max(0)


def hippocampi(labels: sitk.Image) -> np.ndarray:
    """Voxel indices x, y, z of both."""
    return np.argwhere(np.isin(sitk.GetArrayFromImage(labels), HIPPOCAMPI))[:, ::-1]


def inside(locator: Locator, located: object, labels: sitk.Image) -> float:
    """The part of the hippocampi that lies in the regions cut out."""
    places = Geometry.from_image(labels).index_to_physical(hippocampi(labels))
    held = np.zeros(len(places), bool)
    for region in locator.card.regions:
        grid = located.grid(region, spacing=(1.0, 1.0, 1.0))
        index = (places - np.array(grid.origin)) @ np.reshape(grid.direction, (3, 3))
        held |= ((index > -0.5) & (index < np.array(grid.size) - 0.5)).all(axis=1)
    return float(held.mean())


def find(locator: Locator, values: np.ndarray, geometry: Geometry) -> Located | None:
    """Where the locator finds its template, None where it refuses the volume."""
    try:
        return locator.locate(values, geometry)
    except ForgettableSegError:
        return None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--heads", nargs="*", default=HEADS)
    options = parser.parse_args()
    package = ModelPackage.read(resources_dir() / "Models" / "hippocampus")
    strict = Locator(package.locator, package.tensors[TEMPLATE].numpy())
    # With so low a threshold only what cannot be a fit at all is refused, so that the fit of what is refused is seen.
    lenient = replace(strict, card=replace(strict.card, threshold=0.01))
    heads = [(name, *(read(options.data / "Heads" / kind / f"{name}.nii.gz") for kind in ("images", "labels")))
             for name in options.heads]  # fmt: skip
    paths = [path for name in OTHERS for path in sorted(options.data.glob(name))[:ABDOMENS]]
    groups = (
        ("found", itertools.chain(*(good(*head) for head in heads))),
        ("found", ((name, read(options.data / name), None) for name in UNLABELLED)),
        ("refused", itertools.chain(*(incomplete(*head) for head in heads))),
        ("refused", ((path.name, read(path), None) for path in paths)),
        ("refused", made_up()),
    )
    print("| volume | should be | fit | is | hippocampi inside | seconds |\n|---|---|---|---|---|---|", flush=True)
    for wanted, volumes in groups:
        for name, image, labels in volumes:
            values, geometry = sitk.GetArrayFromImage(image).astype(np.float32), Geometry.from_image(image)
            started = time.process_time()
            located = find(strict, values, geometry)
            seconds = time.process_time() - started
            state = "refused" if located is None else "found"
            located = located or find(lenient, values, geometry)
            fit = "-" if located is None else f"{located.fit:.2f}"
            held = "" if located is None or labels is None else f"{inside(strict, located, labels):.3f}"
            mark = "" if state == wanted else " (wrong)"
            print(f"| {name} | {wanted} | {fit} | {state}{mark} | {held} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
