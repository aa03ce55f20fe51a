"""The demonstration runs both jobs on the template and leaves what it says it leaves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from house import ROOT
from small_models import make_package

pytest.importorskip("nilearn", reason="needs the template of nilearn (extra `demo`)")

from ForgettableSegLib.jobs import demo, demo_data
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.resources import user_models_dir

TASK = {
    "name": "hippocampus",
    "modality": "MR",
    "channels": ["T1"],
    "classes": [{"name": "anterior", "value": 1}, {"name": "posterior", "value": 2}],
}


@pytest.fixture
def untrained_model() -> None:
    """A tiny untrained model under the name of the starter model; the user's models go before the shipped ones."""
    preprocessing = {"spatial_dims": 2, "modality": "MR", "slice_axis": 0, "spacing": [None, 1.0, 1.0]}
    network = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [4, 8], "fusion": "visual_query"}
    package = make_package(
        name=demo.MODEL,
        task=TASK,
        preprocessing=preprocessing,
        network={**network, "text_shape": [2, 6], "num_heads": 2},
    )
    uncalibrated = {name: value for name, value in package.tensors.items() if not name.startswith("calibration.")}
    dataclasses.replace(package, tensors=uncalibrated).write(user_models_dir() / demo.MODEL)


@pytest.mark.usefixtures("untrained_model")
def test_the_demonstration_segments_fine_tunes_and_says_where_all_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ROUGH", {**demo.ROUGH, "iterations": 1, "features": [4, 8]})
    monkeypatch.setattr(demo, "FINE", {"iterations": 5, "validate_every": 5})
    events: list[dict[str, Any]] = []
    request = make_request("demo", {"output": str(tmp_path / "out"), "device": "cpu"})
    done = demo.run(request, JobContext(job="demo", sink=events.append))
    assert done.exit_code == 0, [event for event in events if event["event"] == "case_failed"]
    assert json.loads((tmp_path / "out" / "demo.json").read_text()) == done.result
    case = demo_data.HEAD
    labels = sitk.ReadImage(str(tmp_path / "out" / "hippocampi" / case / f"{case}_segmentation.nrrd"))
    voxels = [int((sitk.GetArrayFromImage(labels) == value).sum()) for value in (1, 2)]
    expected = dict(zip(("anterior", "posterior"), (count / 1000 for count in voxels), strict=True))
    assert done.result["volumes_ml"] == pytest.approx(expected, abs=1e-3)
    for part in ("before", "after"):
        assert set(done.result["held_out"][part]) == {"mean", "grey matter", "white matter"}
    assert (Path(done.result["held_out"]["model"]) / "model.json").is_file()
    lying = [line.split()[0] for line in done.text.partition("Where it lies:\n")[2].splitlines()]
    assert len(lying) == 7
    assert [path for path in lying if not Path(path).exists()] == []
    banks = [event for event in events if event["event"] == "metric" and event["name"] == "bank"]
    assert banks, "mining was off"
    said = [event["text"] for event in events if event["event"] == "log"]
    assert said.index(demo.ROUGH_HEADING) < said.index(demo.FINE_HEADING)
    assert Path(done.result["held_out"]["picture"]).name.endswith("_preview.png")
    assert not list((tmp_path / "out").rglob("checkpoint"))


@pytest.mark.usefixtures("untrained_model")
def test_a_second_demonstration_leaves_the_first_run_alone(tmp_path: Path) -> None:
    (tmp_path / "rough").mkdir()
    assert demo._unused(tmp_path / "rough") == tmp_path / "rough_2"
    assert demo._unused(tmp_path / "fine") == tmp_path / "fine"


def test_the_picture_shows_outlines_and_heat_at_both_hippocampi(tmp_path: Path) -> None:
    pytest.importorskip("slicer", reason="needs the slicer-core wheel (extra `slicer`)")
    write_made_up_result(tmp_path)
    command = [sys.executable, ROOT / "Testing" / "demo.py", "--render", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "demo.png"))).astype(int)
    view = picture.shape[1] // 3
    assert picture.shape[0] < picture.shape[1]
    blue = (picture[..., 2] > 200) & (picture[..., 0] < 120)
    warm = (picture[..., 0] > 180) & (picture[..., 2] < 100)
    for axis in range(3):
        columns = slice(axis * view, (axis + 1) * view)
        assert blue[:450, columns].sum() > 50, "no outline in this view"
        assert warm[:450, columns].sum() > 50, "no heat in this view"
    # The axial view holds both sides: outlines in its left and its right half.
    assert min(blue[:450, : view // 2].sum(), blue[:450, view // 2 : view].sum()) > 20


def write_made_up_result(folder: Path) -> None:
    """What the jobs leave, with a ball instead of each hippocampus."""
    image = sitk.ReadImage(demo_data.write_head(folder / "hippocampi")["images"][0])
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in image.GetSize()[::-1]), indexing="ij"))
    distances = []
    for right, anterior, superior in demo_data.HIPPOCAMPUS_CENTRES.values():
        centre = image.TransformPhysicalPointToIndex((-right, -anterior, superior))[::-1]
        distances.append(np.sqrt(((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0)))
    distance = np.minimum(*distances)
    arrays = {
        "segmentation": (distance < 10).astype(np.uint8),
        "confidence": np.where(np.abs(distance - 14) < 2, 95, 0).astype(np.float32),
    }
    parts = {name: folder / f"{demo_data.HEAD}_{name}.nrrd" for name in arrays}
    for name, array in arrays.items():
        volume = sitk.GetImageFromArray(array)
        volume.CopyInformation(image)
        demo_data.write(volume, parts[name])
    overview = demo_data.write_overview(folder / "hippocampi", parts)
    classes = [{**each, "color": [60, 120, 255]} for each in TASK["classes"]]
    result = {"overview": {name: str(path) for name, path in overview.items()}, "task": {**TASK, "classes": classes}}
    (folder / "demo.json").write_text(json.dumps(result))
