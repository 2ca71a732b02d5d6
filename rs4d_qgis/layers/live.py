"""What a run has found so far, on the map while it goes on."""

from __future__ import annotations

from qgis.core import QgsCoordinateReferenceSystem, QgsFeature, QgsFields, QgsMapLayer, QgsVectorLayer

from rs4d_qgis.layers.results import add_to_group, style_result

_MARK = "rs4d/live"


def is_live(layer: QgsMapLayer) -> bool:
    """Whether a run fills this layer, and takes it away at its end."""
    return layer.customProperty(_MARK) == layer.id()


class LiveLayer:
    """A layer in memory that grows. All of it on the main thread.

    Attributes:
        layer: in the project, in the group of the run. It may have been removed by the user meanwhile: then None.
    """

    def __init__(
        self,
        name: str,
        group_name: str,
        fields: QgsFields,
        crs: QgsCoordinateReferenceSystem,
        colors: dict[str, str],
    ) -> None:
        layer = QgsVectorLayer("MultiPolygon", name, "memory")
        layer.setCrs(crs)
        layer.dataProvider().addAttributes(fields.toList())
        layer.updateFields()
        # It is replaced by the result: nobody needs to be asked whether to keep it.
        layer.setCustomProperty("skipMemoryLayersCheck", 1)
        layer.setCustomProperty(_MARK, layer.id())  # a copy, which takes this along, is the user's own
        style_result(layer, colors)
        self.layer: QgsVectorLayer | None = layer
        layer.willBeDeleted.connect(self._forget)
        add_to_group(layer, group_name)

    def add(self, features: list[QgsFeature]) -> None:
        """Shows more."""
        if self.layer is None:
            return
        self.layer.dataProvider().addFeatures([QgsFeature(feature) for feature in features])
        self.layer.updateExtents()
        self.layer.triggerRepaint()

    def _forget(self) -> None:
        self.layer = None
