"""The errors a user of the engine can meet.

Every message is one line that says what was wrong with which input, and what to do next. The command line prints it and
exits with 2; the classes also inherit the matching built-in, so that library users can catch either.
"""

from rs4d_core.wording import one_line

# A name from a file may be as long as the file.
LONGEST_MESSAGE = 2000


class RS4DError(Exception):
    """Base of all errors raised on purpose by the engine.

    As text it is one line that commands no terminal, whatever the names from files that it tells of hold.
    """

    def __str__(self) -> str:
        text = one_line(super().__str__())
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


class OptionError(RS4DError, ValueError):
    """An option or argument is out of range, or does not fit the other options."""


class SceneError(RS4DError, OSError):
    """A scene cannot be read, or cannot be read in the way that was asked for."""


class SceneChangedError(SceneError):
    """A scene's file was changed or replaced while it was read. Nothing that was found in it is written."""


class LayerError(RS4DError, OSError):
    """A vector layer cannot be read, or lacks what is needed of it."""


class CancelledError(RS4DError):
    """The work was given up because its caller asked for that. Nothing of it is left behind."""


class OutputError(RS4DError, OSError):
    """A result cannot be written. No partial file is left, and an existing file is intact."""


class BusyError(RS4DError, OSError):
    """Another process is at work on the same run or output. Nothing of it was touched."""


class ClusterError(RS4DError, OSError):
    """A Dask cluster does not answer, has no workers that can do the work, or loses them. What is finished is kept."""


class ModelFileError(RS4DError, OSError):
    """A model file is missing, truncated, foreign, or written by a newer version."""


class DatasetError(RS4DError, ValueError):
    """A data set's files contradict each other or break their format."""


class CheckpointError(RS4DError, OSError):
    """A checkpoint of a training run is damaged, or belongs to another model."""


class DivergedError(RS4DError, ArithmeticError):
    """The losses or gradients of a training run have become infinite or undefined, and stay so."""


class RunFailedError(RS4DError):
    """A training run that others wait for has failed, in a process of its own; what it said stands above."""


class RecipeError(RS4DError, ValueError):
    """A training recipe lacks a setting, has an unknown one, or gives one a value that cannot work."""


class DependencyError(RS4DError, ImportError):
    """An optional package is not installed, and what was asked for needs it."""
