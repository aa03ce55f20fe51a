"""Segments a folder of cases without the graphical interface; `--help` lists the options.

    Slicer --no-main-window --python-script <...>/ForgettableSegBatch.py -- --input DIR --model NAME --output DIR
    python <...>/ForgettableSegBatch.py --input DIR --model NAME --output DIR

The second needs Python 3.11 or later with slicer-core and the library's requirements. The script lies in a folder of
its own, for Slicer takes every .py file beside ForgettableSeg.py for a module.
"""

from __future__ import annotations

import sys
from pathlib import Path


def addPaths() -> None:
    """Make the packages importable: all beside this folder when installed, the library one up in a source checkout."""
    beside = Path(__file__).resolve().parents[1]
    for folder in (beside.parent, beside):
        if any((folder / package).is_dir() for package in ("ForgettableSegLib", "ForgettableSegMRML")):
            sys.path.insert(0, str(folder))


if __name__ == "__main__":
    addPaths()
    from ForgettableSegMRML.batch import main

    sys.exit(main(sys.argv[1:]))
