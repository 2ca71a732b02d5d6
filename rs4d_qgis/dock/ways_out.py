"""What to try when a run has found nothing. Pure: settings in, settings out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.zone import WHOLE, Zone
from rs4d_qgis.translation import tr

# Below this a model's guesses are noise.
LEAST_SCORE = 0.05
# Resolutions closer than this are the same to a model.
_SAME = 1.15


@dataclass(frozen=True)
class WayOut:
    """Something that may find more: what to call it, and the settings to run with."""

    label: str
    settings: RunSettings


def ways_out(
    settings: RunSettings, card: dict, read_at_m: float | None, whole: Zone, other_models: dict[str, str]
) -> list[WayOut]:
    """What may help a run with these settings that found nothing, most promising first.

    Args:
        card: of the model.
        read_at_m: the resolution that the run had, metres a pixel; None where it is unknown.
        whole: all of the layer.
        other_models: names by their files.
    """
    ways = []
    if (score := lower_score(settings, card)) is not None:
        ways.append(WayOut(tr("Accept scores from {:.2f}").format(score), replace(settings, score=score)))
    if settings.classes is not None:
        ways.append(WayOut(tr("Look for all classes"), replace(settings, classes=None)))
    if (resolution := other_resolution(settings, card, read_at_m)) is not None:
        ways.append(WayOut(tr("Read at {:g} m").format(resolution), replace(settings, resolution_m=resolution)))
    for path, name in other_models.items():
        # Another model may know other classes.
        ways.append(WayOut(tr("Use model {}").format(name), replace(settings, model=path, classes=None)))
    if settings.zone.kind != WHOLE:
        ways.append(WayOut(tr("Search the whole layer"), replace(settings, zone=whole)))
    return ways


def lower_score(settings: RunSettings, card: dict) -> float | None:
    """About half of the lowest score that was accepted; None where that was next to nothing already."""
    own = dict(zip(card["config"]["classes"], card["default_scores"]))
    now = settings.score
    if now is None:
        now = min(score for name, score in own.items() if settings.classes is None or name in settings.classes)
    lower = max(LEAST_SCORE, round(now / 2, 2))
    return lower if lower < now else None


def other_resolution(settings: RunSettings, card: dict, read_at_m: float | None) -> float | None:
    """The end of the model's range that is farther from what was tried; None where resolutions mean nothing here."""
    if read_at_m is None:
        return None
    farthest = max(card["resolution_m"], key=lambda end: max(end / read_at_m, read_at_m / end))
    return float(farthest) if max(farthest / read_at_m, read_at_m / farthest) > _SAME else None
