"""A segmentation of a DICOM series as a DICOM Segmentation (SEG) object. Needs highdicom (extra `dicom`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ForgettableSegLib import __version__
from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.dicom import series_files
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

# Where a class has no terminology: the most general that SNOMED CT offers.
_CATEGORY = ("SCT", "123037004", "Anatomical Structure")
_TYPE = ("SCT", "91723000", "Anatomical structure")
# The standard lets a slice leave these empty, but highdicom asks for them.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
# High, so that it comes after the scanner's own series.
_SERIES_NUMBER = 900
_FAMILY = ("DCM", "123110", "Artificial Intelligence")


def require_highdicom() -> None:
    """Say before anything is computed that a package is missing.

    Raises:
        ForgettableSegError: PACKAGE_MISSING.
    """
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError as error:
        message = "The package 'highdicom' is not installed, so no DICOM Segmentation can be written."
        hint = "Install it with: pip install 'forgettableseg[dicom]', or choose another format."
        raise ForgettableSegError(ErrorCode.PACKAGE_MISSING, message, hint=hint) from error


def source_files(case: Case) -> tuple[Path, ...]:
    """Files of the series that a case is, in the order of its slices.

    Raises:
        ForgettableSegError: REQUEST_INVALID if its image is no DICOM series.
    """
    folder = case.images[0]
    series = series_files(folder) if folder.is_dir() else []
    if not series:
        message = f"The image {folder} is not a DICOM series, so its segmentation cannot be a DICOM Segmentation."
        hint = "Choose the format .nrrd or .nii.gz, or give the folder of the series."
        raise ForgettableSegError(ErrorCode.REQUEST_INVALID, message, hint=hint)
    return series[0]


def write_dicom_seg(path: Path, labels: np.ndarray, files: tuple[Path, ...], task: Task, model: str) -> None:
    """Write a binary segmentation, a segment a class that was found.

    Args:
        path: of the file.
        labels: label values of the task ``[z, y, x]``, a slice a file (or a frame of the only file).
        files: of the series, in the order of its slices.
        task: names, values, colours and terminology of the classes.
        model: that made it.

    Raises:
        ForgettableSegError: CASE_INVALID if the series lacks what a segmentation has to refer to.
    """
    import highdicom

    found = [each for each in task.classes if (labels == each.value).any()] or list(task.classes)
    numbered = np.zeros(labels.shape, dtype=np.uint8)
    for number, each in enumerate(found, start=1):
        numbered[labels == each.value] = number
    algorithm = highdicom.AlgorithmIdentificationSequence(name=model, version=__version__, family=_code(_FAMILY))
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=[_read(file) for file in files],
            pixel_array=numbered,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(number, each, algorithm) for number, each in enumerate(found, start=1)],
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="ForgettableSeg",
            manufacturer_model_name=model,
            software_versions=__version__,
            device_serial_number="0",
            series_description=f"Segmentation by {model}"[:64],
        )
    except (AttributeError, ValueError, KeyError) as error:
        message = f"The DICOM series in {files[0].parent} lacks what a DICOM Segmentation refers to ({error})."
        raise ForgettableSegError(ErrorCode.CASE_INVALID, message, hint="Choose the format .nrrd.") from error
    segmentation.save_as(path)


def _read(file: Path) -> Dataset:
    import pydicom

    dataset = pydicom.dcmread(file)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    return dataset


def _description(number: int, each: SegmentClass, algorithm: Any) -> SegmentDescription:
    import highdicom

    terminology = each.terminology or {}
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=each.name[:64],
        segmented_property_category=_code(terminology.get("category") or _CATEGORY),
        segmented_property_type=_code(terminology.get("type") or _TYPE),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    if terminology.get("modifier"):
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_code(terminology["modifier"])]
    if each.color is not None:
        lightness = highdicom.color.CIELabColor.from_rgb(*each.color)
        description.RecommendedDisplayCIELabValue = list(lightness.value)
    return description


def _code(triple: Any) -> Any:
    import highdicom

    scheme, value, meaning = triple
    return highdicom.sr.CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)
