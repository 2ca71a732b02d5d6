"""What a run is asked to do: as the panel shows it, as the algorithm takes it, and as it is kept with past runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rs4d_qgis.dock.zone import Zone


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run.

    Attributes:
        layer_id, layer_name, layer_source, layer_provider: the raster layer; its source finds it again in another
            project.
        zone: where to look.
        model: path of the model file; None is the one that comes with the engine.
        classes: names of those to look for; None is all.
        score: the least, for every class; None is the model's own for each class.
        resolution_m: metres a pixel that the model sees; None is what suits layer and model.
        regularize: give right angles to outlines that nearly have them.
    """

    layer_id: str
    layer_name: str
    layer_source: str
    layer_provider: str
    zone: Zone
    model: str | None = None
    classes: tuple[str, ...] | None = None
    score: float | None = None
    resolution_m: float | None = None
    regularize: bool = False

    def to_json(self) -> dict:
        """As plain lists, numbers and strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict) -> RunSettings:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        plain = dict(fields)
        zone = Zone.from_json(plain.pop("zone"))
        classes = plain.pop("classes", None)
        return cls(zone=zone, classes=None if classes is None else tuple(map(str, classes)), **plain)
