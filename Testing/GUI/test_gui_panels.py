"""The panels driven as a user drives them, on real nodes, with a test in the place of the worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_answers import MODEL, segment


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
    module.view.refreshAll()
    assert "files were written to" in ui.statusLabel.text


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


def plain_reference(case: tuple[Any, Any], folder: Path, names: dict[str, int]) -> Any:
    """A plain label map of a case, read as a segmentation: its segments carry no names that say anything."""
    from ForgettableSegGUI.samples import syntheticArrays
    from ForgettableSegMRML.segmentations import loadLabelMap

    from ForgettableSegLib.cases.task import SegmentClass

    sitk = pytest.importorskip("SimpleITK")
    volume, node = case
    labels = np.array([0, *names.values()], dtype=np.uint8)[syntheticArrays(0)[1]]
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / "plain.nrrd"))
    loadLabelMap(node, folder / "plain.nrrd", [SegmentClass(name, value) for name, value in names.items()])
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return node


def compared_values(module: Any) -> list[int]:
    """Press Compare; returns the label values of the reference that is sent."""
    from module_view import click

    sitk = pytest.importorskip("SimpleITK")
    click(module.view.panels["review"].ui.compareButton)
    job, request, _heard = module.worker.asked[-1]
    assert job == "audit"
    return sorted(set(sitk.GetArrayFromImage(sitk.ReadImage(request["cases"][0]["label"])).ravel().tolist()))


def test_a_reference_without_names_is_matched_by_value_and_said(
    module: Any, case: tuple[Any, Any], tmp_path: Path
) -> None:
    module.panel("segment")
    segment(module)
    ui = module.panel("review").ui
    module.parameters.referenceSegmentation = case[1]
    assert not ui.mappingGroup.target.isVisible(), "names need no table"
    plain_reference(case, tmp_path, {"Segment_1": 1, "Segment_2": 2})
    module.view.panels["review"].refresh()
    assert ui.referenceLabel.text == "Matched by value: Segment_1 -> ball, Segment_2 -> shell."
    assert ui.mappingGroup.target.isVisible()
    assert compared_values(module) == [0, 1, 2]


def test_a_reference_that_cannot_be_matched_is_mapped_by_hand(
    module: Any, case: tuple[Any, Any], tmp_path: Path
) -> None:
    module.panel("segment")
    segment(module)
    plain_reference(case, tmp_path, {"roi 7": 7, "roi 9": 9})
    ui = module.panel("review").ui
    module.parameters.referenceSegmentation = case[1]
    assert "table" in ui.referenceLabel.text
    assert (ui.mappingGroup.collapsed, ui.compareButton.enabled) == (False, False)
    assert "which class each segment" in ui.compareButton.toolTip
    ui.mappingTable.target.cellWidget(1, 1).setCurrentIndex(2)
    assert ui.compareButton.enabled
    assert ui.referenceLabel.text == "The classes of the reference are those that you chose. Left out: roi 7."
    assert compared_values(module) == [0, 2]
    assert "shell" in case[1].GetAttribute("ForgettableSeg.Classes"), "the scene keeps it"


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


def test_what_trainings_have_left_is_removed_but_no_open_one_without_a_question(
    module: Any, application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ForgettableSegGUI import application as shown
    from ForgettableSegGUI.runs import newRunFolder, rememberRun, settleRun
    from module_view import click

    folders = {name: newRunFolder(name) for name in ("settled", "waiting", "given-up", "begun")}
    for name, folder in folders.items():
        rememberRun(folder, name=name, cases=[], classes={})
        (folder / "bank.json").write_bytes(b"x" * 1_000_000)
        if name in ("settled", "waiting"):
            (folder / "run" / "model").mkdir(parents=True)
            (folder / "run" / "model" / "model.json").touch()
    settleRun(folders["settled"])
    for path in (folders["given-up"], *folders["given-up"].iterdir()):
        os.utime(path, (0, 0))
    ui = module.panel("models").ui
    assert "Trainings on this computer: 4" in ui.storageLabel.text
    assert "4.0 MB" in ui.storageLabel.text
    application.answer = False
    click(ui.freeButton)
    assert all(folder.exists() for folder in folders.values())
    over, still = application.asked
    assert "2 trainings that are over" in over
    assert ("waiting" in still, "begun" in still, "settled" in still) == (True, True, False)
    monkeypatch.setattr(shown, "ask", lambda question: "are over" in question)
    click(ui.freeButton)
    assert [name for name, folder in folders.items() if folder.exists()] == ["waiting", "begun"]
    module.view.refreshAll()
    assert "2.0 MB are free again" in ui.storageLabel.text


def test_missing_packages_are_said_at_the_top_and_lead_to_setup(
    application: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ForgettableSegGUI.packages import PackageStatus, Requirement
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


def test_a_list_of_models_that_is_awaited_says_so_in_every_section(
    application: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ForgettableSegGUI.samples import syntheticCase
    from module_view import ModuleWindow

    monkeypatch.setenv("HOME", str(tmp_path))
    window = ModuleWindow()
    labels = [window.panel(name).ui.statusLabel for name in ("segment", "models")]
    assert ["being listed" in label.text for label in labels] == [True, True]
    panel = window.panel("fineTune")
    for seed in range(3):
        panel.casesTab.addPair([syntheticCase(scene, seed)[0]], syntheticCase(scene, seed)[1])
    assert "being listed" in panel.ui.statusLabel.text
    assert not panel.ui.scratchGroup.target.isVisibleTo(panel.widget.target), "it is not a new model yet"
    assert window.parameters.newClasses == "[]"
    window.worker.answer("models", event="failed", code="X", text="It does not start.", hint="", log="")
    assert "It does not start." in window.panel("segment").ui.statusLabel.text
    window.session.refreshModels()
    window.worker.answer("models", event="done", exit_code=0, result={"models": [MODEL]})
    assert "being listed" not in window.panel("segment").ui.statusLabel.text
    window.close()
