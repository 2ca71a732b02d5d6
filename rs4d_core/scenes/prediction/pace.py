"""How fast a run goes."""


class Pace:
    """How long windows take, told by all but the first batch: that one waits for code to be compiled.

    Args:
        batch: so many windows are done at a time.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._done = 0
        self._first_s: float | None = None
        self._window_s: float | None = None

    def window_done(self, now_s: float) -> None:
        """One more is done, at this time."""
        self._done += 1
        # Windows of one batch come all at once: only whole batches tell something.
        if self._done % self._batch:
            return
        if self._first_s is None:
            self._first_s = now_s
        else:
            self._window_s = (now_s - self._first_s) / (self._done - self._batch)

    def seconds_left(self, windows: int) -> float | None:
        """What so many windows will take; None before the second batch is done, where there are windows left."""
        if windows == 0:
            return 0.0
        return None if self._window_s is None else self._window_s * windows
