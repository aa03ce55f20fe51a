#!/usr/bin/env python3
"""Makes the volume of Sample Data: `python3 Testing/make_sample_data.py`. It needs the package nilearn (extra `demo`).

The T1-weighted MNI152 template as nilearn ships it (brain only, 1 mm, 8 bits), cut to the brain and a margin. No voxel
within is changed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import SimpleITK as sitk

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ForgettableSegLib.jobs.demo_data import template  # noqa: E402

FILE = ROOT / "Resources" / "SampleData" / "MNI152_T1_1mm_brain.nrrd"
_MARGIN = 3  # voxels around the brain


def sample() -> sitk.Image:
    """Return the template, uint8, cut to the voxels that are not 0 and a margin."""
    whole = sitk.Cast(template("t1"), sitk.sitkUInt8)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.Cast(whole > 0, sitk.sitkUInt8))
    box = statistics.GetBoundingBox(1)
    low = [max(0, first - _MARGIN) for first in box[:3]]
    ends = [first + count + _MARGIN for first, count in zip(box[:3], box[3:], strict=True)]
    high = [min(size, end) for size, end in zip(whole.GetSize(), ends, strict=True)]
    return whole[tuple(slice(*limits) for limits in zip(low, high, strict=True))]


def main() -> None:
    """Write the file, and print its checksum for `samples.py`."""
    FILE.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sample(), str(FILE), useCompression=True, compressionLevel=9)
    print(f"{FILE}: {FILE.stat().st_size} bytes, SHA256 {hashlib.sha256(FILE.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
