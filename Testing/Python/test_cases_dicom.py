"""DICOM series folders: slices in order, none missing without a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.dicom import read_series
from ForgettableSegLib.cases.files import read_header, read_image
from ForgettableSegLib.cases.findings import CaseError, FindingCode


def case_of(folder: Path) -> Case:
    return Case("k", "k", (folder,))


def test_dicom_series_is_read_in_order(shared_data: Path):
    """The crop is a NIfTI case of the same data set, saved as DICOM: slices must not be shuffled."""
    series = read_series(shared_data / "DicomBrain/HippocampusCrop")
    assert len(series.files) == 32
    assert not series.is_uneven
    heights = [float(sitk.ReadImage(str(path)).GetMetaData("0020|0032").split("\\")[2]) for path in series.files]
    assert heights == sorted(heights)
    oblique = read_header(shared_data / "DicomBrain/T1post").geometry
    assert oblique.size == (512, 512, 22)
    assert not np.allclose(np.abs(oblique.direction), np.round(np.abs(oblique.direction)), atol=0.01)
    assert not read_series(shared_data / "DicomBrain/T1post").is_uneven


def test_dicom_with_a_missing_or_damaged_slice(shared_data: Path, tmp_path: Path):
    folder = tmp_path / "series"
    shutil.copytree(shared_data / "DicomBrain/HippocampusCrop", folder)
    damaged = folder / "14.dcm"
    damaged.write_bytes(damaged.read_bytes()[:600])
    with pytest.raises(CaseError, match="damaged DICOM file") as caught:
        read_image(case_of(folder))
    assert caught.value.path == damaged
    damaged.unlink()
    assert read_series(folder).is_uneven


def test_slices_of_different_size(shared_data: Path, tmp_path: Path):
    folder = tmp_path / "series"
    shutil.copytree(shared_data / "DicomBrain/HippocampusCrop", folder)
    slice_image = sitk.ReadImage(str(folder / "9.dcm"))
    smaller = slice_image[:-3, :, :]
    for key in slice_image.GetMetaDataKeys():
        smaller.SetMetaData(key, slice_image.GetMetaData(key))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(folder / "9.dcm"))
    writer.Execute(smaller)
    with pytest.raises(CaseError, match="slices differ in size"):
        read_image(case_of(folder))


def test_folder_without_dicom(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CaseError, match="holds no DICOM series") as caught:
        read_image(case_of(tmp_path))
    assert caught.value.finding is FindingCode.FILE_UNREADABLE
