"""The panels driven as a user drives them, on real nodes, with a test in the place of the worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TASK = {
    "name": "synthetic",
    "modality": "MR",
    "channels": ["MR"],
    "classes": [{"name": "ball", "value": 1}, {"name": "shell", "value": 2}],
}
MODEL = {
    "name": "tiny",
    "path": "somewhere",
    "shipped": False,
    "bytes": 5_000_000,
    "problem": "",
    "card": {"name": "tiny", "title": "Tiny model", "task": TASK, "text": {"prompts": ["a ball", "a shell"]}},
}
SLICE = {"difficulty": 3.0, "position_lps": [1, 2, 3], "area_mm2": 9.0}
REVIEW = {
    "schema": 1, "case": "case", "model": "tiny", "channels": ["confidence", "prototype_ratio"], "slice_axis": 0,
    "slices": [
        {**SLICE, "slice": 12, "class": "ball", "percentile": 99.0},
        {**SLICE, "slice": 5, "class": "shell", "percentile": 40.0, "position_lps": [4, 5, 6]},
    ],
    "classes": [
        {"name": n, "value": v, "voxels": 10, "volume_ml": v / 2, "mean_difficulty": 0.5, "share_above_95": 0.1}
        for n, v in (("ball", 1), ("shell", 2))
    ],
    "case_difficulty": {"difficulty": 2.0, "percentile": 96.0, "above_95": True},
}  # fmt: skip


@pytest.fixture
def module(application: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with one installed model and a worker that a test answers for."""
    from module_view import ModuleWindow

    monkeypatch.setenv("HOME", str(tmp_path))
    window = ModuleWindow()
    window.worker.answer("models", event="done", exit_code=0, result={"models": [MODEL]})
    yield window
    window.close()


@pytest.fixture
def case(module: Any, scene: Any) -> tuple[Any, Any]:
    """A volume and its segmentation in the scene."""
    from ForgettableSegGUI.samples import syntheticCase

    return syntheticCase(scene, 0)


def write_results(request: dict[str, Any]) -> dict[str, str]:
    """Write what the job `segment` writes; returns the files by kind of artifact."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(request["cases"][0]["images"][0])
    folder = Path(request["output"]) / "case"
    folder.mkdir(parents=True)
    values = sitk.GetArrayFromImage(image)
    labels = (values > 200).astype("uint8") + (values > 350).astype("uint8")
    paths = {}
    for kind, array in {
        "segmentation": labels,
        "confidence": values * 0 + 90,
        "prototype_ratio": values * 0 + 20,
    }.items():
        written = sitk.GetImageFromArray(array)
        written.CopyInformation(image)
        paths[kind] = str(folder / f"case_{kind}.nrrd")
        sitk.WriteImage(written, paths[kind])
    paths["review"] = str(folder / "case_review.json")
    Path(paths["review"]).write_text(json.dumps(REVIEW), encoding="utf-8")
    return paths


def segment(module: Any) -> Any:
    """Press Apply, answer for the worker, and return the segmentation node."""
    from module_view import click
    from stand_in import spin

    panel = module.panel("segment")
    assert spin(lambda: panel.ui.applyButton.enabled, 5)
    click(panel.ui.applyButton)
    job, request, _heard = module.worker.asked[-1]
    assert job == "segment"
    for kind, path in write_results(request).items():
        module.worker.answer("segment", event="artifact", kind=kind, path=path, case="case")
    module.worker.answer("segment", event="done", exit_code=0, result={})
    return module.parameters.outputSegmentation


def test_the_only_volume_and_model_are_suggested(module: Any, case: tuple[Any, Any]) -> None:
    from stand_in import spin

    panel = module.panel("segment")
    assert spin(lambda: panel.ui.applyButton.enabled, 5)
    assert module.parameters.modelName == "tiny"
    assert module.parameters.inputVolume1 is case[0]
    assert "ball, shell" in panel.ui.modelCardLabel.text
    assert panel.ui.promptsTable.item(0, 1).text() == "a ball"


def test_a_segmentation_lands_in_the_scene(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    module.panel("segment")
    node = segment(module)
    names = [node.GetSegmentation().GetNthSegment(index).GetName() for index in range(2)]
    assert names == ["ball", "shell"]
    assert node.GetSegmentation().GetNthSegment(0).GetTerminology().count("~") >= 6
    ui = module.view.panels["segment"].ui
    assert ui.statusLabel.text.startswith("Synthetic1 segmentation is ready")
    assert ui.resultFrame.target.isVisible()
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_the_temporary_files_of_a_segmentation_are_removed(module: Any, case: tuple[Any, Any]) -> None:
    module.panel("segment")
    segment(module)
    (request,) = [arguments for job, arguments, _heard in module.worker.asked if job == "segment"]
    assert not Path(request["cases"][0]["images"][0]).exists()


def test_a_second_segmentation_replaces_its_heatmaps(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    module.panel("segment")
    segment(module)
    before = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    segment(module)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before


def test_progress_failure_and_cancelling_are_told(module: Any, case: tuple[Any, Any]) -> None:
    from module_view import click
    from stand_in import spin

    ui = module.panel("segment").ui
    assert spin(lambda: ui.applyButton.enabled, 5)
    click(ui.applyButton)
    module.worker.answer("segment", event="progress", phase="segment", step=0.5, of=1, eta_s=12, case="case")
    assert ui.progressBar.target.isVisible()
    assert ui.progressBar.value == 500
    assert "12 s left" in ui.statusLabel.text
    assert not ui.applyButton.enabled
    click(ui.cancelButton)
    assert module.worker.cancelled != []
    module.worker.answer("segment", event="failed", code="X", text="It is full.", hint="Make room.", log="trace")
    assert ui.statusLabel.text == "It is full. Make room."
    assert not ui.progressBar.target.isVisible()
    assert ui.applyButton.enabled
    assert "trace" in module.view.ui.logText.toPlainText()


def test_a_refused_region_is_said_and_leaves_nothing_to_cancel(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    from module_view import click
    from stand_in import spin

    panel = module.panel("segment")
    assert spin(lambda: panel.ui.applyButton.enabled, 5)
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "far away")
    region.SetXYZ(1e5, 1e5, 1e5)
    region.SetRadiusXYZ(1, 1, 1)
    module.parameters.regionOfInterest = region
    asked = len(module.worker.asked)
    click(panel.ui.applyButton)
    assert len(module.worker.asked) == asked
    assert "far away" in panel.ui.statusLabel.text
    module.view.session.run("models", {}, title="Another job", onEvent=lambda event, state: None)
    assert not panel.ui.cancelButton.enabled
    module.worker.answer("models", event="done", exit_code=0, result={"models": [MODEL]})
    assert "far away" in panel.ui.statusLabel.text, "it stays until Apply is pressed again"
    module.parameters.regionOfInterest = None
    click(panel.ui.applyButton)
    assert module.worker.asked[-1][0] == "segment"
    assert "far away" not in panel.ui.statusLabel.text


def test_another_volume_gets_a_segmentation_of_its_own(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    from ForgettableSegGUI.results import inputsOf
    from ForgettableSegGUI.samples import syntheticCase

    module.panel("segment")
    first = segment(module)
    other, _labels = syntheticCase(scene, 1)
    module.parameters.inputVolume1 = other
    second = segment(module)
    assert second is not first
    assert (inputsOf(first), inputsOf(second)) == ([case[0]], [other])
    assert second.GetName() == "Synthetic2 segmentation"


def test_what_a_person_drew_is_replaced_only_after_a_question(
    module: Any, case: tuple[Any, Any], scene: Any, application: Any
) -> None:
    from module_view import click

    ui = module.panel("segment").ui
    node = segment(module)
    click(ui.applyButton)
    assert application.asked == [], "what the model found may be found once more"
    module.worker.answer("segment", event="cancelled", resumable=None)
    node.GetSegmentation().GetNthSegment(0).SetName("corrected")
    application.answer = False
    asked = len(module.worker.asked)
    click(ui.applyButton)
    assert len(module.worker.asked) == asked
    assert "Synthetic1 segmentation" in application.asked[-1]
    application.answer = True
    click(ui.applyButton)
    assert len(module.worker.asked) == asked + 1
    module.worker.answer("segment", event="cancelled", resumable=None)
    module.parameters.outputSegmentation = case[1]  # drawn by hand, and no result of ours
    application.answer = False
    click(ui.applyButton)
    assert "Synthetic1 labels" in application.asked[-1]
    assert case[1].GetSegmentation().GetNumberOfSegments() == 2


def test_a_result_shows_no_maps_of_an_earlier_one(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    from ForgettableSegGUI.results import heatmapsOf, reviewOf
    from ForgettableSegMRML.heatmaps import isHeatmapShown
    from module_view import click

    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    ui = module.panel("segment").ui
    node = segment(module)
    heatmap = heatmapsOf(node)["confidence"]
    assert isHeatmapShown(heatmap)
    click(ui.applyButton)
    paths = write_results(module.worker.asked[-1][1])
    module.worker.answer("segment", event="artifact", kind="segmentation", path=paths["segmentation"], case="case")
    module.worker.answer("segment", event="done", exit_code=0, result={})
    assert (heatmapsOf(node), reviewOf(node)) == ({}, None)
    assert view.GetForegroundVolumeID() is None


def test_a_volume_that_leaves_the_scene_takes_its_job_with_it(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    from module_view import click
    from stand_in import spin

    ui = module.panel("segment").ui
    assert spin(lambda: ui.applyButton.enabled, 5)
    click(ui.applyButton)
    request = module.worker.asked[-1][1]
    for kind, path in write_results(request).items():
        module.worker.answer("segment", event="artifact", kind=kind, path=path, case="case")
    scene.RemoveNode(case[0])
    module.worker.answer("segment", event="done", exit_code=0, result={})
    assert "not in the scene any more" in module.session.job.text()
    assert not Path(request["cases"][0]["images"][0]).exists()
    assert not ui.progressBar.target.isVisible()


def test_a_result_that_cannot_be_read_is_told_and_leaves_no_files(module: Any, case: tuple[Any, Any]) -> None:
    from module_view import click
    from stand_in import spin

    ui = module.panel("segment").ui
    assert spin(lambda: ui.applyButton.enabled, 5)
    click(ui.applyButton)
    request = module.worker.asked[-1][1]
    paths = write_results(request)
    Path(paths["review"]).write_text("not JSON", encoding="utf-8")
    for kind, path in paths.items():
        module.worker.answer("segment", event="artifact", kind=kind, path=path, case="case")
    module.worker.answer("segment", event="done", exit_code=0, result={})
    assert "could not be shown" in ui.statusLabel.text
    assert "Traceback" in module.view.ui.logText.toPlainText()
    assert not Path(request["cases"][0]["images"][0]).exists()


def test_a_new_region_lies_around_the_volume(module: Any, case: tuple[Any, Any]) -> None:
    from ForgettableSegMRML.volumes import indexBoxOfROI

    panel = module.panel("segment")
    module.parameters.inputVolume1 = case[0]
    panel.ui.roiSelector.target.addNode()
    region = module.parameters.regionOfInterest
    assert indexBoxOfROI(region, case[0]) == ((0, 0, 0), case[0].GetImageData().GetDimensions())
    assert region.GetDisplayNode() is not None


def test_closing_the_scene_ends_the_job_and_hides_the_result(module: Any, case: tuple[Any, Any]) -> None:
    from module_view import click

    ui = module.panel("segment").ui
    segment(module)
    click(ui.applyButton)
    module.view.forgetScene()
    assert len(module.worker.cancelled) == 1
    assert not ui.resultFrame.target.isVisible()
    assert ui.show3DButton.target.segmentationNode() is None


def test_a_volume_that_cannot_be_used_is_refused_before_anything_starts(module: Any, scene: Any) -> None:
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    panel = module.panel("segment")
    module.parameters.inputVolume1 = empty
    assert not panel.ui.applyButton.enabled
    assert "Nothing" in panel.ui.applyButton.toolTip


def test_the_review_lists_the_hardest_slices_and_jumps(module: Any, case: tuple[Any, Any], application: Any) -> None:
    from module_view import click

    module.panel("segment")
    node = segment(module)
    panel = module.panel("review")
    assert module.parameters.reviewSegmentation is node
    assert [panel.ui.slicesTable.item(row, 1).text() for row in range(2)] == ["ball", "shell"]
    panel.ui.slicesTable.target.cellClicked.emit(0, 0)
    click(panel.ui.nextButton)
    assert application.jumps[0] == (-1.0, -2.0, 3.0)
    assert panel.ui.casesTable.rowCount == 1
    assert "harder than 96 %" in panel.ui.statusLabel.text


def test_a_class_can_be_chosen_and_the_table_sorted(module: Any, case: tuple[Any, Any], application: Any) -> None:
    module.panel("segment")
    segment(module)
    ui = module.panel("review").ui
    ui.slicesTable.target.sortItems(0)
    assert ui.slicesTable.item(0, 0).text() == "5"
    ui.slicesTable.target.cellClicked.emit(0, 0)
    assert application.jumps[-1] == (-4.0, -5.0, 6.0)
    ui.classComboBox.setCurrentIndex(1)
    assert ui.slicesTable.rowCount == 1


def test_the_heatmap_follows_its_controls(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    from ForgettableSegMRML.heatmaps import isHeatmapShown

    scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    module.panel("segment")
    segment(module)
    panel = module.panel("review")
    assert isHeatmapShown(panel.heatmap)
    module.parameters.heatmapThreshold = 55.0
    assert panel.heatmap.GetScalarVolumeDisplayNode().GetLowerThreshold() == 55.0
    module.parameters.heatmapVisible = False
    assert not isHeatmapShown(panel.heatmap)


def test_another_case_shows_its_own_image_and_the_layers_stay_the_users(
    module: Any, case: tuple[Any, Any], scene: Any, application: Any
) -> None:
    from ForgettableSegGUI import application as shown
    from ForgettableSegGUI.samples import syntheticCase

    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    module.panel("segment")
    first = segment(module)
    other, _labels = syntheticCase(scene, 1)
    module.parameters.inputVolume1 = other
    second = segment(module)
    seen: list[Any] = []
    panel = module.panel("review")
    module.parameters.heatmapVisible = False
    original, shown.showVolume = shown.showVolume, seen.append
    try:
        module.parameters.reviewSegmentation = first
        module.parameters.reviewSegmentation = second
        assert seen == [case[0], other]
        module.session.jobChanged.emit()
        assert seen == [case[0], other], "an event of a job leaves the views alone"
    finally:
        shown.showVolume = original
    module.parameters.heatmapVisible = True
    view.SetForegroundVolumeID(None)
    module.session.jobChanged.emit()
    assert view.GetForegroundVolumeID() is None
    assert panel.heatmap is not None


def test_the_review_is_exported(module: Any, case: tuple[Any, Any], tmp_path: Path) -> None:
    from module_view import click

    module.panel("segment")
    segment(module)
    ui = module.panel("review").ui
    ui.exportPathLineEdit.currentPath = str(tmp_path / "out")
    click(ui.exportButton)
    names = {path.name.removeprefix("Synthetic1_segmentation_") for path in (tmp_path / "out").iterdir()}
    assert names >= {"confidence.nrrd", "prototype_ratio.nrrd", "slices.csv", "review.json"}


def test_a_comparison_with_a_reference_adds_five_channels(module: Any, case: tuple[Any, Any]) -> None:
    from module_view import click

    module.panel("segment")
    segment(module)
    panel = module.panel("review")
    module.parameters.referenceSegmentation = case[1]
    click(panel.ui.compareButton)
    job, request, _heard = module.worker.asked[-1]
    assert job == "audit"
    assert Path(request["cases"][0]["label"]).is_file()
    image = request["cases"][0]["images"][0]
    for kind in ("T1", "T2", "T3", "T4", "score"):
        module.worker.answer("audit", event="artifact", kind=kind, path=image, case="case")
    module.worker.answer("audit", event="done", exit_code=0, result={})
    assert module.parameters.heatmapChannel == "score"
    assert panel.ui.channelComboBox.count == 7


def test_all_state_is_kept_in_the_scene(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    from ForgettableSegGUI import results

    module.panel("segment")
    node = segment(module)
    assert results.modelOf(node) == "tiny"
    assert results.inputsOf(node) == [case[0]]
    assert set(results.heatmapsOf(node)) == {"confidence", "prototype_ratio"}
    assert [each for each, _review in results.reviewedSegmentations(scene)] == [node]


def test_coming_back_to_the_module_changes_no_choice(module: Any) -> None:
    module.panel("fineTune")
    module.parameters.preset = "paper"
    module.parameters.trainingUnit = "epochs"
    before = module.parameters
    for _enter in range(2):
        module.view.setParameterNode(module.logic.getParameterNode())
        module.view.enter()
    assert module.parameters is before, "connected once"
    assert (before.preset, before.trainingUnit) == ("paper", "epochs")


def test_closing_the_scene_forgets_its_nodes(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    module.panel("segment")
    segment(module)
    module.view.forgetScene()
    scene.Clear(False)
    module.view.setParameterNode(module.logic.getParameterNode())
    panel = module.panel("review")
    assert panel.ui.slicesTable.rowCount == 0
    assert not panel.ui.editButton.enabled


def test_models_are_imported_exported_and_removed_after_a_question(
    module: Any, application: Any, tmp_path: Path
) -> None:
    from module_view import click

    ui = module.panel("models").ui
    ui.modelsTable.selectRow(0)
    ui.exportPathLineEdit.currentPath = str(tmp_path)
    click(ui.exportButton)
    assert module.worker.asked[-1][1] == {"action": "export", "name": "tiny", "path": str(tmp_path / "tiny.zip")}
    module.worker.answer("models", event="done", exit_code=0, result={})
    module.worker.answer("models", event="done", exit_code=0, result={"models": [MODEL]})
    application.answer = False
    click(ui.removeButton)
    assert "5.0 MB" in application.asked[-1]
    assert module.worker.asked[-1][1] == {"action": "list"}
    application.answer = True
    click(ui.removeButton)
    assert module.worker.asked[-1][1] == {"action": "remove", "name": "tiny"}
    module.worker.answer("models", event="failed", code="X", text="It is shipped.", hint="", log="")
    assert ui.statusLabel.text == "It is shipped."


def test_a_broken_model_is_listed_with_its_problem(module: Any) -> None:
    broken = {"name": "bad", "path": "x", "shipped": False, "bytes": 1, "card": {}, "problem": "It is damaged."}
    module.session.refreshModels()
    module.worker.answer("models", event="done", exit_code=0, result={"models": [MODEL, broken]})
    ui = module.panel("models").ui
    assert [ui.modelsTable.item(row, 1).text() for row in range(2)] == ["ball, shell", "It is damaged."]


def test_missing_packages_are_said_at_the_top_and_lead_to_setup(
    application: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ForgettableSegGUI.setup_model import PackageStatus, Requirement
    from module_view import ModuleWindow, click

    monkeypatch.setenv("HOME", str(tmp_path))
    window = ModuleWindow(packages=lambda: [PackageStatus(Requirement("monai", ">=1.5"), None, False)])
    assert window.worker.asked == []
    assert window.view.ui.noticeFrame.target.isVisible()
    click(window.view.ui.noticeButton)
    assert not window.view.sections["setup"].collapsed
    ui = window.view.panels["setup"].ui
    assert ui.installButton.enabled
    application.answer = False
    click(ui.installButton)
    assert "monai" in application.asked[-1]
    window.close()


def test_the_device_check_fills_every_list_of_devices(module: Any) -> None:
    from module_view import click

    ui = module.panel("setup").ui
    click(ui.checkButton)
    report = {
        "device": "cpu",
        "seconds": 0.1,
        "versions": {"torch": "2.13"},
        "devices": [{"name": "cuda:0", "description": "H200"}],
    }
    module.worker.answer("check", event="done", exit_code=0, result=report)
    assert "PyTorch 2.13." in ui.statusLabel.text
    combo = module.panel("segment").ui.deviceComboBox
    assert [combo.itemText(index) for index in range(combo.count)] == ["Automatic", "GPU 0 · H200", "CPU"]
