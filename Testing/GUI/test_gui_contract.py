"""Every class, property, signal and slot that the panels name exists in the running application (Slicer 5.13)."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import make_api_extract
import pytest
import slicer_api
from panel_files import (
    ROOT,
    SOURCES,
    UI_FILES,
    classes_in_ui,
    connections_of,
    ids,
    tree_of_ui,
    ui_of_source,
    uses_of_ui,
    widgets_of,
)

WHOLE_INTERFACE = ROOT.parent / "shared" / "slicer-gui-api.json"
# What a connect() is called on, where it is no widget of a .ui file.
OTHER_SENDERS = {
    "process": "QProcess",
    "manager": "qSlicerLayoutManager",
    "self._timer": "QTimer",
    "combo": "QComboBox",
    "selector": "qMRMLNodeComboBox",
    "self.sections[name]": "ctkCollapsibleButton",
    "widget": "QListWidget",
    "slicer.app": "qSlicerApplication",
}


@pytest.mark.parametrize("path", UI_FILES, ids=ids(UI_FILES))
def test_every_class_and_property_of_the_ui_file_exists(path: Path) -> None:
    for widget in widgets_of(path):
        assert widget.className in slicer_api.classes(), f"{widget.name} is a {widget.className}"
        unknown = set(widget.properties) - slicer_api.properties(widget.className)
        assert unknown == set(), f"{widget.name} ({widget.className})"


@pytest.mark.parametrize("path", UI_FILES, ids=ids(UI_FILES))
def test_every_custom_widget_can_be_made_by_the_ui_loader(path: Path) -> None:
    declared = {each.findtext("class") for each in tree_of_ui(path).iter("customwidget")}
    used = {widget.className for widget in widgets_of(path) if widget.className.startswith(("q", "ctk"))}
    assert used == declared
    assert {name for name in used if not slicer_api.classes()[name]["designer"]} == set()


@pytest.mark.parametrize("path", UI_FILES, ids=ids(UI_FILES))
def test_every_enumeration_of_the_ui_file_exists(path: Path) -> None:
    enums = {
        f"{owner}::{value}"
        for owner, entry in slicer_api.classes().items()
        for values in entry["enums"].values()
        for value in values
    }
    named = {part for kind in ("enum", "set") for each in tree_of_ui(path).iter(kind) for part in each.text.split("|")}
    assert {name for name in named if not name.startswith(("Qt::", "QFormLayout::"))} <= enums


@pytest.mark.parametrize("path", UI_FILES, ids=ids(UI_FILES))
def test_the_scene_reaches_every_node_selector(path: Path) -> None:
    classes = {widget.name: widget.className for widget in widgets_of(path)}
    told = set()
    for each in tree_of_ui(path).iter("connection"):
        sender, receiver = each.findtext("sender"), each.findtext("receiver")
        assert each.findtext("signal") in slicer_api.signals(classes[sender])
        slots = {s for a in slicer_api.ancestors(classes[receiver]) for s in slicer_api.classes()[a]["slots"]}
        assert each.findtext("slot") in slots
        told.add(receiver)
    assert told == {name for name, className in classes.items() if className == "qMRMLNodeComboBox"}


@pytest.mark.parametrize("path", UI_FILES, ids=ids(UI_FILES))
def test_names_in_a_ui_file_are_unique_and_the_tab_order_is_that_of_the_file(path: Path) -> None:
    names = [widget.name for widget in widgets_of(path)]
    assert len(names) == len(set(names))
    stops = [each.text for each in tree_of_ui(path).iter("tabstop")]
    assert stops == [name for name in names if name in set(stops)]


@pytest.mark.parametrize("source", SOURCES, ids=ids(SOURCES))
def test_every_widget_and_every_name_asked_of_it_exists(source: Path) -> None:
    wrong = []
    for widget, name, line in uses_of_ui(source):
        classes = classes_in_ui(ui_of_source(source))
        if widget not in classes:
            wrong.append(f"{source.name}:{line} there is no {widget}")
        elif name not in slicer_api.names(classes[widget]):
            wrong.append(f"{source.name}:{line} {classes[widget]} {widget} has no {name}")
    assert wrong == []


@pytest.mark.parametrize("source", SOURCES, ids=ids(SOURCES))
def test_every_signal_that_is_connected_exists(source: Path) -> None:
    wrong = []
    for sender, signature, line in connections_of(source):
        _before, isWidget, widget = f".{sender}".rpartition(".ui.")
        className = classes_in_ui(ui_of_source(source))[widget] if isWidget else OTHER_SENDERS[sender]
        if signature not in slicer_api.signals(className):
            wrong.append(f"{source.name}:{line} {className} {sender} has no signal {signature}")
    assert wrong == []


@pytest.mark.parametrize("source", SOURCES, ids=ids(SOURCES))
def test_every_class_of_qt_that_is_made_exists(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    made = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "qt"
    }
    assert made - {"Qt"} <= set(slicer_api.classes())


def test_every_parameter_of_a_ui_file_is_one_of_the_parameter_node() -> None:
    source = (ROOT / "ForgettableSeg/ForgettableSegGUI/parameters.py").read_text(encoding="utf-8")
    node = next(each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.ClassDef))
    known = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
    named = [widget.parameter for path in UI_FILES for widget in widgets_of(path) if widget.parameter]
    assert set(named) <= known
    assert len(named) == len(set(named))


def test_a_misspelt_name_would_be_found(tmp_path: Path) -> None:
    source = tmp_path / "segment_panel.py"
    source.write_text('self.ui.applyButton.enabeld\nself.ui.applyButton.connect("cliked(bool)", f)\n')
    (use,) = [each for each in uses_of_ui(source) if each[1] == "enabeld"]
    assert use[1] not in slicer_api.names("QPushButton")
    ((_sender, signature, _line),) = connections_of(source)
    assert signature not in slicer_api.signals("QPushButton")


@pytest.mark.skipif(not WHOLE_INTERFACE.is_file(), reason="needs the whole interface beside the project")
def test_the_extract_agrees_with_the_whole_interface() -> None:
    whole: dict[str, Any] = json.loads(WHOLE_INTERFACE.read_text(encoding="utf-8"))
    assert make_api_extract.extract(whole) == slicer_api.classes()
