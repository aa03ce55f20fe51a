"""Keeps standard output for events alone: whatever else writes there, in Python or in C, ends on standard error."""

from __future__ import annotations

import os
import sys
import threading


class EventStream:
    """Takes standard output away from everybody else and writes whole lines to it."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._lock = threading.Lock()

    def write_line(self, line: str) -> None:
        """Write one line, given with its end, that no other thread's line can cut.

        Raises:
            OSError: if nobody reads any more.
        """
        data = memoryview(line.encode("ascii"))
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]
