"""Makes the extract of Slicer's interface that the tests use: `python make_api_extract.py <slicer-gui-api.json>`.

Only the classes named in `USED` and their ancestors are kept, and of each only what it does not inherit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import slicer_api

USED = [
    "QApplication",
    "QByteArray",
    "QCheckBox",
    "QComboBox",
    "QDesktopServices",
    "QDoubleSpinBox",
    "QEvent",
    "QFrame",
    "QHBoxLayout",
    "QHeaderView",
    "QIcon",
    "QItemSelectionModel",
    "QLabel",
    "QLineEdit",
    "QListWidget",
    "QListWidgetItem",
    "QModelIndex",
    "QPixmap",
    "QPlainTextEdit",
    "QProcess",
    "QProcessEnvironment",
    "QProgressBar",
    "QPushButton",
    "QSpinBox",
    "QTabWidget",
    "QTableWidget",
    "QTableWidgetItem",
    "QTimer",
    "QUrl",
    "QVBoxLayout",
    "QFormLayout",
    "QWidget",
    "qMRMLLayoutManager",
    "qMRMLNodeComboBox",
    "qMRMLPlotView",
    "qMRMLPlotWidget",
    "qMRMLSegmentEditorWidget",
    "qMRMLSegmentationShow3DButton",
    "qMRMLSliceWidget",
    "qMRMLWidget",
    "qSlicerApplication",
    "qSlicerLayoutManager",
    "qSlicerExtensionsManagerModel",
    "ctkCollapsibleButton",
    "ctkCollapsibleGroupBox",
    "ctkPathLineEdit",
    "ctkSliderWidget",
]


def extract(source: dict[str, Any]) -> dict[str, Any]:
    """Return the classes in use, with their ancestors, each without what it inherits."""
    known = source["classes"]
    wanted = dict.fromkeys(ancestor for name in USED for ancestor in known[name].get("mro") or [name])
    result = {}
    for name in sorted(each for each in wanted if each in known):
        entry = known[name]
        above = [known[each] for each in (entry.get("mro") or [name])[1:] if each in known]
        inherited = {each for ancestor in above for each in ancestor.get("python_dir") or ()}
        result[name] = {
            "mro": entry.get("mro") or [name],
            "designer": bool(entry.get("designer_plugin")),
            "properties": sorted(each["name"] for each in entry.get("properties") or ()),
            "signals": sorted(entry.get("signals") or ()),
            "slots": sorted(each["signature"] for each in entry.get("slots") or ()),
            "enums": {key: sorted(values) for key, values in (entry.get("enums") or {}).items()},
            "names": sorted(set(entry.get("python_dir") or ()) - inherited),
        }
    return result


def main(path: str) -> None:
    """Write the extract of the interface at `path`."""
    classes = extract(json.loads(Path(path).read_text(encoding="utf-8")))
    about = "Extract of the interface of Slicer 5.13 (Qt 5.15), read off the running application by reflection."
    content = {"about": about, "classes": classes}
    slicer_api.FILE.parent.mkdir(exist_ok=True)
    slicer_api.FILE.write_text(json.dumps(content, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
