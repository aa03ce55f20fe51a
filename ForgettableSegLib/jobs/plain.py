"""What a job hands over, as plain JSON. Standard library only, for Slicer imports it in its own process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def plain(value: Any) -> Any:
    """Return ``value`` as JSON carries it: paths as text, tuples and sets as lists, arrays as numbers, NaN as null."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if hasattr(value, "tolist"):  # NumPy and torch, without importing either
        return plain(value.tolist())
    msg = f"An event cannot carry a {type(value).__name__}."
    raise TypeError(msg)
