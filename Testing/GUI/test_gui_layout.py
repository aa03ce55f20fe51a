"""The panels fit a module panel 350 pixels wide, say what each widget is for, and open one section at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from panel_files import UI_FILES, widgets_of

WIDTH = 350
INTERACTIVE = {
    "QPushButton", "QToolButton", "QComboBox", "QCheckBox", "QSpinBox", "QDoubleSpinBox", "QLineEdit", "QTableWidget",
    "QListWidget", "QPlainTextEdit", "QTabWidget", "qMRMLNodeComboBox", "qMRMLSegmentationShow3DButton",
    "ctkPathLineEdit", "ctkSliderWidget", "ctkCollapsibleButton", "ctkCollapsibleGroupBox", "QProgressBar",
}  # fmt: skip
PANELS = ("segment", "review", "fineTune", "models", "setup")


@pytest.mark.parametrize("path", UI_FILES, ids=[path.name for path in UI_FILES])
def test_every_interactive_widget_has_a_tool_tip_that_is_a_sentence(path: Path) -> None:
    silent = {
        widget.name
        for widget in widgets_of(path)
        if widget.className in INTERACTIVE and not widget.properties.get("toolTip", "").endswith(".")
    }
    assert silent == set()


@pytest.fixture
def module(application: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module's view with no worker behind it."""
    from module_view import ModuleWindow

    monkeypatch.setenv("HOME", str(tmp_path))
    window = ModuleWindow(worker=None)
    yield window
    window.close()


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_fits_the_width_of_the_module_panel(module: Any, name: str) -> None:
    module.view.openSection(name)
    module.resize(WIDTH)
    for tab in module.tabs(name):
        tab()
        assert module.window.minimumSizeHint().width() <= WIDTH
        assert module.outside(WIDTH) == []


LONG = "left anterior hippocampus"
LONG_MODEL = {
    "name": "long",
    "bytes": 123_400_000,
    "card": {
        "title": "Hippocampus and amygdala on T1-weighted MR",
        "text": {"prompts": [f"the {LONG} in a T1-weighted scan"]},
        "task": {"name": "long", "modality": "MR", "channels": ["T1"], "classes": [{"name": LONG, "value": 1}]},
    },
}
REVIEW = {
    "slices": [{"slice": 123, "class": LONG, "percentile": 99.9, "area_mm2": 1234.5, "position_lps": [0, 0, 0]}],
    "classes": [{"name": LONG, "volume_ml": 12.34, "mean_difficulty": 12.34, "share_above_95": 0.99}],
}


def shown_cells(table: Any) -> Iterator[tuple[str, bool, str]]:
    """Text of each cell, whether it fits into its cell when it is wrapped, and its tool tip."""
    from PySide6.QtCore import QRect, Qt

    for row in range(table.rowCount()):
        for column in range(table.columnCount()):
            item = table.item(row, column)
            if item is not None and table.cellWidget(row, column) is None:
                room = QRect(0, 0, table.columnWidth(column) - 6, 10_000)
                needed = table.fontMetrics().boundingRect(room, Qt.TextFlag.TextWordWrap, item.text())
                fits = needed.width() <= room.width() and needed.height() <= table.rowHeight(row)
                yield item.text(), fits, item.toolTip()


def test_tables_show_long_names_at_the_width_of_the_module_panel(module: Any, scene: Any) -> None:
    from ForgettableSegGUI import results
    from ForgettableSegGUI.samples import syntheticCase
    from PySide6.QtWidgets import QTableWidget

    module.session.refreshModels()
    module.worker.answer("models", event="done", exit_code=0, result={"models": [LONG_MODEL]})
    _volume, node = syntheticCase(scene, 0)
    results.setReview(node, REVIEW)
    module.parameters.reviewSegmentation = node
    seen = {}
    for name in PANELS:
        panel = module.panel(name)
        module.resize(WIDTH)
        for tab in module.tabs(name):
            tab()
            for table in panel.widget.target.findChildren(QTableWidget):
                if table.isVisible() and table.rowCount():
                    assert table.horizontalScrollBar().maximum() == 0, table.objectName()
                    seen[table.objectName()] = list(shown_cells(table))
    assert {"slicesTable", "classesTable", "modelsTable", "packagesTable"} <= set(seen)
    assert [(name, text) for name, cells in seen.items() for text, fits, _tip in cells if not fits] == []
    assert all(tip.startswith(text) for cells in seen.values() for text, _fits, tip in cells)


def test_closed_sections_stand_close_together_at_the_top(module: Any) -> None:
    module.view.openSection("setup")
    module.resize(WIDTH)
    tops = [module.view.sections[name].target.y() for name in PANELS]
    assert tops[0] <= 2
    assert {below - above for above, below in itertools.pairwise(tops)} == {tops[1] - tops[0]}
    assert tops[1] - tops[0] <= module.view.sections["review"].target.sizeHint().height() + 2
    assert module.view.sections["review"].collapsedHeight == 0, "the room that ctk leaves below a closed section"


def test_start_and_why_it_cannot_be_pressed_are_seen_in_every_tab(module: Any) -> None:
    ui = module.panel("fineTune").ui
    module.resize(WIDTH)
    for tab in module.tabs("fineTune"):
        tab()
        assert ui.startButton.target.isVisible()
        assert "Tick at least 3 cases" in ui.statusLabel.text
        assert ui.statusLabel.target.isVisible()


def test_only_the_section_in_use_is_open(module: Any) -> None:
    for name in PANELS:
        module.view.openSection(name)
        assert {other for other in PANELS if not module.view.sections[other].collapsed} == {name}


def test_rows_for_channels_that_the_model_lacks_are_hidden(module: Any) -> None:
    ui = module.view.panels["segment"].ui
    shown = [getattr(ui, f"channelSelector{n}").target.isVisible() for n in (1, 2, 3, 4)]
    assert shown == [True, False, False, False]


def test_a_picture_of_every_panel_shows_something(module: Any, tmp_path: Path) -> None:
    for name in PANELS:
        module.view.openSection(name)
        picture = module.picture(WIDTH)
        colors = {picture.pixel(x, y) for x in range(0, picture.width(), 7) for y in range(0, picture.height(), 7)}
        assert picture.width() == WIDTH
        assert len(colors) > 5
