"""Heatmaps in the views, jumps, tables and plots."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import vtk
from ForgettableSegMRML.headless import HeadlessSession
from ForgettableSegMRML.heatmaps import (
    heatColorNodeID,
    hideHeatmap,
    isHeatmapShown,
    moveLegend,
    setHeatmapOpacity,
    setHeatmapThreshold,
    showHeatmap,
    styleHeatmap,
)
from ForgettableSegMRML.plots import TrainingPlots
from ForgettableSegMRML.slice_view import OffscreenSliceView
from ForgettableSegMRML.slices import centerOf, jumpSlices, lpsToRas
from ForgettableSegMRML.tables import fillReviewTable, fillSummaryTable, fillVolumesTable
from ForgettableSegMRML.volumes import readVolume
from mrml_support import slicer
from vtk.util.numpy_support import vtk_to_numpy

REVIEW = {
    "schema": 1,
    "case": "case 1",
    "model": "m",
    "channels": ["confidence", "prototype_ratio"],
    "slice_axis": 0,
    "slices": [
        {
            "slice": 4,
            "class": "liver",
            "difficulty": 0.5,
            "percentile": 97.04,
            "position_lps": [1, 2, 3],
            "area_mm2": 12,
        },
        {
            "slice": 9,
            "class": "spleen",
            "difficulty": 0.2,
            "percentile": 50,
            "position_lps": [-4, 5.5, 6],
            "area_mm2": 8,
        },
    ],
    "classes": [
        {
            "name": "liver",
            "value": 1,
            "voxels": 1500,
            "volume_ml": 1.5,
            "mean_difficulty": 0.31,
            "share_above_95": 0.12,
        },
        {"name": "spleen", "value": 2, "voxels": 0, "volume_ml": 0.0, "mean_difficulty": 0.0, "share_above_95": 0.0},
    ],
    "case_difficulty": {"difficulty": 0.4, "percentile": 80.0, "verdict": "usual"},
}


@pytest.fixture
def volumes(scene, make_file: Callable[..., Path]):
    """An image, its heatmap, and two slice views."""
    image = readVolume(scene, make_file(np.ones((4, 5, 6), np.float32), "plain", "image.nrrd"), "image")
    heatmap = readVolume(scene, make_file(np.full((4, 5, 6), 90, np.float32), "plain", "heat.nrrd"), "heatmap")
    views = [scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name) for name in ("Red", "Green")]
    for view in views:
        view.SetBackgroundVolumeID(image.GetID())
    return image, heatmap, views


def test_a_heatmap_is_coloured_thresholded_and_has_a_legend(volumes) -> None:
    _image, heatmap, _views = volumes
    styleHeatmap(heatmap, threshold=70, title="Uncertainty")
    display = heatmap.GetScalarVolumeDisplayNode()
    assert not display.GetAutoWindowLevel()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)
    assert (display.GetLowerThreshold(), display.GetUpperThreshold()) == (70, 100)
    assert display.GetApplyThreshold()
    assert not display.GetInterpolate(), "voxels of a threshold are not blurred"
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeIron", "the built-in table, where Inferno is not there"
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heatmap)
    assert legend.GetTitleText() == "Uncertainty"
    assert not legend.GetVisibility(), "only while the heatmap is shown"
    styleHeatmap(heatmap)
    assert slicer.vtkSlicerColorLogic.GetNumberOfColorLegendDisplayNodes(heatmap) == 1
    setHeatmapThreshold(heatmap, 95)
    assert display.GetLowerThreshold() == 95


def test_inferno_is_used_where_the_application_has_it(scene) -> None:
    scene.AddNode(slicer.vtkMRMLColorTableNode()).SetName("other")
    assert heatColorNodeID(scene) == "vtkMRMLColorTableNodeIron"
    inferno = slicer.vtkMRMLColorTableNode()
    inferno.SetSingletonTag("FileInferno.txt")
    scene.AddNode(inferno)
    assert heatColorNodeID(scene) == inferno.GetID()


def test_the_heatmap_goes_on_and_off_and_leaves_the_views_as_they_were(scene, volumes, make_file) -> None:
    image, heatmap, views = volumes
    pet = readVolume(scene, make_file(np.ones((4, 5, 6), np.float32), "plain", "pet.nrrd"), "pet")
    views[0].SetForegroundVolumeID(pet.GetID())
    views[0].SetForegroundOpacity(0.25)
    styleHeatmap(heatmap)
    for _ in range(2):  # showing it twice must not make it its own predecessor
        showHeatmap(heatmap, backgroundVolume=image, opacity=0.4)
    assert isHeatmapShown(heatmap)
    assert {view.GetForegroundVolumeID() for view in views} == {heatmap.GetID()}
    assert {view.GetForegroundOpacity() for view in views} == {0.4}
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heatmap).GetVisibility()
    setHeatmapOpacity(heatmap, 0.9)
    assert views[1].GetForegroundOpacity() == 0.9
    hideHeatmap(scene)
    assert not isHeatmapShown(heatmap)
    assert not slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heatmap).GetVisibility()
    assert (views[0].GetForegroundVolumeID(), views[0].GetForegroundOpacity()) == (pet.GetID(), 0.25)
    assert views[1].GetForegroundVolumeID() is None
    hideHeatmap(scene)
    assert views[0].GetForegroundVolumeID() == pet.GetID(), "taking it off twice changes nothing"


def test_the_legend_stands_in_the_largest_view_on_the_screen(scene, volumes) -> None:
    _image, heatmap, _views = volumes
    slices = [scene.AddNewNodeByClass("vtkMRMLSliceNode", name) for name in ("Green", "Red", "Yellow")]
    for node in slices:
        node.SetLayoutName(node.GetName())
        node.SetDimensions(300, 200, 1)
        node.SetMappedInLayout(True)
    styleHeatmap(heatmap)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heatmap)

    def shown_in() -> tuple[str, ...]:
        showHeatmap(heatmap)
        return legend.GetViewNodeIDs()

    green, red, yellow = (node.GetID() for node in slices)
    assert shown_in() == (red,)
    slices[2].SetDimensions(700, 500, 1)
    assert shown_in() == (yellow,)
    slices[2].SetMappedInLayout(False)
    slices[0].SetDimensions(300, 300, 1)
    assert shown_in() == (green,)
    slices[1].SetDimensions(900, 700, 1)
    moveLegend(scene)
    assert legend.GetViewNodeIDs() == (red,), "another layout"
    showHeatmap(heatmap, legend=False)
    slices[0].SetDimensions(900, 900, 1)
    moveLegend(scene)
    assert not legend.GetVisibility(), "one that was switched off stays off"


def test_the_legend_is_small_beside_the_picture_in_views_of_all_sizes(make_file) -> None:
    path = make_file(np.zeros((4, 40, 40), np.float32))
    for size in ((250, 200), (420, 420), (900, 600)):
        with_it, without = (_rendered(size, path, legend=legend) for legend in (True, False))
        covered = (with_it != without).any(axis=2)
        assert covered.any(), "there is a legend"
        lines = covered.any(axis=1)[::-1]  # from the top
        title = int(np.argmin(lines[np.argmax(lines) :]))
        assert title <= max(16, 0.05 * size[1]), f"a title of {title} pixels in a view of {size}"
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        assert np.ptp(rows) < 0.4 * size[1]
        assert np.ptp(columns) < 0.3 * size[0]
        assert columns.min() > 0.7 * size[0], "at the border"


def _pixels(image: vtk.vtkImageData) -> np.ndarray:
    width, height, _depth = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1).copy()


def _rendered(size: tuple[int, int], path: Path, *, legend: bool) -> np.ndarray:
    """Pixels ``[row from below, column, channel]`` of a slice view with a heatmap."""
    session = HeadlessSession()
    view = OffscreenSliceView(session, "Axial", size, ["vtkMRMLColorLegendDisplayableManager"])
    image, heat = (readVolume(session.scene, path, name) for name in ("image", "heatmap"))
    view.show(image, heat, 0.5)
    styleHeatmap(heat, title="Uncertainty")
    showHeatmap(heat, opacity=0.5, legend=legend)
    pixels = _pixels(view.render())
    view.close()
    return pixels


def test_taking_off_survives_that_nodes_were_removed(scene, volumes) -> None:
    _image, heatmap, views = volumes
    other = slicer.vtkMRMLScalarVolumeNode()
    scene.AddNode(other)
    views[0].SetForegroundVolumeID(other.GetID())
    styleHeatmap(heatmap)
    showHeatmap(heatmap)
    scene.RemoveNode(other)
    scene.RemoveNode(heatmap)
    hideHeatmap(scene)
    assert views[0].GetForegroundVolumeID() is None
    assert not isHeatmapShown(heatmap)


def test_all_slice_views_jump_and_centre(scene) -> None:
    views = [scene.AddNewNodeByClass("vtkMRMLSliceNode", name) for name in ("Red", "Green", "Yellow")]
    for view, orientation in zip(views, ("Axial", "Coronal", "Sagittal"), strict=True):
        view.SetOrientation(orientation)
    jumpSlices(scene, lpsToRas((10.0, -20.0, 30.0)))
    for view in views:
        matrix = view.GetSliceToRAS()
        assert [matrix.GetElement(row, 3) for row in range(3)] == [-10.0, 20.0, 30.0]


def test_the_centre_of_a_volume(scene, make_file) -> None:
    node = readVolume(scene, make_file(np.zeros((3, 5, 7), np.uint8), "plain"), "volume")
    assert np.allclose(centerOf(node), (-3, -2, 1))


def _column(table, name: str) -> list:
    column = table.GetTable().GetColumnByName(name)
    return [column.GetValue(row) for row in range(column.GetNumberOfValues())]


def test_tables_hold_what_the_reviews_say(scene) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", "table")
    name = REVIEW["classes"][0]["name"]
    fillVolumesTable(node, [REVIEW, {**REVIEW, "case": "case 2"}], {name: "It is large."})
    assert _column(node, "Remark") == ["It is large.", "", "It is large.", ""]
    assert _column(node, "Case") == ["case 1", "case 1", "case 2", "case 2"]
    assert _column(node, "Volume") == [1.5, 0.0, 1.5, 0.0]
    assert node.GetColumnTitle("Volume") == "Volume (ml)"
    assert node.GetColumnUnitLabel("Volume") == "ml"
    fillSummaryTable(node, REVIEW)
    assert node.GetNumberOfColumns() == 5, "an earlier content is replaced"
    assert _column(node, "Hard voxels") == [12.0, 0.0]
    assert _column(node, "Voxels") == [1500, 0]
    easier = {**REVIEW, "case": "case 0", "slices": [{**REVIEW["slices"][0], "difficulty": 0.3}]}
    fillReviewTable(node, [easier, REVIEW])
    assert _column(node, "Difficulty") == [0.5, 0.3, 0.2], "hardest first, over all cases"
    assert [_column(node, axis)[0] for axis in "RAS"] == [-1, -2, 3]
    fillReviewTable(node, [])
    assert node.GetNumberOfRows() == 0


def _metric(name: str, iteration: int, **values: float | None) -> dict:
    return {"event": "metric", "name": name, "iteration": iteration, "values": values}


def _curves(chart) -> list[str]:
    return [chart.GetNthPlotSeriesNode(index).GetName() for index in range(chart.GetNumberOfPlotSeriesNodes())]


def test_a_curve_is_shown_from_its_second_point_on_and_the_total_lies_under_its_parts(scene) -> None:
    plots = TrainingPlots(scene, "run", ["liver"])
    chart = plots.chart("loss")
    plots.addEvent(_metric("loss", 0, total=1.0, main=1.0, replay=None))
    assert _curves(chart) == []
    plots.addEvent(_metric("loss", 1, total=1.0, main=1.0, replay=0.5))
    assert _curves(chart) == ["Total", "New patches"], "what is drawn last lies on top"
    plots.addEvent(_metric("loss", 2, total=1.0, main=1.0, replay=None))
    assert _curves(chart) == ["Total", "New patches"]
    plots.addEvent(_metric("loss", 3, total=1.0, main=1.0, replay=0.5))
    assert _curves(chart) == ["Total", "New patches", "Replays"]
    total, new = (chart.GetNthPlotSeriesNode(index) for index in (0, 1))
    assert total.GetLineWidth() > 2 * new.GetLineWidth()
    assert min(total.GetColor()) > 0.7, "pale"
    plots.clear()
    assert _curves(chart) == []


def test_the_views_are_fitted_when_rows_came_at_most_once_a_second_and_at_the_end(scene) -> None:
    plots = TrainingPlots(scene, "run", [])
    assert not plots.takeFit(now=0.0), "there is nothing to fit to"
    plots.addEvent(_metric("loss", 0, total=1.0))
    assert plots.takeFit(now=0.0)
    assert not plots.takeFit(now=9.0), "nothing has changed"
    plots.addEvent(_metric("loss", 1, total=1.0))
    assert plots.takeFit(now=9.0)
    plots.addEvent(_metric("loss", 2, total=1.0))
    assert not plots.takeFit(now=9.5)
    assert plots.takeFit(now=9.5, always=True)
    assert not plots.takeFit(now=9.5, always=True)


def test_plots_grow_with_the_events(scene) -> None:
    plots = TrainingPlots(scene, "run", ["liver", "spleen"], [(221, 130, 101), (157, 108, 162)])
    for iteration in range(5):
        assert plots.addEvent(_metric("loss", iteration, total=1.0 / (iteration + 1), main=0.5))
    for iteration in (2, 4):
        plots.addEvent(_metric("validation", iteration, mean=0.8, liver=0.9, spleen=None))
    plots.addEvent(_metric("scores", 4, T1=1, T2=2, T3=3, T4=4, score=10))
    plots.addEvent(_metric("bank", 4, size=7, capacity=10, replays=3, admitted=1, suspects=0))
    assert not plots.addEvent(_metric("held_out", 4, before=0, after=1))
    assert not plots.addEvent({"event": "log", "text": "x"})
    assert _column(plots.table("loss"), "Iteration") == [0, 1, 2, 3, 4]
    assert np.allclose(_column(plots.table("loss"), "Total"), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert all(math.isnan(value) for value in _column(plots.table("loss"), "Replays")), "no replay yet is a gap"
    assert np.allclose(_column(plots.table("validation"), "liver"), [0.9, 0.9])
    assert _column(plots.table("scores"), "T3") == [3]
    assert _column(plots.table("bank"), "Replayed so far") == [3]
    chart = plots.chart("validation")
    assert _curves(chart) == ["Mean", "liver"], "no curve where there is no value"
    assert chart.GetTitle() == "Dice on the validation cases"
    series = chart.GetNthPlotSeriesNode(1)
    assert series.GetTableNode() is plots.table("validation")
    assert (series.GetXColumnName(), series.GetYColumnName()) == ("Iteration", "liver")
    plots.clear()
    assert plots.table("loss").GetNumberOfRows() == 0
    plots.addEvent(_metric("loss", 1, total=3.0))
    assert _column(plots.table("loss"), "Total") == [3.0]


def test_a_plot_tells_its_observers_once_a_row_and_stays_cheap(scene) -> None:
    plots = TrainingPlots(scene, "run", ["liver"])
    calls: list[int] = []
    plots.table("loss").AddObserver("ModifiedEvent", lambda *_: calls.append(1))
    plots.addEvent(_metric("loss", 0, total=1.0))
    assert len(calls) == 1

    def seconds(rows: int) -> float:
        start = time.perf_counter()
        for iteration in range(rows):
            plots.addEvent(_metric("loss", iteration, total=1.0, main=1.0, replay=1.0))
        return time.perf_counter() - start

    first, later = seconds(500), seconds(500) and seconds(500)
    assert later < 3 * first + 0.05, "a row late in the run costs what an early one does"
    assert first < 1.0


def test_plots_leave_nothing_behind(scene) -> None:
    before = scene.GetNumberOfNodes()
    plots = TrainingPlots(scene, "run", ["a", "b", "c"])
    assert scene.GetNumberOfNodes() > before + 8
    plots.remove()
    plots.remove()
    assert scene.GetNumberOfNodes() == before


def test_class_curves_look_like_their_segments_but_can_be_seen_on_white(scene) -> None:
    plots = TrainingPlots(scene, "run", ["pale", "plain"], [(250, 250, 225), (180, 30, 30)])
    for iteration in range(2):
        plots.addEvent(_metric("validation", iteration, mean=0.5, pale=0.5, plain=0.5))
    chart = plots.chart("validation")
    pale, plain = (np.array(chart.GetNthPlotSeriesNode(index).GetColor()) for index in (1, 2))
    assert pale.mean() < 0.65
    assert np.allclose(plain * 255, (180, 30, 30), atol=1)


def test_the_numbers_reach_the_array_that_slicer_draws(scene) -> None:
    plots = TrainingPlots(scene, "run", [])
    for iteration in (3, 4):
        plots.addEvent(_metric("loss", iteration, total=2.5))
    table = plots.chart("loss").GetNthPlotSeriesNode(0).GetTableNode().GetTable()
    assert vtk_to_numpy(table.GetColumnByName("Total")).tolist() == [2.5, 2.5]
