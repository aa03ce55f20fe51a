"""How long a phase of a job still takes, told from the speed of late so that it falls steadily."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

# The speed is that of the last so many seconds, and of so many reports at least where a step takes long.
WINDOW_S, LEAST_REPORTS = 30.0, 5
# A rise is shown once it has exceeded what speeds scatter (a share, and seconds) for so many seconds.
SCATTER, SCATTER_S, HOLD_S = 0.2, 1.0, 10.0


class Steady:
    """Shows a time left that falls at once, and rises only where the work has really become slower."""

    def __init__(self) -> None:
        self.shown: float | None = None
        self._above_since: float | None = None

    def show(self, left: float, now: float) -> float:
        """The seconds to show, for an estimate of `left` seconds at the time `now`."""
        if self.shown is None or left <= self.shown:
            self.shown, self._above_since = left, None
        elif left <= self.shown * (1 + SCATTER) + SCATTER_S:
            self._above_since = None
        elif self._above_since is None:
            self._above_since = now
        elif now - self._above_since >= HOLD_S:
            self.shown, self._above_since = left, None
        return self.shown


class Phase:
    """One phase of a job.

    Other phases may come in between, as validations do while training: they do not count as slow steps, but the steps
    that are left are taken to be interrupted as often as those before.

    Args:
        step: how much is done already.
        now: seconds.
    """

    def __init__(self, step: float, now: float) -> None:
        self.first_step = step
        self.last_sent = float("-inf")
        self._started = now
        self._between = 0.0
        self._away: tuple[float, float] | None = None
        self._reports: deque[tuple[float, float]] = deque([(now, step)])
        self._steady = Steady()

    @property
    def left(self) -> float | None:
        """Seconds left as last shown; None before the first step is done."""
        return self._steady.shown

    def interrupted(self, now: float) -> None:
        """Another phase is at work at this time."""
        self._away = (self._away[0] if self._away else now, now)

    def seconds_a_step(self) -> float | None:
        """Seconds of work of a step on average; None before the first is done."""
        (now, step) = self._reports[-1]
        return (now - self._started) / (step - self.first_step) if step > self.first_step else None

    def report(self, step: float, of: float, now: float) -> float | None:
        """Seconds left in the phase, interruptions included; None before the first step is done.

        Args:
            step, of: how much is done, and how much there is.
            now: seconds.
        """
        if self._away:
            self._between += self._away[1] - self._away[0]
            self._away = None
        worked = now - self._between
        self._reports.append((worked, step))
        while len(self._reports) > LEAST_REPORTS and self._reports[1][0] <= worked - WINDOW_S:
            self._reports.popleft()
        before, first = self._reports[0]
        if step > first:
            whole = (now - self._started) / (worked - self._started) if worked > self._started else 1.0
            self._steady.show((worked - before) / (step - first) * (of - step) * whole, now)
        return self.left


class Outlook:
    """What a job will still do when the phase at work is done, in steps of a phase whose speed is known by then.

    Args:
        phases: (name, its length in steps of `like`) in order; that of the first does not matter.
        like: a phase.
    """

    def __init__(self, phases: Sequence[tuple[str, float]], *, like: str) -> None:
        self.like = like
        self.seconds_a_step: float | None = None
        self._phases = list(phases)
        self._at = -1
        self._steady = Steady()

    @property
    def current(self) -> str:
        """The last of its phases that has begun."""
        return self._phases[self._at][0] if self._at >= 0 else ""

    def begin(self, phase: str) -> None:
        """A phase is at work, one of these or another."""
        names = [name for name, _ in self._phases]
        if phase in names:
            self._at = names.index(phase)

    def left(self, current: Phase | None, now: float) -> float | None:
        """Seconds left in the job; None while it cannot be told.

        Args:
            current: the last of its phases that has begun.
            now: seconds.
        """
        following = sum(steps for _, steps in self._phases[self._at + 1 :])
        if current is None or current.left is None or (following and self.seconds_a_step is None):
            return None
        return self._steady.show(current.left + following * (self.seconds_a_step or 0.0), now)
