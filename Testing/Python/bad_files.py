"""Rows of bad input: images and labels."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from bad_inputs import SHAPE, Good, Row
from case_volumes import blocks, grid, noise, save

GEOMETRY = grid(SHAPE, spacing=(1.25, 1.25, 4.0))


def _volume(good: Good, name: str, array: np.ndarray, *, is_vector: bool = False) -> Path:
    return save(good.folder / name, array, None if array.ndim == 4 else GEOMETRY, is_vector=is_vector)


def _with_value(value: float) -> np.ndarray:
    array = noise(SHAPE)
    array[1, 2, 3] = value
    return array


def _plain_nifti(good: Good, change: tuple[int, bytes]) -> Path:
    """An uncompressed NIfTI file, some bytes of whose header are changed."""
    path = _volume(good, "bad.nii", noise(SHAPE))
    content = bytearray(path.read_bytes())
    at, value = change
    content[at : at + len(value)] = value
    return good.write("bad.nii", bytes(content))


def _cut(good: Good, name: str, keep: float) -> Path:
    path = _volume(good, name, noise(SHAPE))
    content = path.read_bytes()
    return good.write(name, content[: int(len(content) * keep)])


def _nifti2(good: Good) -> Path:
    return good.write("bad.nii", struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + bytes(700))


def _wrong_checksum(good: Good) -> Path:
    content = bytearray(gzip.compress(_volume(good, "plain.nii", noise(SHAPE)).read_bytes()))
    content[-6] ^= 255
    return good.write("bad.nii.gz", bytes(content))


def _header_without_voxels(good: Good) -> Path:
    path = _volume(good, "bad.mhd", noise(SHAPE))
    path.with_suffix(".raw").unlink()
    return path


def _spacing(good: Good, text: str) -> Path:
    path = _volume(good, "bad.mha", noise(SHAPE))
    content = path.read_bytes()
    return good.write("bad.mha", content.replace(b"ElementSpacing = 1.25 1.25 4", f"ElementSpacing = {text}".encode()))


def _damaged_slice(good: Good) -> Path:
    folder = good.folder / "bad"
    save(folder / "1.dcm", np.zeros((1, 16, 16), np.uint16))
    (folder / "2.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    return folder


def _layers(good: Good) -> Path:
    image = sitk.JoinSeries([sitk.GetImageFromArray(blocks(SHAPE)) for _ in range(2)])
    array = np.stack([sitk.GetArrayFromImage(image)[0]] * 2, axis=-1)
    return _volume(good, "bad.seg.nrrd", array, is_vector=True)


def _shifted(good: Good, **changes: tuple[float, ...]) -> Path:
    return save(
        good.folder / "bad_label.nii.gz", blocks(SHAPE), grid(SHAPE, **{"spacing": (1.25, 1.25, 4.0), **changes})
    )


FILES = (
    Row("missing image", "FILE_MISSING", "bad.nii.gz", lambda g: g.segment(g.folder / "bad.nii.gz")),
    Row(
        "image of a list is missing",
        "FILE_MISSING",
        "gone.nii.gz",
        lambda g: g.segment(g.table("gone.nii.gz")),
        1,
        "missing image",
    ),
    Row("empty NIfTI", "FILE_UNREADABLE", "bad.nii.gz", lambda g: g.segment(g.write("bad.nii.gz", b"")), 1),
    Row("text called NIfTI", "FILE_UNREADABLE", "bad.nii.gz", lambda g: g.segment(g.write("bad.nii.gz", "x" * 999)), 1),
    Row("text called NRRD", "FILE_UNREADABLE", "bad.nrrd", lambda g: g.segment(g.write("bad.nrrd", "hello")), 1),
    Row(
        "cut-off NIfTI",
        "FILE_UNREADABLE",
        "bad.nii.*less",
        lambda g: g.segment(_cut(g, "bad.nii", 0.7)),
        1,
        "empty NIfTI",
    ),
    Row(
        "cut-off gzip",
        "FILE_UNREADABLE",
        "bad.nii.gz.*less",
        lambda g: g.segment(_cut(g, "bad.nii.gz", 0.7)),
        1,
        "empty NIfTI",
    ),
    Row(
        "cut-off NRRD",
        "FILE_UNREADABLE",
        "bad.nrrd",
        lambda g: g.segment(_cut(g, "bad.nrrd", 0.7)),
        1,
        "text called NRRD",
    ),
    Row(
        "gzip with a wrong checksum",
        "FILE_UNREADABLE",
        "bad.nii.gz",
        lambda g: g.segment(_wrong_checksum(g)),
        1,
        "empty NIfTI",
    ),
    Row("NIfTI-2", "FILE_UNREADABLE", "bad.nii is a NIfTI-2", lambda g: g.segment(_nifti2(g)), 1),
    Row(
        "header whose voxels are missing",
        "FILE_UNREADABLE",
        "bad.mhd",
        lambda g: g.segment(_header_without_voxels(g)),
        1,
        "text called NRRD",
    ),
    Row(
        "NaN in NIfTI",
        "CASE_INVALID",
        "bad.nii.gz.*not numbers.*: 1",
        lambda g: g.segment(_volume(g, "bad.nii.gz", _with_value(np.nan))),
        1,
    ),
    Row(
        "infinity in NRRD",
        "CASE_INVALID",
        "bad.nrrd.*not numbers.*: 1",
        lambda g: g.segment(_volume(g, "bad.nrrd", _with_value(np.inf))),
        1,
        "NaN in NIfTI",
    ),
    Row(
        "four axes",
        "CASE_INVALID",
        "bad.nii.gz is four-dimensional",
        lambda g: g.segment(_volume(g, "bad.nii.gz", noise((5, *SHAPE)))),
        1,
    ),
    Row(
        "colour picture",
        "CASE_INVALID",
        "bad.nrrd is a colour image",
        lambda g: g.segment(_volume(g, "bad.nrrd", np.zeros((*SHAPE, 3), np.uint8), is_vector=True)),
        1,
    ),
    Row(
        "too many channels",
        "CASE_INVALID",
        "'bad'.*2 image channels.*only 1",
        lambda g: g.segment(g.table(f"{g.image}|{g.image}")),
        1,
    ),
    Row(
        "spacing of zero",
        "CASE_INVALID",
        "spacing of 0 x 1.25",
        lambda g: g.segment(_plain_nifti(g, (80, struct.pack("<f", 0)))),
        1,
    ),
    Row("negative spacing", "CASE_INVALID", "spacing of -1 1 4", lambda g: g.segment(_spacing(g, "-1 1 4")), 1),
    Row(
        "damaged DICOM slice", "FILE_UNREADABLE", "2.dcm is a damaged DICOM", lambda g: g.segment(_damaged_slice(g)), 1
    ),
    Row(
        "folder in place of an image",
        "FILE_UNREADABLE",
        "bad.nii.gz holds no DICOM series",
        lambda g: g.segment(g.table(g.write("bad.nii.gz/notes.txt", "x").parent)),
        1,
    ),
)

LABELS = (
    Row("label is missing", "FILE_MISSING", "gone.nii.gz", lambda g: g.audit("gone.nii.gz"), 1, "missing image"),
    Row("no label", "CASE_INVALID", "'bad'.*has no label", lambda g: g.audit(" "), 1),
    Row(
        "empty label",
        "FILE_UNREADABLE",
        "bad_label",
        lambda g: g.audit(g.write("bad_label.nii.gz", b"")),
        1,
        "empty NIfTI",
    ),
    Row(
        "label elsewhere",
        "CASE_INVALID",
        "bad_label.*does not lie anywhere near",
        lambda g: g.audit(_shifted(g, origin=(30.0, 0.0, 0.0))),
        1,
    ),
    Row(
        "label value outside the task",
        "CASE_INVALID",
        "bad_label.*'abdomen' does not know: 3",
        lambda g: g.audit(_volume(g, "bad_label.nrrd", np.full(SHAPE, 3, np.uint8))),
        1,
    ),
    Row(
        "negative label value",
        "CASE_INVALID",
        "bad_label.*does not know: -7",
        lambda g: g.audit(_volume(g, "bad_label.nrrd", np.full(SHAPE, -7, np.int16))),
        1,
        "label value outside the task",
    ),
    Row(
        "image in place of a label",
        "CASE_INVALID",
        "bad_label.*not whole numbers",
        lambda g: g.audit(_volume(g, "bad_label.nrrd", noise(SHAPE))),
        1,
    ),
    Row(
        "label with NaN",
        "CASE_INVALID",
        "bad_label.*not numbers",
        lambda g: g.audit(_volume(g, "bad_label.nrrd", _with_value(np.nan))),
        1,
        "NaN in NIfTI",
    ),
    Row("segments that overlap", "CASE_INVALID", "bad.seg.nrrd.*overlap", lambda g: g.audit(_layers(g)), 1),
    Row(
        "label with four axes",
        "CASE_INVALID",
        "bad_label.*four-dimensional",
        lambda g: g.audit(_volume(g, "bad_label.nii.gz", np.ones((2, *SHAPE), np.uint8))),
        1,
        "four axes",
    ),
)
