"""The .ui files and the sources of the panels, as the tests read them."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUI = ROOT / "ForgettableSeg" / "ForgettableSegGUI"
UI_FILES = sorted((ROOT / "Resources" / "UI").glob("*.ui"))
SOURCES = [
    ROOT / "ForgettableSeg" / "ForgettableSeg.py",
    *sorted(GUI.rglob("*.py")),
]
# Which .ui file `self.ui` means in a room, and in what stands beside the rooms.
UI_OF_ROOM = {
    "segment": "SegmentPanel",
    "review": "ReviewPanel",
    "finetune": "FineTunePanel",
    "models": "ModelsPanel",
    "setup": "SetupPanel",
}
UI_OF_SHARED = {"module_view.py": "ForgettableSeg", "job_panel.py": "SegmentPanel"}


def ui_of_source(source: Path) -> str:
    """Name of the .ui file that `self.ui` means in a source."""
    room = source.parent.name
    return UI_OF_ROOM[room] if room in UI_OF_ROOM else UI_OF_SHARED[source.name]


def ids(paths: Sequence[Path]) -> list[str]:
    """Names of files for pytest, with the room that they stand in."""
    return ["/".join(path.parts[-2:]) for path in paths]


@dataclass(frozen=True)
class Widget:
    """A widget of a .ui file."""

    name: str
    className: str
    properties: dict[str, str]
    parameter: str


def tree_of_ui(path: Path) -> ElementTree.Element:
    """The root of a .ui file, which is one of ours and not hostile."""
    return ElementTree.parse(path).getroot()


def widgets_of(path: Path) -> list[Widget]:
    """The widgets of a .ui file in the order of the file."""
    found = []
    for element in tree_of_ui(path).iter("widget"):
        own = {each.get("name"): "".join(each.itertext()).strip() for each in element.findall("property")}
        parameter = own.pop("SlicerParameterName", "")
        found.append(Widget(element.get("name"), element.get("class"), own, parameter))
    return found


def classes_in_ui(name: str) -> dict[str, str]:
    """Class of each widget by its name."""
    return {widget.name: widget.className for widget in widgets_of(ROOT / "Resources" / "UI" / f"{name}.ui")}


def uses_of_ui(source: Path) -> Iterator[tuple[str, str, int]]:
    """Every `self.ui.widget.name` of a source: widget, name, line."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            widget = node.value
            if isinstance(widget.value, ast.Attribute | ast.Name) and _is_ui(widget.value):
                yield widget.attr, node.attr, node.lineno


def connections_of(source: Path) -> Iterator[tuple[str, str, int]]:
    """Every `x.connect("signature", ...)` of a source: the text of x, the signature, the line."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "connect"
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            yield ast.unparse(node.func.value), node.args[0].value, node.lineno


def _is_ui(node: ast.Attribute | ast.Name) -> bool:
    return (node.attr if isinstance(node, ast.Attribute) else node.id) == "ui"
