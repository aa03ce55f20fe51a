"""Time as the length of a training: what of it is left for the steps, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What comes after the steps is estimated; so much of it is kept in reserve.
RESERVE = 1.15
# However long judging takes, so much of the time is for learning.
LEAST_SHARE = 0.3
# Validations may take this share of the time, and there are so many at most.
VALIDATION_SHARE, MOST_VALIDATIONS = 0.15, 10


@dataclass
class TimeBudget:
    """Seconds that the steps of a training and the validations between them may take.

    Args:
        seconds: in all, over all sittings.
        validations: how many there are between the first and the last step, the last one not counted.
        validation: seconds that one takes.
        afterwards: seconds for what follows the last step: its validation, calibration, judging, export.
    """

    seconds: float
    validations: int = MOST_VALIDATIONS - 1
    validation: float = 0.0
    afterwards: float = 0.0

    @classmethod
    def plan(cls, *, minutes: float, spent: float, validation: float, afterwards: float) -> TimeBudget:
        """What is left for the steps.

        Args:
            minutes: from the start of the job to the exported model.
            spent: seconds since the start of the job.
            validation, afterwards: as they are expected, see above.
        """
        left = max(60 * minutes - spent - RESERVE * afterwards, LEAST_SHARE * 60 * minutes)
        affordable = int(VALIDATION_SHARE * left / validation) if validation > 0 else MOST_VALIDATIONS
        return cls(left, max(0, min(MOST_VALIDATIONS, affordable) - 1), validation, afterwards)

    def correct(self, validation: float) -> None:
        """A validation took this long: what comes afterwards will take as much more or less than was expected."""
        if self.validation > 0:
            expected = 0.5 * self.afterwards * (1 + validation / self.validation)
            self.seconds = max(self.seconds - RESERVE * (expected - self.afterwards), LEAST_SHARE * self.seconds)
            self.validation, self.afterwards = 0.5 * (self.validation + validation), expected

    def done(self, elapsed: float) -> float:
        """Share of the time that has passed, from 0 to 1."""
        return min(1.0, elapsed / self.seconds)

    def validation_due(self, done: float, made: int) -> bool:
        """Whether the next validation is due; they are spread evenly over the time.

        Args:
            done: share of the time that has passed.
            made: validations so far.
        """
        return made < self.validations and done >= (made + 1) / (self.validations + 1)

    def expected_steps(self, step: int, elapsed: float, seconds_a_step: float) -> int:
        """How many steps there will be, as the speed of the last ones tells."""
        return step + max(0, round((self.seconds - elapsed) / seconds_a_step))


class Stopwatch:
    """Seconds at work: what a pause takes does not count.

    Args:
        elapsed: seconds of earlier sittings.
    """

    def __init__(self, elapsed: float = 0.0) -> None:
        self._started = time.monotonic() - elapsed

    def read(self) -> float:
        """Seconds at work so far."""
        return time.monotonic() - self._started

    def without(self, wait: Callable[[], Any]) -> None:
        """Call something whose time does not count."""
        before = time.monotonic()
        try:
            wait()
        finally:
            self._started += time.monotonic() - before
