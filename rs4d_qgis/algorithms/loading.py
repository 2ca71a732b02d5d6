"""What happens to a result when QGIS loads it."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsMapLayer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsVectorLayer,
)

from rs4d_qgis.layers.results import add_to_group, set_provenance, style_result

# QGIS does not own them, and the algorithm may be gone before its layers are loaded.
_waiting: set[ResultLoader] = set()


class ResultLoader(QgsProcessingLayerPostProcessorInterface):
    """Gives a loaded result its look, its provenance and its group.

    Args:
        colors: one "#rrggbb" a class.
        record: of the run; None for what no run has made.
        group: of the layer tree; None for none.
    """

    def __init__(self, colors: dict[str, str], record: dict[str, Any] | None, group: str | None) -> None:
        super().__init__()
        self._colors, self._record, self.group = colors, record, group

    def postProcessLayer(self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback):
        """On the main thread, called by QGIS."""
        _waiting.discard(self)
        if not isinstance(layer, QgsVectorLayer):
            return
        if self._record:
            set_provenance(layer, self._record)
        style_result(layer, self._colors)
        # Newer versions put it there themselves, later.
        if self.group and not hasattr(QgsProcessingContext.LayerDetails, "groupName"):
            add_to_group(layer, self.group)


def load_later(context: QgsProcessingContext, destination: str, loader: ResultLoader) -> None:
    """Has `loader` called if and when QGIS loads the layer at `destination`."""
    if not context.willLoadLayerOnCompletion(destination):
        return
    details = context.layerToLoadOnCompletionDetails(destination)
    details.setPostProcessor(loader)
    if loader.group and hasattr(details, "groupName"):
        details.groupName = loader.group
    _waiting.add(loader)
