"""Training curves as plot nodes, which grow a row at a time as events arrive."""

from __future__ import annotations

import colorsys
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from .terminology import Color

_ITERATION = "Iteration"
_FEWEST_POINTS = 2  # of a curve that is drawn; VTK complains about a line with fewer
_FIT_INTERVAL = 1.0  # seconds between two fits of the views to curves that grow
_LINE_COLORS: tuple[Color, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
_LINE, _WIDE_LINE = 2.0, 7.0
_PALE: Color = (190, 200, 210)


@dataclass(frozen=True)
class _Chart:
    """One chart: which values of which metric, and what the axes are called."""

    metric: str
    title: str
    yTitle: str
    columns: tuple[tuple[str, str], ...]  # key in the event's values, name of the curve
    yRange: tuple[float, float] | None = None
    markers: bool = False
    underneath: str = ""  # key of the curve that is drawn wide and pale below the others


# Until the first replay the total is the loss of the new patches: its line lies under theirs, and shows on both sides.
_LOSS = _Chart(
    "loss",
    "Training loss",
    "Loss",
    (("total", "Total"), ("main", "New patches"), ("replay", "Replays")),
    underneath="total",
)
_SCORES = _Chart(
    "scores", "Difficulty of the batch", "Mean score", (("T1", "T1"), ("T2", "T2"), ("T3", "T3"), ("T4", "T4"))
)
_BANK = _Chart("bank", "Bank of hard samples", "Samples", (("size", "In the bank"), ("replays", "Replayed so far")))
_VALIDATION = "validation"


class TrainingPlots:
    """Four charts of a training run: loss, validation Dice by class, mean T1 to T4, and the bank.

    Every metric event adds one row to one table: what it costs does not grow with the run.

    Args:
        scene: receives the nodes.
        name: name of the run, which the nodes' names start with.
        classNames: the task's classes, one Dice curve each beside the mean.
        classColors: their colours, so that a curve looks like its segment.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        name: str,
        classNames: Sequence[str],
        classColors: Sequence[Color] = (),
    ) -> None:
        dice = (("mean", "Mean"), *((each, each) for each in classNames))
        validation = _Chart(_VALIDATION, "Dice on the validation cases", "Dice", dice, (0.0, 1.0), True)
        colors = {each: color for each, color in zip(classNames, classColors, strict=False)}
        self._plots = {chart.metric: _Plot(scene, name, chart, colors) for chart in (_LOSS, validation, _SCORES, _BANK)}
        self._grown = False  # since the views were last fitted
        self._fitted = -math.inf

    def addEvent(self, event: Mapping[str, Any]) -> bool:
        """Take a `metric` event of the worker; True if one of the charts shows it."""
        plot = self._plots.get(str(event.get("name")))
        if plot is None:
            return False
        plot.addRow(int(event["iteration"]), event["values"])
        self._grown = True
        return True

    def takeFit(self, *, now: float | None = None, always: bool = False) -> bool:
        """Whether the views should be fitted to the curves now, which is then taken as done.

        Args:
            now: seconds of a clock that never goes back; the machine's own by default.
            always: do not wait until the last fit is a second ago, for no more rows will come.
        """
        now = time.monotonic() if now is None else now
        due = self._grown and (always or now - self._fitted >= _FIT_INTERVAL)
        if due:
            self._grown, self._fitted = False, now
        return due

    def chart(self, metric: str) -> slicer.vtkMRMLPlotChartNode:
        """Return the chart of "loss", "validation", "scores" or "bank"."""
        return self._plots[metric].chartNode

    def charts(self) -> list[slicer.vtkMRMLPlotChartNode]:
        """Return all charts, the loss first."""
        return [plot.chartNode for plot in self._plots.values()]

    def table(self, metric: str) -> slicer.vtkMRMLTableNode:
        """Return the table behind a chart."""
        return self._plots[metric].tableNode

    def clear(self) -> None:
        """Take all rows away, for a new run under the same charts."""
        for plot in self._plots.values():
            plot.clear()

    def remove(self) -> None:
        """Take the nodes out of the scene."""
        for plot in self._plots.values():
            plot.remove()


class _Plot:
    """A chart, its curves and the table that they draw."""

    def __init__(self, scene: slicer.vtkMRMLScene, name: str, chart: _Chart, colors: Mapping[str, Color]) -> None:
        self._chart = chart
        self.tableNode = scene.AddNewNodeByClass("vtkMRMLTableNode", f"{name} {chart.title}")
        self._columns = [self._addColumn(vtk.vtkIntArray(), _ITERATION)]
        self._columns += [self._addColumn(vtk.vtkFloatArray(), title) for _key, title in chart.columns]
        self.chartNode = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", f"{name} {chart.title}")
        self.chartNode.SetTitle(chart.title)
        self.chartNode.SetXAxisTitle(_ITERATION)
        self.chartNode.SetYAxisTitle(chart.yTitle)
        if chart.yRange is not None:
            self.chartNode.SetYAxisRangeAuto(False)
            self.chartNode.SetYAxisRange(*chart.yRange)
        self._series = [
            self._addSeries(scene, name, index, title, colors.get(title))
            for index, (_key, title) in enumerate(chart.columns)
        ]
        self._points = [0] * len(self._series)

    def addRow(self, iteration: int, values: Mapping[str, Any]) -> None:
        self._columns[0].InsertNextValue(iteration)
        for index, (key, _title) in enumerate(self._chart.columns):
            value = values.get(key)
            self._columns[index + 1].InsertNextValue(math.nan if value is None else float(value))
            self._points[index] += value is not None and math.isfinite(value)
        if self.chartNode.GetNumberOfPlotSeriesNodes() < len(self._series):
            self._showCurves()
        self._changed()

    def clear(self) -> None:
        for column in self._columns:
            column.Reset()
        self._points = [0] * len(self._series)
        self._showCurves()
        self._changed()

    def remove(self) -> None:
        scene = self.tableNode.GetScene()
        for node in (self.chartNode, *self._series, self.tableNode):
            if scene is not None and scene.IsNodePresent(node):
                scene.RemoveNode(node)

    def _showCurves(self) -> None:
        """Put the curves that can be drawn into the chart, in their order: the last one is drawn on top."""
        curves = zip(self._series, self._points, strict=True)
        ready = [series for series, points in curves if points >= _FEWEST_POINTS]
        if self.chartNode.GetNumberOfPlotSeriesNodes() != len(ready):
            wasModifying = self.chartNode.StartModify()
            self.chartNode.RemoveAllPlotSeriesNodeIDs()
            for series in ready:
                self.chartNode.AddAndObservePlotSeriesNodeID(series.GetID())
            self.chartNode.EndModify(wasModifying)

    def _changed(self) -> None:
        for column in self._columns:
            column.Modified()
        self.tableNode.GetTable().Modified()  # the node hears it, and tells its own observers once

    def _addColumn(self, array: vtk.vtkDataArray, name: str) -> vtk.vtkDataArray:
        array.SetName(name)
        self.tableNode.AddColumn(array)
        return self.tableNode.GetTable().GetColumnByName(name)

    def _addSeries(
        self, scene: slicer.vtkMRMLScene, name: str, index: int, title: str, color: Color | None
    ) -> slicer.vtkMRMLPlotSeriesNode:
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", f"{name} {title}")
        series.SetAndObserveTableNodeID(self.tableNode.GetID())
        series.SetXColumnName(_ITERATION)
        series.SetYColumnName(title)
        series.SetName(title)  # the chart's legend shows it
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
        circle, none = slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle, slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone
        series.SetMarkerStyle(circle if self._chart.markers else none)
        underneath = self._chart.columns[index][0] == self._chart.underneath
        series.SetLineWidth(_WIDE_LINE if underneath else _LINE)
        shown = _onWhite(color) if color is not None else _LINE_COLORS[index % len(_LINE_COLORS)]
        series.SetColor(*(channel / 255 for channel in (_PALE if underneath else shown)))
        return series


def _onWhite(color: Color) -> Color:
    """The colour, darkened where a thin line in it could not be seen on white."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in color))
    red, green, blue = colorsys.hls_to_rgb(hue, min(lightness, 0.5), saturation)
    return round(255 * red), round(255 * green), round(255 * blue)
