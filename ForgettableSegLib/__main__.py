"""``python -m ForgettableSegLib`` is the command ``forgettableseg``."""

from __future__ import annotations

import sys

from ForgettableSegLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
