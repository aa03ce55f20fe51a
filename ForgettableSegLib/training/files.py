"""Text files of a run folder that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def whole_text_file(path: Path) -> Iterator[TextIO]:
    """Write a text file aside (UTF-8, line ends as written) and put it in place when it is complete.

    Args:
        path: the file; what it held before stays until then.
    """
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        yield stream
    temporary.replace(path)
