"""The Segment panel driven as a user drives it, on real nodes, with a test in the place of the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker_answers import MODEL, segment, write_results


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


REFUSAL = "This model has learnt volumes of about 36 x 50 x 36 mm; this one is 197 x 233 x 189 mm. Choose a region."


def refuse(module: Any) -> Any:
    """Press Apply and let the library refuse the volume for its size; returns the widgets."""
    from module_view import click
    from stand_in import spin

    ui = module.panel("segment").ui
    assert spin(lambda: ui.applyButton.enabled, 5)
    click(ui.applyButton)
    module.worker.answer("segment", event="case_failed", case="case", code="FIELD_OF_VIEW", text=REFUSAL)
    module.worker.answer("segment", event="done", exit_code=1, result={})
    return ui


def test_a_volume_that_is_too_large_is_segmented_anyway_on_demand(module: Any, case: tuple[Any, Any]) -> None:
    from module_view import click

    ui = module.panel("segment").ui
    assert not ui.refusedFrame.target.isVisible()
    refuse(module)
    assert ui.statusLabel.text == REFUSAL
    assert ui.refusedFrame.target.isVisible()
    assert module.worker.asked[-1][1]["anyway"] is False
    click(ui.anywayButton)
    assert (module.worker.asked[-1][0], module.worker.asked[-1][1]["anyway"]) == ("segment", True)
    assert not ui.refusedFrame.target.isVisible()
    module.worker.answer("segment", event="cancelled", resumable=None)
    assert not ui.refusedFrame.target.isVisible(), "only a refusal is answered so"


def test_a_region_of_the_learnt_size_is_offered(module: Any, case: tuple[Any, Any], scene: Any) -> None:
    from module_view import click

    extent = [[10, 12, 14], [15, 16, 17], [500, 600, 700]]
    card = {**MODEL["card"], "field_of_view": {"extent_mm": extent}}
    module.session.refreshModels()
    module.worker.answer("models", event="done", exit_code=0, result={"models": [{**MODEL, "card": card}]})
    ui = refuse(module)
    click(ui.regionButton)
    region = module.parameters.regionOfInterest
    bounds = [0.0] * 6
    case[0].GetRASBounds(bounds)
    assert list(region.GetSize()) == [12, 16, bounds[5] - bounds[4]]
    assert list(region.GetCenter()) == [(bounds[i] + bounds[i + 1]) / 2 for i in (0, 2, 4)]
    click(ui.applyButton)
    assert module.worker.asked[-1][1]["region"] is not None


def test_what_is_unlike_anything_learnt_stands_beside_the_result_and_in_its_table(
    module: Any, case: tuple[Any, Any]
) -> None:
    from ForgettableSegGUI import results
    from module_view import click
    from stand_in import spin

    ui = module.panel("segment").ui
    assert spin(lambda: ui.applyButton.enabled, 5)
    click(ui.applyButton)
    mark = "Shell has 9.00 ml; this model has learnt 0.10 to 0.50 ml."
    module.worker.answer("segment", event="warning", case="case", text=mark)
    for kind, path in write_results(module.worker.asked[-1][1]).items():
        module.worker.answer("segment", event="artifact", kind=kind, path=path, case="case")
    module.worker.answer("segment", event="done", exit_code=0, result={})
    node = module.parameters.outputSegmentation
    assert ui.remarksLabel.text == mark
    assert ui.statusLabel.text.startswith("Synthetic1 segmentation is ready")
    assert mark not in ui.statusLabel.text
    table = results.tableOf(node)
    assert [table.GetCellText(row, 3) for row in range(2)] == ["", mark]
    segment(module)
    assert (ui.remarksLabel.text, ui.remarksLabel.target.isVisible()) == ("", False), "they go with their result"


def test_a_result_has_the_classes_of_its_own_task(module: Any, case: tuple[Any, Any]) -> None:
    import json

    from module_view import click
    from stand_in import spin
    from worker_answers import TASK

    ui = module.panel("segment").ui
    assert spin(lambda: ui.applyButton.enabled, 5)
    click(ui.applyButton)
    paths = write_results(module.worker.asked[-1][1])
    hippocampus = {"category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "5366008", "Hippocampus"]}
    sides = {"left": "7771000", "right": "24028007"}
    classes = [
        {"name": f"{side} ball", "value": value, "terminology": {**hippocampus, "modifier": ["SCT", code, side]}}
        for value, (side, code) in enumerate(sides.items(), 1)
    ]
    paths["task"] = str(Path(paths["review"]).with_name("case_task.json"))
    Path(paths["task"]).write_text(json.dumps({**TASK, "classes": classes}), encoding="utf-8")
    for kind, path in paths.items():
        module.worker.answer("segment", event="artifact", kind=kind, path=path, case="case")
    module.worker.answer("segment", event="done", exit_code=0, result={})
    segmentation = module.parameters.outputSegmentation.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    assert [each.GetName() for each in segments] == ["left ball", "right ball"]
    assert [code in each.GetTerminology() for each, code in zip(segments, sides.values(), strict=True)] == [True, True]
    assert segments[0].GetColor() != segments[1].GetColor()
