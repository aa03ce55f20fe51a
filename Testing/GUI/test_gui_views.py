"""What the views show: charts that come and go, and a volume that was not shown before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import slicer_api


class Manager:
    """Stands in for the layout manager of the application, with two slice views and one plot view."""

    def __init__(self, scene: Any) -> None:
        self.layout = 3
        self.fits = 0
        self.heard: dict[str, Any] = {}
        views = ("Red", "Green")
        self.composites = {name: scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name) for name in views}
        self.plotNode = scene.AddNewNodeByClass("vtkMRMLPlotViewNode", "Plot")
        self.plotViewCount = 1
        for name in ("layout", "setLayout", "plotViewCount", "plotWidget", "sliceViewNames", "sliceWidget"):
            slicer_api.require("qSlicerLayoutManager", name)

    def connect(self, signal: str, callback: Any) -> None:
        """Keep who wants to hear of a signal."""
        slicer_api.requireSignal("qSlicerLayoutManager", signal)
        self.heard[signal] = callback

    def setLayout(self, layout: int) -> None:
        """Choose a layout."""
        self.layout = layout

    def plotWidget(self, _index: int) -> Any:
        """The plot view."""
        for className, name in (
            ("qMRMLPlotWidget", "mrmlPlotViewNode"),
            ("qMRMLPlotWidget", "plotView"),
            ("qMRMLPlotView", "fitToContent"),
        ):
            slicer_api.require(className, name)
        view = SimpleNamespace(fitToContent=self._fit)
        return SimpleNamespace(mrmlPlotViewNode=lambda: self.plotNode, plotView=lambda: view)

    def sliceViewNames(self) -> list[str]:
        """Names of the slice views on the screen."""
        return list(self.composites)

    def sliceWidget(self, name: str) -> Any:
        """A slice view."""
        return SimpleNamespace(mrmlSliceCompositeNode=lambda: self.composites[name])

    def show(self, chart: Any) -> None:
        """What the application does to show a chart."""
        self.layout = 36
        self.plotNode.SetPlotChartNodeID(chart.GetID())

    def _fit(self) -> None:
        self.fits += 1


@pytest.fixture
def manager(application: Any, scene: Any, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """The layout manager of the application."""
    import slicer

    made = Manager(scene)
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: made)
    plots = SimpleNamespace(logic=lambda: SimpleNamespace(ShowChartInLayout=made.show))
    monkeypatch.setattr(slicer.modules, "plots", plots, raising=False)
    return made


def test_the_layout_of_before_comes_back_after_the_charts(manager: Manager, scene: Any) -> None:
    from ForgettableSegGUI.application import ChartView

    charts = [scene.AddNewNodeByClass("vtkMRMLPlotChartNode", name) for name in ("loss", "scores")]
    view = ChartView()
    view.leave()
    assert manager.layout == 3
    view.show(charts)
    view.show(charts)
    assert manager.layout == 36
    view.leave()
    assert manager.layout == 3
    view.show(charts)
    manager.setLayout(6)
    view.leave()
    assert manager.layout == 6, "the user has chosen another one meanwhile"


def test_only_views_that_show_our_charts_are_fitted(manager: Manager, scene: Any) -> None:
    from ForgettableSegGUI.application import ChartView

    ours, other = (scene.AddNewNodeByClass("vtkMRMLPlotChartNode", name) for name in ("loss", "other"))
    manager.show(ours)
    ChartView().fit([ours])
    assert manager.fits == 1
    manager.show(other)
    ChartView().fit([ours])
    assert manager.fits == 1


def test_curves_follow_the_training_and_the_layout_comes_back_when_its_result_is_taken(
    manager: Manager, module: Any, case: Any, tmp_path: Any
) -> None:
    run = module.panel("fineTune").run
    run._folder = tmp_path
    run._makePlots("tiny", ["ball"])
    assert manager.layout == 36
    state = SimpleNamespace(running=True)
    for iteration in range(3):
        values = {"total": 1.0, "main": 1.0, "replay": None}
        run.onEvent({"event": "metric", "name": "loss", "iteration": iteration, "values": values}, state)
    assert manager.fits == 1, "at most once a second"
    run._fitPlots(ended=True)
    assert manager.fits == 2
    run._installed({"event": "done", "result": {"model": {"name": "tiny"}}})
    assert manager.layout == 3


def test_views_are_fitted_to_a_volume_that_none_of_them_shows(
    manager: Manager, application: Any, scene: Any, case: Any
) -> None:
    from ForgettableSegGUI.application import showVolume

    volume, _segmentation = case
    application.opened.clear()
    assert showVolume(volume)
    assert application.opened == [{"background": volume, "fit": True}]
    manager.composites["Green"].SetBackgroundVolumeID(volume.GetID())
    assert not showVolume(volume), "the user looks at it already"
    assert len(application.opened) == 1


def test_another_layout_is_told_once_its_views_have_their_sizes(manager: Manager) -> None:
    from ForgettableSegGUI.application import onLayoutChanged
    from stand_in import spin

    told: list[bool] = []
    onLayoutChanged(lambda: told.append(True))
    manager.heard["layoutChanged(int)"](4)
    assert not told, "the views are laid out after the signal"
    assert spin(lambda: told == [True], 5)
