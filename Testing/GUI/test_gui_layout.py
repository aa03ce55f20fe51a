"""The panels fit a module panel 350 pixels wide, say what each widget is for, and open one section at a time."""

from __future__ import annotations

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
