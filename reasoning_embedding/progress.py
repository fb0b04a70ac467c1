"""Progress of long work in lines, a few a minute at most."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Takes a line at a time.
Report = Callable[[str], None]
#: Seconds between two lines of the same work.
INTERVAL = 10.0


class Throttle:
    """Whether it is time for another line.

    Parameters
    ----------
    interval : float
        Seconds between two.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self.started = self._last = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the last line, or since the start."""
        return time.monotonic() - self._last

    def is_due(self, *, last: bool = False) -> bool:
        """Return whether `interval` seconds have passed or the work ends, and if so begin the next interval."""
        if not last and self.elapsed < self._interval:
            return False
        self._last = time.monotonic()
        return True


class Countdown:
    """Lines with what is done and the time left.

    Parameters
    ----------
    report : callable
        Takes lines.
    what : str
        What is counted, such as ``rows``.
    done : int
        How many an earlier process did.
    """

    def __init__(self, report: Report, what: str, *, done: int = 0) -> None:
        self._report, self._what, self._first = report, what, done
        self._throttle = Throttle()

    def __call__(self, done: int, total: int) -> None:
        """Say how far it is, if it is time to."""
        if not self._throttle.is_due(last=done >= total):
            return
        left = seconds_left(time.monotonic() - self._throttle.started, done - self._first, total - done)
        rest = "" if done >= total else f", {duration(left)} left"
        self._report(f"{self._what}: {done:,} of {total:,}{rest}")


def seconds_left(elapsed: float, done: int, left: int) -> float:
    """Seconds that `left` more of something will take, after `done` took `elapsed`."""
    return left * elapsed / max(done, 1)


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
