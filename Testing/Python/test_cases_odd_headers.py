"""Headers as scanners and converters really write them: shear, two orientations, none; and what holds no picture."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from case_volumes import TASK, blocks, grid, noise, rotation, save, save_case

from ForgettableSegLib.cases.case import Case, is_device_name
from ForgettableSegLib.cases.files import read_header, read_image, write_volume
from ForgettableSegLib.cases.findings import Finding, FindingCode, hearing
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.preprocessing import prepare, restore
from ForgettableSegLib.cases.recipe import Preprocessing
from ForgettableSegLib.cases.validation import validate_cases
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

SHAPE = (8, 12, 10)
NATIVE = Preprocessing(3, "MR", 0, (None, None, None))


def with_header(path: Path, *, codes: tuple[int, int], sform: np.ndarray | None = None) -> Path:
    """A NIfTI with these codes of qform and sform, and this sform (RAS)."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, *codes)
    if sform is not None:
        struct.pack_into("<12f", content, 280, *np.asarray(sform, np.float64).ravel().tolist())
    path.write_bytes(content)
    return path


def sheared_nifti(path: Path, shear: float, array: np.ndarray) -> tuple[Path, np.ndarray]:
    sform = np.array([[-1.2, 0, 0, 5], [0, -1, 2 * shear, 7], [0, 0, 2, -9]])
    return with_header(save(path, array), codes=(0, 1), sform=sform), sform


def heard_of(path: Path) -> list[Finding]:
    heard: list[Finding] = []
    with hearing(heard.append):
        read_image(Case("a", "a", (path,)))
    return heard


@pytest.mark.parametrize("shear", [0.01, 0.04, 0.3])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_sheared_nifti_is_read_and_results_lie_on_its_own_grid(tmp_path: Path, shear: float, suffix: str) -> None:
    path, sform = sheared_nifti(tmp_path / "a.nii", shear, noise(SHAPE))
    (finding,) = heard_of(path)
    assert (finding.severity, finding.code) == ("warning", FindingCode.AXES_SHEARED)
    assert ("nearest right angles" in finding.message) == (shear < 0.05)
    image, geometry = read_image(Case("a", "a", (path,)))
    np.testing.assert_array_equal(image[0], noise(SHAPE))
    corner = np.array([9, 11, 7])
    expected = np.diag([-1, -1, 1]) @ (sform @ [*corner, 1])
    np.testing.assert_allclose(geometry.index_to_physical(corner), expected, atol=1e-4)
    write_volume(tmp_path / f"b{suffix}", image[0], geometry)
    again, back = read_image(Case("b", "b", (tmp_path / f"b{suffix}",)))
    np.testing.assert_array_equal(again[0], image[0])
    assert back.is_same_grid(geometry, 1e-4)
    if suffix == ".nii":
        raw = (tmp_path / "b.nii").read_bytes()
        np.testing.assert_allclose(struct.unpack("<12f", raw[280:328]), sform.ravel(), atol=1e-5)


@pytest.mark.parametrize("shear", [0.04, 0.4])
def test_a_much_sheared_volume_goes_through_a_straight_grid_and_back(shear: float) -> None:
    turn = np.reshape(rotation(4), (3, 3)) @ np.array([[1, 0, 0], [0, 1, shear], [0, 0, (1 - shear**2) ** 0.5]])
    native = grid((14, 24, 20), (1.1, 0.9, 1.3), (3.0, -8.0, 40.0), tuple(turn.ravel().tolist()))
    place = native.index_to_physical(np.indices(native.shape)[::-1].transpose(1, 2, 3, 0))
    middle = native.index_to_physical((np.asarray(native.size) - 1) / 2)
    wave = (np.sin((place - middle) / 6).sum(axis=-1)).astype(np.float32)
    prepared = prepare(wave[None], native, NATIVE)
    assert (prepared.grid.frame == native) == (shear < 0.05)
    raw = prepare(wave[None], native, NATIVE).grid.to_prepared(wave)
    back = restore(raw[None], prepared)[0]
    assert back.shape == native.shape
    assert np.abs(back - wave)[2:-2, 2:-2, 2:-2].max() < (1e-6 if shear < 0.05 else 0.1)
    if shear > 0.05:
        grid_ = prepared.grid
        index = np.array(grid_.shape) / 2 + [0.3, -0.4, 0.2]
        expected = np.sin((grid_.index_to_physical(index) - middle) / 6).sum()
        np.testing.assert_allclose(
            native.index_to_physical(grid_.index_to_native(index)), grid_.index_to_physical(index)
        )
        near = tuple(np.round(index).astype(int))
        assert raw[near] == pytest.approx(np.sin((grid_.index_to_physical(near) - middle) / 6).sum(), abs=0.1)
        assert np.isfinite(expected)


def test_a_straight_cover_holds_every_voxel() -> None:
    native = replace(grid(SHAPE, (1.0, 2.0, 3.0)), direction=(1, 0, 0.5, 0, 1, 0, 0, 0, 0.75**0.5))
    cover = native.straight_cover()
    assert cover.shear < 1e-9
    assert cover.spacing == native.spacing
    index = cover.physical_to_index(native.index_to_physical(np.indices(SHAPE)[::-1].reshape(3, -1).T))
    assert index.min() > -1e-6
    assert (index <= np.asarray(cover.size) - 1 + 1e-6).all()


def test_two_orientations_that_differ_are_told_and_the_sform_wins(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", noise(SHAPE), grid(SHAPE, (1.0, 1.0, 2.0)))
    assert heard_of(path) == []
    moved = np.array([[-1, 0, 0, 30.0], [0, -1, 0, 0], [0, 0, 2, 0]])
    with_header(path, codes=(1, 1), sform=moved)
    (finding,) = heard_of(path)
    assert (finding.severity, finding.code) == ("warning", FindingCode.ORIENTATION_DOUBTFUL)
    for words in ("its corner (0, 0, 0)", "30 mm apart", "The sform was taken", str(path)):
        assert words in finding.message
    assert read_header(path).geometry.origin == pytest.approx((-30, 0, 0)), "as ITK does"
    for codes, taken, origin in (((2, 1), "sform", -30), ((1, 2), "qform", 0), ((1, 4), "qform", 0)):
        with_header(path, codes=codes)
        assert f"The {taken} was taken" in heard_of(path)[0].message, codes
        assert read_header(path).geometry.origin == pytest.approx((origin, 0, 0)), "whichever ITK, and Slicer, take"
    with_header(path, codes=(1, 1), sform=moved * [[1, 1, 1, 0]] * 1)
    assert heard_of(path) == [], "they agree again"


def test_an_unknown_orientation_is_told(tmp_path: Path) -> None:
    case = save_case(tmp_path, "a", shape=SHAPE)
    for name in (*case.images, case.label):
        image = sitk.ReadImage(str(name))
        sitk.WriteImage(image, str(name).removesuffix(".gz"))
        with_header(Path(str(name).removesuffix(".gz")), codes=(0, 0))
    image, label = (Path(str(name).removesuffix(".gz")) for name in (*case.images, case.label))
    findings = validate_cases([Case("a", "a", (image,), label)], TASK)
    assert [(each.code, each.path, each.case_id) for each in findings] == [
        (FindingCode.ORIENTATION_DOUBTFUL, image, "a"),
        (FindingCode.ORIENTATION_DOUBTFUL, label, "a"),
    ]
    assert "left and right may be swapped" in findings[0].message


def test_a_volume_without_contrast_is_refused(tmp_path: Path) -> None:
    case = save_case(tmp_path, "a", shape=SHAPE)
    save(case.images[0], np.full(SHAPE, 7, np.float32), grid(SHAPE))
    with pytest.raises(ForgettableSegError, match=r"a\.nii\.gz holds the same value everywhere") as caught:
        read_image(case)
    assert caught.value.code is ErrorCode.CASE_INVALID
    (finding,) = validate_cases([case], TASK)
    assert (finding.severity, finding.code) == ("error", FindingCode.CONSTANT_IMAGE)


@pytest.mark.parametrize("name", ["CON", "nul", "Com1", "LPT9", "aux.nii", "PRN.seg.nrrd"])
def test_results_avoid_the_names_of_devices(name: str) -> None:
    assert is_device_name(name)
    assert Case(name, name, (Path("a.nii"),)).folder_name == f"{name}_"


@pytest.mark.parametrize("name", ["CONTROL", "con1", "COM", "case_nul", "lpt10"])
def test_other_names_stay(name: str) -> None:
    assert Case(name, name, (Path("a.nii"),)).folder_name == name


def test_the_nearest_right_angles_keep_the_middle() -> None:
    native: Geometry = replace(grid(SHAPE), direction=(1, 0.04, 0, 0, (1 - 0.04**2) ** 0.5, 0, 0, 0, 1))
    middle = (np.asarray(native.size) - 1) / 2
    straight = native.straightened()
    np.testing.assert_allclose(straight.index_to_physical(middle), native.index_to_physical(middle))
    assert straight.shear < 1e-12
    assert np.abs(blocks(SHAPE)).max() == 4
