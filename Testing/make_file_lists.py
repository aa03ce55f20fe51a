#!/usr/bin/env python3
"""Writes the lists of files that CMake packages: `python3 Testing/make_file_lists.py`.

Slicer's build packages only what is listed. A test compares the lists with the disk; after adding or removing a file,
run this once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = {"FileList.cmake", "CMakeLists.txt", ".gitignore"}

# For each list: its variable, the folder that it stands in, what its entries are relative to, and the endings it takes.
LISTS = {
    Path("ForgettableSegLib/FileList.cmake"): ("FORGETTABLESEG_LIBRARY_FILES", "ForgettableSegLib", ".", (".py",)),
    Path("ForgettableSeg/FileList.cmake"): ("MODULE_PYTHON_SCRIPTS", "ForgettableSeg", "ForgettableSeg", (".py",)),
    Path("Resources/FileList.cmake"): ("FORGETTABLESEG_RESOURCE_FILES", "Resources", ".", ()),
}


def present(folder: str, endings: Sequence[str]) -> list[Path]:
    """Files of a folder that git tracks or would track and that are to be shipped, relative to the project."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", folder]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [Path(name) for name in output.split("\0") if name]
    return sorted(
        file
        for file in set(files)
        if (ROOT / file).is_file()
        and file.name not in NOT_SHIPPED
        and "Screenshots" not in file.parts
        and (not endings or file.suffix in endings)
    )


def text(variable: str, folder: str, base: str, endings: Sequence[str]) -> str:
    """The list as CMake reads it."""
    names = [file.relative_to(base).as_posix() for file in present(folder, endings)]
    body = "\n".join(f"  {name}" for name in names)
    return f"# Made by Testing/make_file_lists.py\nset({variable}\n{body}\n  )\n"


def main() -> int:
    """Write the lists that differ; returns how many did."""
    changed = 0
    for path, arguments in LISTS.items():
        new = text(*arguments)
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != new:
            (ROOT / path).write_text(new, encoding="utf-8")
            sys.stdout.write(f"{path} written\n")
            changed += 1
    return changed


if __name__ == "__main__":
    main()
