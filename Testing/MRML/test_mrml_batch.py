"""The batch script, run as users run it, with the real worker and a small model."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ForgettableSegMRML.batch import parseArguments
from ForgettableSegMRML.segmentations import segmentIDs
from ForgettableSegMRML.terminology import parseTerminology
from mrml_support import read_segmentation, same_geometry, sitk

from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import build_network

SCRIPT = Path(__file__).resolve().parents[2] / "ForgettableSeg" / "ForgettableSegBatch" / "ForgettableSegBatch.py"
CLASSES = ("Anterior hippocampus", "Posterior hippocampus")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with random weights: what it finds is noise, but everything around it is real."""
    import torch

    torch.manual_seed(0)
    card = {
        "schema": 1,
        "name": "noise",
        "title": "Noise",
        "description": "Random weights",
        "licence": "CC0",
        "attribution": "",
        "task": {
            "name": "hippocampus",
            "modality": "MR",
            "channels": ["T1"],
            "classes": [{"name": name, "value": value} for value, name in enumerate(CLASSES, start=1)],
        },
        "preprocessing": {"spatial_dims": 2, "modality": "MR", "slice_axis": 1, "spacing": [1.0, None, 1.0]},
        "network": {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 3,
            "features": [4, 8],
            "fusion": "none",
            "num_heads": 2,
        },
        "text": {"source": "none", "encoder": "", "prompts": []},
        "preset": "recommended",
        "patch_size": [16, 16],
        "training": {},
        "provenance": {},
        "metrics": {},
    }
    generator = torch.Generator().manual_seed(1)
    names = [f"{channel}_{level}" for channel in ("confidence", "prototype_ratio", "T1", "T2", "T3", "T4", "score")
             for level in ("voxel", "slice", "case")]  # fmt: skip
    package = ModelPackage.assemble(
        card,
        build_network(card["network"]),
        prototypes={"mean": torch.eye(3), "variance": torch.ones(3), "count": torch.tensor([10, 10, 10])},
        calibration={name: torch.rand(512, generator=generator) for name in names},
    )
    return package.write(tmp_path_factory.mktemp("models") / "noise")


def _run(*arguments: str | Path, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def _write_images(folder: Path, number: int, shape: Sequence[int] = (12, 14, 10)) -> list[Path]:
    folder.mkdir()
    paths = []
    for index in range(number):
        image = sitk.GetImageFromArray(np.random.default_rng(index).normal(size=shape).astype(np.float32))
        image.SetSpacing((1.0, 1.1, 0.9))
        image.SetOrigin((index, -5.0, 3.0))
        image.SetDirection((-1, 0, 0, 0, 0.8, -0.6, 0, -0.6, -0.8))
        paths.append(folder / f"case{index}.nrrd")
        sitk.WriteImage(image, str(paths[-1]))
    return paths


def _check_segmentation(scene, path: Path, image: Path) -> None:
    """The file opens with names, codes, colours, and the geometry of the image."""
    node = read_segmentation(scene, path)
    segments = [node.GetSegmentation().GetSegment(each) for each in segmentIDs(node)]
    assert tuple(segment.GetName() for segment in segments) == CLASSES
    codes = [parseTerminology(segment.GetTerminology()) for segment in segments]
    assert [(code.type[1], code.modifier[2]) for code in codes] == [("5366008", "Anterior"), ("5366008", "Posterior")]
    assert segments[0].GetColor() != segments[1].GetColor()
    scene.RemoveNode(node)
    oriented = [sitk.DICOMOrient(_read(each), "LPS") for each in (path, image)]
    assert same_geometry(*oriented, 1e-3), path.name


def _read(path: Path) -> sitk.Image:
    if path.is_dir():
        return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    return sitk.ReadImage(str(path))


def test_a_volume_that_is_too_large_is_segmented_only_anyway(model: Path, tmp_path: Path) -> None:
    (image,) = _write_images(tmp_path / "in", 1)
    small = [[1.0, 2.0, 3.0]] * 3
    card = {"extent_mm": small, "spacing_mm": [[1.0] * 3] * 3, "intensity": [0.1, 0.5, 0.9], "classes": {}}
    package = ModelPackage.read(model)
    narrow = ModelPackage({**package.card, "field_of_view": card}, package.tensors).write(tmp_path / "narrow")
    arguments = ("--input", image, "--model", narrow, "--output", tmp_path / "out", "--device", "cpu")
    result = _run(*arguments)
    assert result.returncode == 1, result.stderr
    assert "Case case0 failed: This model has learnt volumes of about 2 x 2 x 2 mm" in result.stderr
    assert not (tmp_path / "out" / "case0" / "case0.seg.nrrd").exists()
    result = _run(*arguments, "--anyway")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "case0" / "case0.seg.nrrd").is_file()


def test_a_result_has_the_classes_that_the_worker_wrote_beside_it(scene, tmp_path: Path) -> None:
    from ForgettableSegMRML.batch_results import CaseResults

    def task(*names: str) -> Task:
        return Task("t", "MR", ("T1",), tuple(SegmentClass(name, value) for value, name in enumerate(names, 1)))

    (image,) = _write_images(tmp_path / "in", 1)
    folder = tmp_path / "out" / "case0"
    folder.mkdir(parents=True)
    labels = sitk.Cast(sitk.ReadImage(str(image)) > 0, sitk.sitkUInt8)
    sitk.WriteImage(labels, str(folder / "case0_segmentation.nrrd"))
    own = task("Left anterior hippocampus", "Right anterior hippocampus")
    (folder / "case0_task.json").write_text(json.dumps(own.to_dict()), encoding="utf-8")
    results = CaseResults(tmp_path / "out", task("Anterior hippocampus"), say=print, complain=print)
    event = {"event": "artifact", "kind": "segmentation", "case": "case0", "path": folder / "case0_segmentation.nrrd"}
    results.onSegmentEvent(event)
    assert results.finish() == []
    assert [path.name for path in folder.iterdir()] == ["case0.seg.nrrd"]
    node = read_segmentation(scene, folder / "case0.seg.nrrd")
    segments = [node.GetSegmentation().GetSegment(each) for each in segmentIDs(node)]
    assert [segment.GetName() for segment in segments] == [each.name for each in own.classes]
    codes = [parseTerminology(segment.GetTerminology()) for segment in segments]
    assert [(code.modifier[2], code.regionModifier[2]) for code in codes] == [
        ("Anterior", "Left"), ("Anterior", "Right"),
    ]  # fmt: skip


def test_cases_are_segmented_and_a_bad_one_is_skipped(scene, model: Path, tmp_path: Path) -> None:
    images = _write_images(tmp_path / "in", 2)
    bad = tmp_path / "in" / "bad.nrrd"
    bad.write_bytes(images[0].read_bytes()[:300])
    references = tmp_path / "references"
    references.mkdir()
    label = sitk.ReadImage(str(images[0])) > 0
    sitk.WriteImage(label, str(references / "case0.nrrd"))
    sitk.WriteImage(label, str(references / "another.nrrd"))
    stale = tmp_path / "out" / "bad" / "bad.seg.nrrd"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an earlier run")
    result = _run("--input", tmp_path / "in", "--model", model, "--output", tmp_path / "out", "--device", "cpu",
                  "--heatmap", "--reference", references)  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert "Case bad failed: " in result.stderr
    assert "there is no reference for case case1" in result.stderr
    assert "another" not in result.stdout + result.stderr, "references of other cases are nobody's fault"
    assert "2 of 3 cases segmented" in result.stdout
    assert not stale.exists(), "an old result is not taken for a new one"
    for image in images:
        _check_segmentation(scene, tmp_path / "out" / image.stem / f"{image.stem}.seg.nrrd", image)
    kinds = ("T1", "T2", "T3", "T4", "score", "confidence", "prototype_ratio")
    expected = {f"case0_{kind}.nrrd" for kind in kinds} | {"case0.seg.nrrd", "case0_review.json", "case0_audit.json"}
    assert {path.name for path in (tmp_path / "out" / "case0").iterdir()} == expected
    with (tmp_path / "out" / "summary.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["bad"]["status"] == "failed"
    assert rows["case0"]["segmentation"] == "case0/case0.seg.nrrd"
    assert float(rows["case0"][f"{CLASSES[0]} ml"]) >= 0
    assert 0 <= float(rows["case0"][f"{CLASSES[0]} Dice"]) <= 1
    assert rows["case1"][f"{CLASSES[0]} Dice"] == ""


def test_without_heatmaps_there_is_only_the_segmentation(scene, model: Path, tmp_path: Path) -> None:
    images = _write_images(tmp_path / "in", 1)
    result = _run("--input", images[0], "--model", model, "--output", tmp_path / "out", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    names = {path.name for path in (tmp_path / "out" / "case0").iterdir()}
    assert names - {"case0_review.json"} == {"case0.seg.nrrd"}
    _check_segmentation(scene, tmp_path / "out" / "case0" / "case0.seg.nrrd", images[0])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [({"--model": "nosuch"}, "There is no model 'nosuch'"), ({"--input": "/no/such/folder"}, "does not exist")],
)
def test_a_bad_request_is_one_sentence_and_exit_code_2(
    model: Path, tmp_path: Path, changed: dict[str, str], sentence: str
) -> None:
    images = _write_images(tmp_path / "in", 1)
    options = {"--input": images[0], "--model": model, "--output": tmp_path / "out", "--device": "cpu"} | changed
    result = _run(*(word for option in options.items() for word in option))
    assert result.returncode == 2
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_ctrl_c_cancels_the_worker_and_leaves_no_process(model: Path, tmp_path: Path) -> None:
    _write_images(tmp_path / "in", 60, (24, 28, 20))
    command = [sys.executable, str(SCRIPT), "--input", tmp_path / "in", "--model", model, "--output", tmp_path / "out"]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("segment"):
            break
    workers = _children(process.pid)
    assert workers
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - asked < 20
    assert "Cancelled." in err
    assert "Traceback" not in err
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def test_the_command_line_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "-- --input in --model m --output out --heatmap --finetune c.csv --minutes 2.5 --reference ref --device cuda:1"
    )
    options = parseArguments(words.split())
    assert (options.input, options.model, options.output) == (Path("in"), "m", Path("out"))
    assert (options.heatmap, options.finetune, options.minutes) == (True, "c.csv", 2.5)
    assert (options.reference, options.device) == (Path("ref"), "cuda:1")
    for wrong in (["--input", "in"], ["--input", "i", "--model", "m", "--output", "o", "--minutes", "3"], ["--x"]):
        with pytest.raises(SystemExit) as stopped:
            parseArguments(wrong)
        assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        parseArguments(["--help"])
    assert stopped.value.code == 0
    assert "Exit codes: 0 done, 1 some cases failed" in capsys.readouterr().out


@pytest.mark.slow
def test_twenty_real_cases_and_a_dicom_series_with_one_damaged_among_them(
    scene, model: Path, shared_data: Path, tmp_path: Path
) -> None:
    files = sorted((shared_data / "Hippocampus" / "imagesTr").glob("*.nii.gz"))[:20]
    folder = tmp_path / "in"
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    (folder / "damaged.nii.gz").write_bytes(files[0].read_bytes()[:2000])
    result = _run("--input", folder, "--model", model, "--output", tmp_path / "out", "--device", "cpu", timeout=600)
    assert result.returncode == 1, result.stderr
    assert "20 of 21 cases segmented" in result.stdout
    for file in files:
        name = file.name.removesuffix(".nii.gz")
        _check_segmentation(scene, tmp_path / "out" / name / f"{name}.seg.nrrd", file)
    series = shared_data / "DicomBrain" / "HippocampusCrop"
    result = _run("--input", series, "--model", model, "--output", tmp_path / "dicom", "--device", "cpu", "--heatmap")
    assert result.returncode == 0, result.stderr
    _check_segmentation(scene, tmp_path / "dicom" / series.name / f"{series.name}.seg.nrrd", series)


@pytest.mark.slow
def test_finetuning_comes_first_and_its_model_segments(scene, model: Path, shared_data: Path, tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, source in ((images, "imagesTr"), (labels, "labelsTr")):
        folder.mkdir()
        for file in sorted((shared_data / "Hippocampus" / source).glob("*.nii.gz"))[:8]:
            shutil.copy(file, folder)
    image = sorted((shared_data / "Hippocampus" / "imagesTr").glob("*.nii.gz"))[9]
    result = _run("--input", image, "--model", model, "--output", tmp_path / "out", "--device", "cpu",
                  "--finetune", f"{images},{labels}", "--minutes", "0.2", timeout=600)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "on held-out cases" in result.stdout
    assert (tmp_path / "out" / "finetune" / "model" / "model.json").is_file()
    name = image.name.removesuffix(".nii.gz")
    _check_segmentation(scene, tmp_path / "out" / name / f"{name}.seg.nrrd", image)
