"""Volumes are read and written whole, on their grid, or refused with a sentence that names the file."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from case_volumes import TASK, blocks, grid, noise, rotation, save

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_header, read_image, stem_of, suffix_of, write_volume
from ForgettableSegLib.cases.findings import CaseError, Finding, FindingCode, hearing
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.label_files import read_label, read_label_map
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

SHAPE = (5, 6, 7)
FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr")
OBLIQUE = grid(SHAPE, (0.7, 1.3, 4.1), (12.5, -80.25, 33.0), rotation(5))


def case_of(*images: Path, label: Path | None = None) -> Case:
    return Case("k", "k", images, label)


def expect_refusal(code: FindingCode, *words: str, path: Path, label: bool = False) -> None:
    with pytest.raises(CaseError) as caught:
        read_label_map(path) if label else read_image(case_of(path), channels=1)
    assert caught.value.finding is code
    for word in (path.name, *words):
        assert word in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("suffix", FORMATS)
def test_reading_keeps_voxels_and_oblique_geometry(tmp_path: Path, suffix: str):
    array = noise(SHAPE)
    image, geometry = read_image(case_of(save(tmp_path / f"a{suffix}", array, OBLIQUE)))
    np.testing.assert_array_equal(image, array[None])
    assert image.dtype == np.float32
    assert geometry.is_same_grid(OBLIQUE, 1e-5)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_every_number_type_is_read(tmp_path: Path, kind: str):
    array = np.arange(210).reshape(SHAPE).astype(kind)
    np.testing.assert_array_equal(read_image(case_of(save(tmp_path / "a.nii.gz", array)))[0][0], array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "bool", "float16"])
def test_written_volumes_come_back(tmp_path: Path, suffix: str, kind: str):
    array = (np.arange(210).reshape(SHAPE) % 2).astype(kind)
    path = tmp_path / "new" / f"a{suffix}"
    write_volume(path, array, OBLIQUE)
    image, geometry = read_image(case_of(path))
    np.testing.assert_array_equal(image[0], array.astype(np.float32))
    assert geometry.is_same_grid(OBLIQUE, 1e-5)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("seed", range(5))
def test_metaimage_and_nrrd_keep_geometry_to_the_last_digits(tmp_path: Path, seed: int):
    geometry = grid((1, 4, 5), (0.31, 1.7, 6.500003353140597), (1 / 3, -2e3, 1e-3), rotation(seed))
    for suffix, tolerance in ((".mha", 0.0), (".nrrd", 1e-15)):
        write_volume(tmp_path / f"a{suffix}", np.zeros(geometry.shape, np.uint8), geometry)
        back = read_header(tmp_path / f"a{suffix}").geometry
        assert back.size == geometry.size
        assert back.origin == geometry.origin
        np.testing.assert_allclose(back.spacing, geometry.spacing, rtol=tolerance)
        np.testing.assert_allclose(back.direction, geometry.direction, rtol=0, atol=2 * tolerance)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_real_geometries_survive_writing(shared_data: Path, tmp_path: Path, suffix: str):
    """A segmentation lies on exactly the grid of the image that came in: gantry tilt, thick slices, crops."""
    sources = [*sorted((shared_data / "Examples").iterdir()), shared_data / "DicomBrain/T1post"]
    sources += sorted((shared_data / "Hippocampus/imagesTr").iterdir())[:3]
    sources += sorted((shared_data / "AbdomenMR/imagesTr").iterdir())[:2]
    for source in sources:
        geometry = read_header(source).geometry
        write_volume(tmp_path / f"a{suffix}", np.zeros(geometry.shape, np.uint8), geometry)
        back = read_header(tmp_path / f"a{suffix}").geometry
        assert back.is_same_grid(geometry, 1e-4), source
        is_straight = set(geometry.direction) <= {-1.0, 0.0, 1.0}
        assert back == geometry or not (is_straight and suffix == ".nii.gz"), source


def test_overwriting_replaces_the_whole_file(tmp_path: Path):
    path = tmp_path / "a.nrrd"
    for value in (1, 2):
        write_volume(path, np.full(SHAPE, value, np.uint8), OBLIQUE)
        assert read_label_map(path)[0].max() == value


def test_channels_in_files_vectors_and_a_fourth_axis_are_the_same(tmp_path: Path):
    channels = noise((2, *SHAPE))
    separate = [save(tmp_path / f"{n}.nrrd", one, OBLIQUE) for n, one in enumerate(channels)]
    vector = save(tmp_path / "v.nrrd", np.moveaxis(channels, 0, -1), OBLIQUE, is_vector=True)
    fourth = tmp_path / "f.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(path)) for path in separate]), str(fourth))
    ours = tmp_path / "o.nrrd"
    write_volume(ours, channels, OBLIQUE)
    for images in (separate, [vector], [fourth], [ours]):
        image, geometry = read_image(case_of(*images), channels=2)
        np.testing.assert_array_equal(image, channels)
        assert geometry.is_same_grid(OBLIQUE, 1e-5)


def test_two_dimensional_files_are_one_slice(tmp_path: Path):
    array = noise((6, 7))
    image, geometry = read_image(case_of(save(tmp_path / "a.nrrd", array)))
    np.testing.assert_array_equal(image[0, 0], array)
    assert geometry.size == (7, 6, 1)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.002, 0.5, 0.95])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float):
    path = save(tmp_path / f"a{suffix}", noise((20, 30, 40)))
    data = next(
        (one for one in tmp_path.iterdir() if one.suffix in (".raw", ".zraw") or one.name.endswith("raw.gz")), path
    )
    content = data.read_bytes()
    data.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CaseError) as caught:
        read_image(case_of(path))
    assert caught.value.code is ErrorCode.FILE_UNREADABLE
    assert path.name in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_few_lost_bytes_at_the_end_are_noticed(tmp_path: Path, suffix: str):
    """ITK itself reads such a NIfTI file without a word."""
    path = save(tmp_path / f"a{suffix}", noise((20, 30, 40)))
    path.write_bytes(path.read_bytes()[:-10])
    sitk.ReadImage(str(path))
    expect_refusal(FindingCode.FILE_TRUNCATED, "cut off or damaged", path=path)


def test_damage_in_the_middle_is_noticed(tmp_path: Path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 256, (40, 60, 60)).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CaseError, match="damaged") as caught:
        read_image(case_of(path))
    assert caught.value.code is ErrorCode.FILE_UNREADABLE


def test_compressed_file_in_several_parts_is_whole(tmp_path: Path):
    """bgzip writes many gzip members, of which each has its own length."""
    import gzip

    plain = save(tmp_path / "a.nii", noise(SHAPE)).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(b"".join(gzip.compress(plain[start : start + 200]) for start in range(0, len(plain), 200)))
    np.testing.assert_array_equal(read_image(case_of(path))[0][0], noise(SHAPE))


def test_big_endian_header(tmp_path: Path):
    little = save(tmp_path / "a.nii", noise(SHAPE)).read_bytes()
    big = bytearray(little[:352])
    struct.pack_into(">i", big, 0, 348)
    for kind, start, end in (("h", 40, 56), ("h", 68, 74), ("f", 76, 120), ("h", 252, 256), ("f", 256, 328)):
        numbers = struct.unpack(f"<{(end - start) // struct.calcsize(kind)}{kind}", little[start:end])
        struct.pack_into(f">{len(numbers)}{kind}", big, start, *numbers)
    path = tmp_path / "b.nii"
    path.write_bytes(bytes(big) + np.frombuffer(little[352:], "<f4").astype(">f4").tobytes())
    np.testing.assert_array_equal(read_image(case_of(path))[0][0], noise(SHAPE))
    path.write_bytes(path.read_bytes()[:-1])
    expect_refusal(FindingCode.FILE_TRUNCATED, path=path)


def test_nifti_2_has_its_own_sentence(tmp_path: Path):
    path = tmp_path / "a.nii"
    path.write_bytes(struct.pack("<i8s", 540, b"n+2\0\r\n\x1a\n") + bytes(1000))
    expect_refusal(FindingCode.FILE_UNREADABLE, "NIfTI-2", "NRRD", path=path)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_nan_in_nifti_is_noticed(tmp_path: Path, suffix: str, kind: str):
    """ITK itself turns it into zero without a word."""
    array = noise(SHAPE).astype(kind)
    array[1, 2, 3], array[4, 5, 6] = np.nan, -np.inf
    path = save(tmp_path / f"a{suffix}", array)
    assert np.isfinite(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).all()
    expect_refusal(FindingCode.NOT_FINITE, "not numbers (NaN or infinite): 2.", path=path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".png"])
def test_files_that_are_no_volumes(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    path.write_text("not a volume at all " * 40)
    expect_refusal(FindingCode.FILE_UNREADABLE, path=path)


def test_missing_file(tmp_path: Path):
    expect_refusal(FindingCode.FILE_MISSING, "does not exist", path=tmp_path / "a.nrrd")


@pytest.mark.parametrize("step", [0.0, -1.5])
def test_zero_and_negative_spacing(tmp_path: Path, step: float):
    nifti = save(tmp_path / "a.nii", noise(SHAPE))
    content = bytearray(nifti.read_bytes())
    struct.pack_into("<f", content, 88, step)
    nifti.write_bytes(content)
    expect_refusal(FindingCode.SPACING_INVALID, f"{step:g}", path=nifti)
    meta = save(tmp_path / "a.mha", noise(SHAPE), grid(SHAPE, (1.0, 1.0, 7.25)))
    meta.write_bytes(meta.read_bytes().replace(b"ElementSpacing = 1 1 7.25", f"ElementSpacing = 1 1 {step}".encode()))
    expect_refusal(FindingCode.SPACING_INVALID, path=meta)
    nrrd = tmp_path / "a.nrrd"
    lines = ["NRRD0004", "type: float", "dimension: 3", f"spacings: 1 1 {step}", "sizes: 1 1 2", "encoding: ascii"]
    nrrd.write_text("\n".join([*lines, "", "1 2", ""]))
    expect_refusal(FindingCode.SPACING_INVALID, path=nrrd)


def sheared(path: Path) -> Path:
    axes = "space directions: (1,0,0) (0,1,0) (0,0.5,1)"
    lines = ["NRRD0004", "type: float", "dimension: 3", "space: left-posterior-superior", axes, "sizes: 2 1 2"]
    path.write_text("\n".join([*lines, "space origin: (0,0,0)", "encoding: ascii", "", "1 2 3 4", ""]))
    return path


def test_sheared_axes_are_kept_and_never_straightened(tmp_path: Path):
    image, geometry = read_image(case_of(sheared(tmp_path / "a.nrrd")))
    assert geometry.is_sheared
    write_volume(tmp_path / "b.nrrd", image[0], geometry)
    assert read_header(tmp_path / "b.nrrd").geometry.is_same_grid(geometry, 1e-9)
    write_volume(tmp_path / "b.nii.gz", image[0], geometry)
    assert read_header(tmp_path / "b.nii.gz").geometry.is_same_grid(geometry, 1e-6)


def test_four_dimensional_colour_and_vector_images(tmp_path: Path):
    volume = sitk.GetImageFromArray(noise(SHAPE))
    four = tmp_path / "four.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([volume] * 3), str(four))
    expect_refusal(FindingCode.FOUR_DIMENSIONAL, "3 volumes", path=four)
    expect_refusal(FindingCode.FOUR_DIMENSIONAL, "3 volumes", path=four, label=True)
    colour = save(tmp_path / "rgb.nrrd", np.zeros((*SHAPE, 3), np.uint8), is_vector=True)
    expect_refusal(FindingCode.COLOUR_IMAGE, "colour", path=colour)
    expect_refusal(FindingCode.COLOUR_IMAGE, "colour", path=colour, label=True)
    vector = save(tmp_path / "v.nrrd", np.zeros((*SHAPE, 2), np.float32), is_vector=True)
    expect_refusal(FindingCode.CHANNEL_COUNT, "only 1", path=vector)
    with pytest.raises(CaseError, match="1 of the task's 2 image channels"):
        read_image(case_of(save(tmp_path / "one.nrrd", noise(SHAPE))), channels=2)


def test_channels_on_different_grids(tmp_path: Path):
    first = save(tmp_path / "a.nrrd", noise(SHAPE), grid(SHAPE))
    second = save(tmp_path / "b.nrrd", noise(SHAPE), grid(SHAPE, (1.0, 1.0, 2.0)))
    with pytest.raises(CaseError, match=r"grid of .*: its grid is .* voxels of 1 x 1 x 2 mm from") as caught:
        read_image(case_of(first, second), same_grid=True)
    assert caught.value.finding is FindingCode.GRID_DIFFERS
    heard: list[Finding] = []
    with hearing(heard.append):
        image, geometry = read_image(case_of(first, second))
    assert geometry == grid(SHAPE)
    expected = sitk.Resample(sitk.ReadImage(str(second)), sitk.ReadImage(str(first)), sitk.Transform(), sitk.sitkLinear)
    np.testing.assert_allclose(image[1], sitk.GetArrayFromImage(expected), rtol=1e-6)
    (finding,) = heard
    assert finding.code is FindingCode.GRID_RESAMPLED
    for part in (str(second), "1 x 1 x 2 mm", str(first), "1 x 1 x 1 mm"):
        assert part in finding.message
    save(second, noise(SHAPE), grid(SHAPE, origin=(500.0, 0.0, 0.0)))
    with pytest.raises(CaseError, match="does not lie anywhere near"):
        read_image(case_of(first, second))


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 255], np.uint8), ([0, 256], np.uint16), ([-1, 2], np.int32), ([0, 70000], np.int32), ([0, 2**40], np.int64)],
)
def test_label_values_are_kept_as_on_disk(tmp_path: Path, values: list[int], kind: type):
    array = np.resize(np.array(values, np.float64 if values[-1] < 2**40 else np.int64), SHAPE)
    label, _ = read_label_map(save(tmp_path / "a.nrrd", array))
    np.testing.assert_array_equal(label, array)
    assert label.dtype == kind


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_labels_that_are_no_whole_numbers(tmp_path: Path, value: float):
    array = blocks(SHAPE).astype(np.float32)
    array[2, 3, 4] = value
    code, words = (FindingCode.LABEL_NOT_INTEGER, "whole") if value == 0.5 else (FindingCode.NOT_FINITE, "number")
    for suffix in (".nii.gz", ".nrrd"):
        expect_refusal(code, words, path=save(tmp_path / f"a{suffix}", array), label=True)


def test_label_of_a_case_is_checked_against_task_and_image(tmp_path: Path):
    image = save(tmp_path / "i.nrrd", noise(SHAPE), grid(SHAPE))
    label = save(tmp_path / "l.nrrd", blocks(SHAPE), grid(SHAPE, origin=(2.0, 0.0, 0.0)))
    case = case_of(image, label=label)
    np.testing.assert_array_equal(read_label(case, TASK), blocks(SHAPE))
    with pytest.raises(CaseError, match=r"does not lie on the grid of .*: its grid is") as caught:
        read_label(case, TASK, geometry=read_header(image).geometry, same_grid=True)
    save(label, blocks(SHAPE), grid(SHAPE, origin=(99.0, 0.0, 0.0)))
    with pytest.raises(CaseError, match="does not lie anywhere near") as caught:
        read_label(case, TASK, geometry=read_header(image).geometry)
    assert caught.value.code is ErrorCode.CASE_INVALID
    save(label, blocks(SHAPE) * 3)
    with pytest.raises(CaseError, match="does not know: 3, 12"):
        read_label(case, TASK)
    with pytest.raises(CaseError, match="has no label"):
        read_label(case_of(image))


def test_segmentation_file_of_slicer(tmp_path: Path):
    """One layer is a label map; layers that overlap come as several values at each voxel."""
    single = save(tmp_path / "a.seg.nrrd", blocks(SHAPE))
    np.testing.assert_array_equal(read_label_map(single)[0], blocks(SHAPE))
    layers = save(tmp_path / "b.seg.nrrd", np.stack([blocks(SHAPE)] * 2, axis=-1), is_vector=True)
    expect_refusal(FindingCode.LABEL_LAYERS, "overlap, in 2 layers", "label map", path=layers, label=True)


def test_output_that_cannot_be_written(tmp_path: Path):
    volume = np.zeros(SHAPE, np.uint8)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.nrrd", tmp_path / "file" / "a.nii.gz"):
        with pytest.raises(ForgettableSegError) as caught:
            write_volume(path, volume, OBLIQUE)
        assert caught.value.code is ErrorCode.OUTPUT_UNWRITABLE
        assert str(path) in str(caught.value)
    with pytest.raises(ForgettableSegError, match="does not name a kind of file"):
        write_volume(tmp_path / "a.png", volume, OBLIQUE)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from ForgettableSegLib.cases.files import write_volume
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.errors import ForgettableSegError
volume = np.random.default_rng(0).normal(size=(30, 40, 50))
geometry = Geometry((50, 40, 30), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
path = Path(sys.argv[1])
path.write_text("old")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_volume(path, volume, geometry)
except ForgettableSegError as error:
    print(error.code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files with POSIX rlimits")
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_write_that_stops_half_way_leaves_the_old_file(tmp_path: Path, suffix: str):
    """ITK writes NIfTI to a full disk without a word."""
    path = tmp_path / f"a{suffix}"
    run = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert run.stdout.strip() in ("OUTPUT_UNWRITABLE", "DISK_FULL")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_stems_and_suffixes():
    assert stem_of(Path("x/case_1.nii.gz")) == "case_1"
    assert stem_of(Path("x/a.seg.nrrd")) == "a"
    assert stem_of(Path("x/A.NII.GZ")) == "A"
    assert stem_of(Path("x/a.b")) == "a.b"
    assert suffix_of(Path("x.seg.nrrd")) == ".seg.nrrd"
    assert suffix_of(Path("x.png")) == ""


def test_gantry_tilt_comes_back_from_the_prepared_grid(shared_data: Path):
    image, geometry = read_image(case_of(shared_data / "Examples/CT_pitch.nii.gz"))
    plan = PreparedGrid.plan(geometry, (None, None, None), 2)
    assert isinstance(plan.native, Geometry)
    np.testing.assert_array_equal(plan.to_native(plan.to_prepared(image[0])), image[0])
