"""Makes the extract of the application's names that the tests use: `make_names_extract.py <slicer-python-names.json>`.

All names of the modules that the project uses are kept, for they are few, and of the classes those that its sources
name or make. A class is told by its base, which is the largest other class that it holds, and what it has beside that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import slicer_names
import slicer_uses

MODULES = (
    "slicer",
    "slicer.ScriptedLoadableModule",
    "slicer.i18n",
    "slicer.packaging",
    "slicer.parameterNodeWrapper",
    "slicer.util",
    *slicer_names.OWN_MODULES,
)
_ANCESTORS = ("vtkMRMLNode", "vtkMRMLDisplayNode", "vtkMRMLDisplayableNode", "vtkMRMLVolumeNode")


def extract(source: dict[str, Any], used: Iterable[str]) -> dict[str, Any]:
    """Return modules and classes in use.

    Args:
        source: content of the file with all names of the application.
        used: names of classes.
    """
    modules = {name: sorted(source["modules"][name]) for name in MODULES}
    modules |= {name: sorted(source[name]) for name in ("slicer.app", "slicer.modules")}
    wanted = sorted({*used, *_ANCESTORS} & set(source["classes"]))
    full = {name: set(source["classes"][name]["methods"]) | set(source["vtkObject"]) for name in wanted}
    full["vtkObject"] = set(source["vtkObject"])
    classes = {}
    for name, methods in full.items():
        within = [other for other in full if full[other] < methods]
        base = max(within, key=lambda other: (len(full[other]), other), default="")
        own = methods - full.get(base, set())
        # Our sources use Slicer's own names only, not the lower-case properties that newer VTK adds.
        classes[name] = {"base": base, "methods": sorted(each for each in own if each[0].isupper())}
    return {"modules": modules, "classes": classes}


def main(path: str) -> None:
    """Write the extract of the names at `path`."""
    source = json.loads(Path(path).read_text(encoding="utf-8"))
    about = "Extract of the names that Python sees in Slicer 5.13, read off the running application by reflection."
    content = {"about": about, **extract(source, slicer_uses.classes_in_use())}
    slicer_names.FILE.write_text(json.dumps(content, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
