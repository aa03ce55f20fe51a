"""The table of segments and the classes that they stand for, which Fine-tune and Review share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt

from .class_mapping import IGNORED
from .i18n import tr as _
from .table import fillTable, fitColumns


class MappingTable:
    """Shows a row a segment, with the class that it stands for to choose.

    Args:
        table: of two columns.
        changed: called with the class by name of the segment after the user has chosen one.
    """

    def __init__(self, table: qt.QTableWidget, changed: Callable[[dict[str, str]], None]) -> None:
        self._table, self._changed = table, changed
        self._combos: dict[str, qt.QComboBox] = {}
        self._shown: Any = None
        fitColumns(table, 0, 1)

    def show(self, mapping: Mapping[str, str], classes: Sequence[str]) -> None:
        """Show a mapping; the combo boxes stay while nothing is another.

        Args:
            mapping: class by name of the segment.
            classes: names of the classes to choose from.
        """
        shown = dict(mapping), tuple(classes)
        if shown == self._shown:
            return
        self._shown = shown
        fillTable(self._table, [[name, ""] for name in mapping])
        self._combos = {}
        for row, (segment, chosen) in enumerate(mapping.items()):
            combo = qt.QComboBox()
            combo.setToolTip(_("The class that the segment {name} stands for.").format(name=segment))
            combo.addItem(_("left out"), IGNORED)
            for name in classes:
                combo.addItem(name, name)
            combo.setCurrentIndex(classes.index(chosen) + 1 if chosen in classes else 0)
            combo.connect("currentIndexChanged(int)", self.onChosen)
            self._table.setCellWidget(row, 1, combo)
            self._combos[segment] = combo

    def onChosen(self, _index: int) -> None:
        """The user chose a class for a segment."""
        mapping = {
            segment: str(combo.itemData(combo.currentIndex) or IGNORED) for segment, combo in self._combos.items()
        }
        self._shown = mapping, self._shown[1]  # what is shown already: the combo boxes stay
        self._changed(mapping)
