"""Going on with a run that was broken off: which one, and what to tell of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rs4d_core.errors import BusyError, CancelledError, OptionError, OutputError, RS4DError, SceneChangedError
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.prediction.predictor import Predictor
from rs4d_core.scenes.reading.files import SceneFiles
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.resuming.journal import Journal, JournalUnavailable, Unfinished, WindowStore
from rs4d_core.scenes.resuming.settings import difference, settings_of
from rs4d_core.scenes.writers import RunRecord
from rs4d_core.scenes.writers.replacement import remove_parts
from rs4d_core.wording import counted


class Resumption:
    """A run with its journal, if one can be kept. Made by `Resumption.of`; a context manager.

    Attributes:
        run: its id and start, those of the attempt that it goes on with.
        tiling: size and overlap of its windows, pixels; likewise.
        store: what holds its windows; None where no journal is kept.
        held: how many windows it held at first.
        seconds_before: that earlier attempts have taken.
        notes: what the user should know of it.
    """

    def __init__(
        self, tiling: tuple[int, int], journal: Journal | None, unfinished: Unfinished | None, notes: list[str]
    ) -> None:
        self.run = RunRecord.new_id() if unfinished is None else (unfinished.run, unfinished.time)
        self.tiling = tiling
        self.seconds_before = 0.0 if unfinished is None else unfinished.seconds
        self.notes = notes
        self.store: WindowStore | None = None if unfinished is None else journal.windows(unfinished)
        self.held = 0 if self.store is None else len(self.store)
        self._journal = journal
        self._unfinished = unfinished

    @classmethod
    def of(
        cls,
        output: Path | None,
        beside: Path | None,
        scene: Scene,
        files: SceneFiles,
        predictor: Predictor,
        options: SegmentOptions,
    ) -> "Resumption":
        """The run that these options make, from where it was broken off.

        Args:
            output: its journal lies beside it, and holds runs with other settings, too.
            beside: where a journal lies that holds nothing but the latest run, for one without an output; None for
                none.

        Raises:
            BusyError: another run is writing to the output.
            OutputError: the journal cannot be written.
        """
        if output is None and beside is None:
            return cls(options.tiling(predictor), None, None, [])
        try:
            journal = Journal.open(Path(output or beside))
        except (JournalUnavailable, BusyError) as error:
            if output is not None and isinstance(error, BusyError):
                raise
            note = f"should this run be broken off, it cannot go on: no journal can be kept ({error})"
            return cls(options.tiling(predictor), None, None, [note])
        try:
            for name in journal.parts():
                remove_parts(journal.folder, name)
            identity = (files.identity(), settings_of(scene, predictor, options))
            unfinished, notes = _choose(journal, *identity)
            if unfinished is None:
                if output is None:
                    notes = []
                    for run in journal.runs():
                        journal.drop(run)
                unfinished = journal.begin(*identity, *RunRecord.new_id(), *options.tiling(predictor))
            return cls((unfinished.window_px, unfinished.overlap_px), journal, unfinished, notes)
        except BaseException:
            journal.close()
            raise

    def note_part(self, temporary: str) -> None:
        """What the names of the temporary files begin with, which are to go should this process be killed."""
        if self.store is not None:
            self.store.note_part(temporary)

    def ended(self, interrupted: bool) -> None:
        """The output is written, safe on the disk."""
        if self._journal is None:
            return
        if interrupted:
            self.notes.append("the same run, started again, goes on from here")
        else:
            # On a disk that has become full: the windows stay, and would only give the same result again.
            with suppress(OutputError):
                self._journal.finish(self._unfinished)

    @contextmanager
    def hint(self, settle: Callable[[], None]) -> Iterator[None]:
        """Errors say how much is kept, where anything is. `settle`: sees that all that was found is safe."""
        try:
            yield
        except (RS4DError, MemoryError) as error:
            told = error
            if isinstance(error, MemoryError):
                told = OptionError("there is not enough memory: choose a smaller window, or end other programs")
            if self.store is not None and not isinstance(error, SceneChangedError | CancelledError):
                with suppress(RS4DError):
                    settle()
                self.store.give_up()
                if len(self.store):
                    kept = counted(len(self.store), "finished window")
                    told = type(told)(f"{told}; {kept} kept: run the same again, and it goes on from there")
            if told is error:
                raise
            raise told from error

    def __enter__(self) -> "Resumption":
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._journal is not None:
            self._journal.close()


def _choose(journal: Journal, scene: dict, settings: dict) -> tuple[Unfinished | None, list[str]]:
    """The run in the journal that has these settings, if there is one."""
    notes, found, others = [], None, []
    for run in journal.runs():
        if run.scene["path"] == scene["path"] and run.scene != scene:
            journal.drop(run)
            notes.append(
                f"{scene['path']} was changed since a run on it was broken off: what that had found is of no use any "
                "more, and this run begins anew"
            )
        elif run.scene == scene and run.settings == settings:
            found = found or run
        else:
            others.append(run)
    if found is not None:
        held = len(journal.windows(found))
        if held:
            notes.append(f"goes on with run {found.run}, which was broken off after {counted(held, 'window')}")
        return found, notes
    for run in others[:1]:
        what = difference(settings, run.settings) or f"{scene['path']} instead of {run.scene['path']}"
        notes.append(
            f"this run begins anew ({what}); the one that was broken off here before goes on when it is "
            "repeated with its own settings"
        )
    return None, notes
