"""How a job can end, as the exit code of the command line. Standard library only."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_SOME_CASES_FAILED = 1
EXIT_BAD_REQUEST = 2
EXIT_CANCELLED = 130
