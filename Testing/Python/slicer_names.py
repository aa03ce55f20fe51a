"""What Python sees in the running application (Slicer 5.13), as far as the project needs it."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "data" / "slicer_names_extract.json"
# Modules of the application that the slicer-core wheel keeps inside its own package.
OWN_MODULES = ("vtkITK", "vtkTeem", "vtkSegmentationCore")


@functools.cache
def extract() -> dict[str, Any]:
    """The whole extract: "modules" by name, "classes" by name, each with its base and its own methods."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def names(module: str) -> frozenset[str]:
    """Names that Python sees in a module of the application, `slicer.app` and `slicer.modules` included."""
    return frozenset(extract()["modules"][module])


@functools.cache
def methods(class_name: str) -> frozenset[str] | None:
    """Methods and constants of a class, inherited ones included, or None if the extract does not hold it."""
    entry = extract()["classes"].get(class_name)
    if entry is None:
        return None
    inherited = methods(entry["base"]) if entry["base"] else frozenset()
    return inherited | frozenset(entry["methods"])


def look_like_the_application() -> None:
    """Take out of `slicer` what only the wheel has there, and offer the modules that the application has instead."""
    import slicer
    import slicer.util
    import slicer_core

    for module in (slicer, slicer.util):
        for name in [name for name in vars(module) if not name.startswith("__")]:
            if name not in names(module.__name__):
                delattr(module, name)
    for name in OWN_MODULES:
        sys.modules[name] = getattr(slicer_core, name)
