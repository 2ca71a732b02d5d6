"""The runs that were made, kept in the user's settings so that they can be reopened."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from rs4d_qgis import settings
from rs4d_qgis.dock.run_settings import RunSettings

_NAME = "past_runs"
MOST = 20


@dataclass(frozen=True)
class PastRun:
    """A run that has ended.

    Attributes:
        time: when it began, ISO 8601, local.
        model_name: of the model it was made with.
        found: instances.
        complete: it was neither cancelled nor broken.
        output: the file of its result; None where it found nothing.
        settings: that it was made with; the zone is the place that was looked at.
    """

    time: str
    model_name: str
    found: int
    complete: bool
    output: str | None
    settings: RunSettings


def past_runs() -> list[PastRun]:
    """The latest first. What another version of the plugin has left and cannot be read is left out."""
    kept = settings.last(_NAME, [])
    return [run for run in map(_from_json, kept if isinstance(kept, list) else []) if run is not None]


def remember(run: PastRun) -> None:
    """Keep one more; the oldest beyond `MOST` goes."""
    settings.set_last(_NAME, [asdict(past) for past in [run, *past_runs()][:MOST]])


def _from_json(fields: object) -> PastRun | None:
    try:
        plain = dict(fields)
        datetime.fromisoformat(plain["time"])
        return PastRun(settings=RunSettings.from_json(plain.pop("settings")), **plain)
    except (KeyError, TypeError, ValueError):
        return None
