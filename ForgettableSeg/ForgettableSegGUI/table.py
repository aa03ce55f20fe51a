"""Filling a table widget: rows of texts and numbers, each row keeping its number while it is sorted."""

from __future__ import annotations

from collections.abc import Sequence

import qt


def fillTable(
    table: qt.QTableWidget, rows: Sequence[Sequence[str | float]], *, checks: Sequence[bool] | None = None
) -> None:
    """Replace the rows of a table.

    Args:
        table: the widget; its signals are held back meanwhile.
        rows: a text or a number a cell; numbers are sorted as numbers.
        checks: whether each row's first cell is ticked; None for cells without a tick box.
    """
    sorting = table.sortingEnabled
    table.blockSignals(True)
    table.setSortingEnabled(False)
    table.setRowCount(len(rows))
    for row, cells in enumerate(rows):
        for column, value in enumerate(cells):
            item = qt.QTableWidgetItem()  # empty: a text that reads like the number would keep the number out
            item.setData(qt.Qt.DisplayRole, value)
            if column == 0:
                item.setData(qt.Qt.UserRole, row)
            if column == 0 and checks is not None:
                item.setCheckState(qt.Qt.Checked if checks[row] else qt.Qt.Unchecked)
            item.setToolTip(str(value))
            table.setItem(row, column, item)
    table.setSortingEnabled(sorting)
    table.blockSignals(False)


def fitColumns(table: qt.QTableWidget, *stretched: int) -> None:
    """Let columns share the room that the others leave; a text that does not fit there goes on in a new line."""
    header = table.horizontalHeader()
    header.setStretchLastSection(False)
    header.setMinimumSectionSize(40)
    for column in range(table.columnCount):
        mode = qt.QHeaderView.Stretch if column in stretched else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(column, mode)
    table.setWordWrap(True)
    table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)


def keyOfRow(table: qt.QTableWidget, row: int) -> int:
    """Return the number that a row had when the table was filled, -1 where there is no such row."""
    item = table.item(row, 0)
    return -1 if item is None else int(item.data(qt.Qt.UserRole))


def selectedKeys(table: qt.QTableWidget) -> list[int]:
    """Return the numbers of the selected rows."""
    rows = sorted({index.row() for index in table.selectionModel().selectedRows(0)})
    return [keyOfRow(table, row) for row in rows]


def cellText(table: qt.QTableWidget, row: int, column: int) -> str:
    """Return the text of a cell."""
    item = table.item(row, column)
    return "" if item is None else item.text()
