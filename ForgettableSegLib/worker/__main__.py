"""``python -m ForgettableSegLib.worker`` starts the worker."""

from __future__ import annotations

from ForgettableSegLib.worker.process import main

if __name__ == "__main__":
    main()
