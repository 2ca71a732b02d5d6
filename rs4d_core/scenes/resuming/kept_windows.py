"""The windows of a run that may have been broken off before: those found then, and the rest."""

from collections.abc import Callable, Iterator
from contextlib import closing

from rs4d_core.scenes.reading.files import SceneFiles
from rs4d_core.scenes.resuming.journal import WindowStore
from rs4d_core.scenes.windows.detections import WindowDetections, WindowSource


class KeptWindows:
    """All windows of a plan in their order: those in the store, and from the source those that are missing.

    What the source gives is put into the store, a few seconds' worth at a time, once it is sure that the scene's files
    were not changed while it was read.

    Args:
        store: None where none can be kept.
        classes: how many the model knows.
        cancelled: ends the iteration, also while it gives what was found before.

    Attributes:
        replayed: how many windows came from the store so far.
        interrupted: the iteration ended because it was cancelled.
    """

    def __init__(
        self,
        source: WindowSource,
        store: WindowStore | None,
        classes: int,
        files: SceneFiles,
        cancelled: Callable[[], bool],
    ) -> None:
        self.replayed = 0
        self.interrupted = False
        self._source = source
        self._store = store
        self._classes = classes
        self._files = files
        self._cancelled = cancelled

    def run(self, count: int) -> Iterator[WindowDetections]:
        """The windows 0 to `count - 1`.

        Raises:
            SceneChangedError: the scene's files were changed. What was found since the last look is given up.
            OutputError: what was found cannot be kept.
            OptionError, SceneError: as from the source.
        """
        with closing(self._source.run(index for index in range(count) if not self._holds(index))) as found:
            for index in range(count):
                if self._holds(index):
                    if self._cancelled():
                        self.interrupted = True
                        return
                    self.replayed += 1
                    yield self._store.load(index, self._classes)
                    continue
                window = next(found, None)
                if window is None:
                    self.interrupted = True
                    return
                self._keep(window)
                yield window

    def settle(self) -> None:
        """See that all is safe and the scene unchanged: before the result is written. Raises as `run`."""
        try:
            self._files.check()
        except BaseException:
            if self._store is not None:
                self._store.give_up()
            raise
        if self._store is not None:
            self._store.commit()

    def _holds(self, index: int) -> bool:
        return self._store is not None and self._store.holds(index)

    def _keep(self, window: WindowDetections) -> None:
        if self._store is None:
            self._files.check_now_and_then()
            return
        if not window.not_read:  # what could not be read is to be tried again
            self._store.keep(window)
        if self._store.due:
            self.settle()
