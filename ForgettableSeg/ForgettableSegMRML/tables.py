"""Results as table nodes: volumes, a summary per class, and the slices to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import slicer
import vtk

from .slices import lpsToRas

_TEXT, _NUMBER, _WHOLE = vtk.VTK_STRING, vtk.VTK_DOUBLE, vtk.VTK_INT

Column = tuple[str, int, str]
"""Name, VTK type, unit."""

_VOLUME_COLUMNS: tuple[Column, ...] = (
    ("Case", _TEXT, ""),
    ("Structure", _TEXT, ""),
    ("Volume", _NUMBER, "ml"),
    ("Remark", _TEXT, ""),
)
_SUMMARY_COLUMNS: tuple[Column, ...] = (
    ("Structure", _TEXT, ""),
    ("Volume", _NUMBER, "ml"),
    ("Voxels", _WHOLE, ""),
    ("Mean difficulty", _NUMBER, ""),
    ("Hard voxels", _NUMBER, "%"),
)
_REVIEW_COLUMNS: tuple[Column, ...] = (
    ("Case", _TEXT, ""),
    ("Structure", _TEXT, ""),
    ("Slice", _WHOLE, ""),
    ("Percentile", _NUMBER, ""),
    ("Difficulty", _NUMBER, ""),
    ("Area", _NUMBER, "mm2"),
    ("R", _NUMBER, "mm"),
    ("A", _NUMBER, "mm"),
    ("S", _NUMBER, "mm"),
)


def fillVolumesTable(
    tableNode: slicer.vtkMRMLTableNode,
    reviews: Iterable[Mapping[str, Any]],
    remarks: Mapping[str, str] | None = None,
) -> None:
    """Replace the table's content by the volume in ml of every structure of every case.

    Args:
        tableNode: receives the rows.
        reviews: contents of review.json files.
        remarks: what is unusual, by name of the structure.
    """
    remarks = remarks or {}
    rows = [
        (review["case"], each["name"], round(each["volume_ml"], 3), remarks.get(each["name"], ""))
        for review in reviews
        for each in review["classes"]
    ]
    fillTable(tableNode, _VOLUME_COLUMNS, rows)


def fillSummaryTable(tableNode: slicer.vtkMRMLTableNode, review: Mapping[str, Any]) -> None:
    """Replace the table's content by one row a class: volume, mean difficulty, share of hard voxels.

    Hard voxels are those above the 95th percentile of the training voxels' difficulty.
    """
    rows = [
        (
            each["name"],
            round(each["volume_ml"], 3),
            each["voxels"],
            round(each["mean_difficulty"], 4),
            round(100 * each["share_above_95"], 1),
        )
        for each in review["classes"]
    ]
    fillTable(tableNode, _SUMMARY_COLUMNS, rows)


def fillReviewTable(tableNode: slicer.vtkMRMLTableNode, reviews: Iterable[Mapping[str, Any]]) -> None:
    """Replace the table's content by the slices of all cases, hardest first, with their place in the world."""
    slices = [(review["case"], each) for review in reviews for each in review["slices"]]
    slices.sort(key=lambda entry: -entry[1]["difficulty"])
    rows = [
        (
            case,
            each["class"],
            each["slice"],
            round(each["percentile"], 1),
            round(each["difficulty"], 4),
            round(each["area_mm2"], 1),
            *(round(value, 2) for value in lpsToRas(each["position_lps"])),
        )
        for case, each in slices
    ]
    fillTable(tableNode, _REVIEW_COLUMNS, rows)


def fillTable(
    tableNode: slicer.vtkMRMLTableNode, columns: Sequence[Column], rows: Sequence[Sequence[str | float | int]]
) -> None:
    """Replace the content of a table node.

    Args:
        tableNode: receives the columns and rows.
        columns: name, VTK type and unit of each column.
        rows: one value a column.
    """
    table = vtk.vtkTable()
    for index, (name, vtkType, _unit) in enumerate(columns):
        array = vtk.vtkStringArray() if vtkType == _TEXT else vtk.vtkDataArray.CreateDataArray(vtkType)
        array.SetName(name)
        array.SetNumberOfValues(len(rows))
        for row, values in enumerate(rows):
            array.SetValue(row, values[index])
        table.AddColumn(array)
    wasModifying = tableNode.StartModify()
    tableNode.SetAndObserveTable(table)
    tableNode.SetUseColumnTitleAsColumnHeader(True)
    for name, _vtkType, unit in columns:
        tableNode.SetColumnUnitLabel(name, unit)
        tableNode.SetColumnTitle(name, f"{name} ({unit})" if unit else name)
    tableNode.EndModify(wasModifying)
