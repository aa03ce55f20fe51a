"""What `segment` tells of its cases, and the forms in which it hands them over."""

from __future__ import annotations

import csv
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from job_inputs import artifacts, kinds, make_cases
from small_models import make_package
from test_jobs_dicom import write_series

from ForgettableSegLib.cases.files import read_header
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.jobs.casewise import _add_to_summary
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.jobs.segment import _case_table, _removed, millilitres
from ForgettableSegLib.worker.runner import run_job

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_package().write(tmp_path_factory.mktemp("model") / "abdomen"))


def segment(model: str, output: Path, after: dict[str, int] | None = None, **arguments: Any) -> tuple[JobResult, list]:
    """Result and events of a segmentation; cancelled after so many events of a kind."""
    events: list[dict[str, Any]] = []
    request = make_request("segment", {"model": model, "output": str(output), "device": "cpu", **arguments})

    def sink(event: dict[str, Any]) -> None:
        events.append(event)
        for kind, count in (after or {}).items():
            if kinds(events).count(kind) == count:
                context.cancel()

    context = JobContext(job="segment", sink=sink)
    return run_job(request, context), events


@pytest.mark.parametrize(
    ("volume", "text"), [(0, "0.000"), (0.01234, "0.012"), (1.234, "1.23"), (34.56, "34.6"), (1234.5, "1234")]
)
def test_volumes_have_as_many_digits_as_tell_something(volume: float, text: str) -> None:
    assert millilitres(volume) == text


def test_each_case_is_told_of_with_its_volumes(model: str, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    _, events = segment(model, tmp_path / "out", cases=cases)
    lines = events[-1]["text"].splitlines()
    assert lines[0].startswith("case")
    assert all(name in lines[0] for name in ("liver ml", "spleen ml", "verdict"))
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open(encoding="utf-8")))
    for line, row in zip(lines[1:3], rows, strict=True):
        cells = line.split()
        assert cells[0] == row["case"]
        assert cells[1] == millilitres(float(row["liver ml"]))


def test_a_cancelled_run_leaves_the_summary_of_what_is_done(model: str, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 3)
    files_of_a_case = 5  # label map, two maps of difficulty, review, task
    done, events = segment(model, tmp_path / "out", {"artifact": files_of_a_case}, cases=cases)
    assert done.exit_code == 130
    assert events[-1]["event"] == "cancelled"
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open(encoding="utf-8")))
    assert [(row["case"], row["status"]) for row in rows] == [(cases[0]["id"], "done")]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cases"][0]["case"] == cases[0]["id"]


def test_ranks_share_one_summary_as_they_go(tmp_path: Path) -> None:
    order = [f"case{number}" for number in range(9)]

    def rank(number: int) -> None:
        rows: list[dict[str, Any]] = []
        for case in order[number::3]:
            rows.append({"case": case, "status": "done", "ml": float("nan")})
            _add_to_summary(tmp_path, "model", order, rows)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(rank, range(3)))
    assert [row["case"] for row in json.loads((tmp_path / "summary.json").read_text())["cases"]] == order
    rows = list(csv.DictReader((tmp_path / "summary.csv").open(encoding="utf-8")))
    assert [row["case"] for row in rows] == order
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.csv", "summary.json"]


def test_a_preview_shows_three_planes_of_every_case(model: str, tmp_path: Path) -> None:
    matplotlib_image = pytest.importorskip("matplotlib.image", reason="needs matplotlib (extra `report`)")
    cases = make_cases(tmp_path / "cases", 1)
    _, events = segment(model, tmp_path / "out", cases=cases, preview=True)
    pixels = matplotlib_image.imread(artifacts(events, cases[0]["id"])["preview"])
    assert pixels.shape[:2] == (440, 1100)
    ink = (pixels[..., :3] < 0.99).any(axis=(0, 2))
    assert sum(np.diff(ink[::20].astype(int)) == 1) >= 2, "the planes stand beside each other"


@pytest.mark.parametrize("direction", [(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), OBLIQUE])
def test_a_box_in_millimetres_holds_the_voxels_whose_centres_are_in_it(direction: tuple[float, ...]) -> None:
    geometry = Geometry(size=(20, 20, 20), spacing=(1.5, 2.0, 3.0), origin=(-7.0, 3.0, 11.0), direction=direction)
    np.testing.assert_allclose(geometry.physical_to_index(geometry.index_to_physical([3, 4, 5])), [3, 4, 5])
    corners = geometry.index_to_physical([[3, 4, 5], [8, 9, 10]])
    low, high = corners.min(axis=0), corners.max(axis=0)
    first, past = geometry.index_box(low, high)
    indices = np.stack(np.meshgrid(*(range(20) for _ in range(3)), indexing="ij"), axis=-1)
    centres = geometry.index_to_physical(indices)
    inside = ((centres >= low - 1e-6) & (centres <= high + 1e-6)).all(axis=-1)
    assert indices[inside].min(axis=0).tolist() >= list(first)
    assert (indices[inside].max(axis=0) < past).all()
    if direction != OBLIQUE:
        assert (first, past) == ((3, 4, 5), (9, 10, 11))


def test_a_region_may_be_given_in_millimetres(model: str, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 1)
    geometry = read_header(Path(cases[0]["images"][0])).geometry
    corners = geometry.index_to_physical([[2, 3, 1], [15, 17, 3]])
    box = {"region_mm": [corners.min(axis=0).tolist(), corners.max(axis=0).tolist()]}
    found = {}
    for name, region in (("voxels", {"region": [[2, 3, 1], [16, 18, 4]]}), ("millimetres", box)):
        _, events = segment(model, tmp_path / name, cases=cases, heatmap=False, **region)
        path = artifacts(events, cases[0]["id"])["segmentation"]
        found[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert np.array_equal(found["voxels"], found["millimetres"])
    assert found["voxels"].any()


def test_dicom_becomes_a_dicom_segmentation(model: str, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs highdicom (extra `dicom`)")
    import pydicom

    write_series(tmp_path / "series", "1.2.3", [0, 4, 8])
    for path in (tmp_path / "series").iterdir():  # what a scanner writes and ITK leaves out
        slice_ = pydicom.dcmread(path)
        slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = "1.2.9", "1.2.8"
        slice_.PatientID, slice_.SliceThickness = "somebody", 4
        slice_.save_as(path)
    done, events = segment(model, tmp_path / "out", input=str(tmp_path / "series"), file_format="dicom-seg")
    assert done.exit_code == 0, events
    written = artifacts(events, "series")
    assert written["confidence"].suffix == ".nrrd"
    found = pydicom.dcmread(written["segmentation"])
    assert (found.Modality, found.PatientID, found.FrameOfReferenceUID) == ("SEG", "somebody", "1.2.8")
    assert {each.SegmentLabel for each in found.SegmentSequence} <= {"liver", "spleen"}
    _, events = segment(model, tmp_path / "plain", input=str(tmp_path / "series"), heatmap=False)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(artifacts(events, "series")["segmentation"])))
    assert found.pixel_array.astype(bool).sum() == (labels > 0).sum()


def test_no_other_image_becomes_a_dicom_segmentation(model: str, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs highdicom (extra `dicom`)")
    cases = make_cases(tmp_path / "cases", 1)
    done, events = segment(model, tmp_path / "out", cases=cases, file_format="dicom-seg")
    assert done.exit_code == 1
    (failed,) = (event for event in events if event["event"] == "case_failed")
    assert "is not a DICOM series" in failed["text"]


def test_without_highdicom_nothing_is_computed(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    done, events = segment(model, tmp_path / "out", input=str(tmp_path), file_format="dicom-seg")
    assert done.exit_code == 2
    assert events[-1]["code"] == "PACKAGE_MISSING"
    assert "forgettableseg[dicom]" in events[-1]["hint"]
    assert not (tmp_path / "out").exists()


def test_many_classes_are_told_of_one_a_line() -> None:
    row = {"case": "one", **{f"structure {number} ml": float(number) for number in range(12)}, "verdict": "usual"}
    lines = _case_table([row])
    assert lines[0].split() == ["case", "one"]
    assert lines[12].split() == ["structure", "11", "ml", "11.0"]
    assert lines[13:] == ["one: as usual"]
    assert max(map(len, lines)) < 30
    few = SimpleNamespace(removed={"liver": 3, "spleen": 4})
    many = SimpleNamespace(removed={f"structure {number}": number for number in range(1, 13)})
    assert len(_removed(few)) == 2
    assert _removed(many) == [
        "78 voxels of 12 structures (most of them of structure 12, 12) lay apart from the rest and were removed."
    ]
