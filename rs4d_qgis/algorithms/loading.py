"""What happens to a result when QGIS loads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qgis.core import (
    QgsMapLayer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsVectorLayer,
)

from rs4d_qgis.layers.results import add_to_group

# QGIS does not own them, and the algorithm may be gone before its layers are loaded.
_waiting: set[ResultLoader] = set()


class ResultLoader(QgsProcessingLayerPostProcessorInterface):
    """Gives a loaded result its look and its group.

    Args:
        dress: given the layer, on the main thread.
        group: of the layer tree; None for none.
    """

    def __init__(self, dress: Callable[[QgsVectorLayer], Any], group: str | None = None) -> None:
        super().__init__()
        self._dress, self.group = dress, group

    def postProcessLayer(self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback):
        """On the main thread, called by QGIS."""
        _waiting.discard(self)
        if not isinstance(layer, QgsVectorLayer):
            return
        self._dress(layer)
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
