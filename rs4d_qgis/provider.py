"""The algorithms of RS4D in QGIS's Processing toolbox."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider

from rs4d_qgis.bundled import icon, plugin_version


class RS4DProvider(QgsProcessingProvider):
    """Holds what `rs4d_qgis.algorithms` lists. Algorithms themselves refuse to run where there is no engine."""

    def id(self) -> str:
        """Of the provider, as in `rs4d:segment`."""
        return "rs4d"

    def name(self) -> str:
        """In the toolbox."""
        return "RS4D"

    def longName(self) -> str:
        """In the settings and the history."""
        return f"RS4D {plugin_version()}: instance polygons from images"

    def versionInfo(self) -> str:
        """Of the plugin."""
        return plugin_version()

    def icon(self):
        """Of the provider."""
        return icon()

    def loadAlgorithms(self) -> None:
        """Called by QGIS."""
        from rs4d_qgis.algorithms import ALGORITHMS

        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())
