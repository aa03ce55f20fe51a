"""DICOM folders in jobs: what is odd about a series is told, and the job goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from job_inputs import kinds, run
from small_models import make_package

from ForgettableSegLib.jobs.inputs import rank_device
from ForgettableSegLib.training.distributed import ProcessGroup


def write_series(folder: Path, uid: str, heights: list[float]) -> None:
    """A DICOM series with slices at these heights."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, height in enumerate(heights):
        image = sitk.GetImageFromArray(np.random.default_rng(number).integers(0, 99, (1, 16, 16)).astype(np.uint16))
        tags = {
            "0008|0060": "MR",
            "0008|0018": f"{uid}.{number + 1}",
            "0020|000e": uid,
            "0020|0013": str(number + 1),
            "0020|0032": f"0\\0\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid.replace('.', '_')}-{number}.dcm"))
        writer.Execute(image)


def segment(tmp_path: Path) -> list[dict]:
    """Events of a segmentation of the folder "series", which has to succeed."""
    model = str(make_package().write(tmp_path / "abdomen"))
    arguments = {"output": str(tmp_path / "out"), "device": "cpu", "heatmap": False}
    done, events = run("segment", model=model, input=str(tmp_path / "series"), **arguments)
    assert done.exit_code == 0, events[-1]
    return events


def test_a_missing_slice_and_a_second_series_are_told_of(tmp_path: Path) -> None:
    write_series(tmp_path / "series", "1.2.3", [0, 4, 8, 16])
    write_series(tmp_path / "series", "1.2.4", [0, 4])
    events = segment(tmp_path)
    warnings = [event for event in events if event["event"] == "warning" and "series" in event["text"]]
    assert ["holds 2 DICOM series" in warnings[0]["text"], "varies" in warnings[1]["text"]] == [True, True]
    assert {event["case"] for event in warnings} == {"series"}
    assert "holds 2 DICOM series" in (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")


def test_a_sound_series_is_segmented_without_a_word(tmp_path: Path) -> None:
    write_series(tmp_path / "series", "1.2.3", [0, 4, 8])
    assert "warning" not in kinds(segment(tmp_path))
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["cases"]
    assert [row["case"] for row in rows] == ["series"]


def test_on_a_cpu_every_rank_has_the_same_device() -> None:
    assert {str(rank_device("cpu", ProcessGroup(rank, 2, rank))) for rank in range(2)} == {"cpu"}
