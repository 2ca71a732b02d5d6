"""The QGIS plugin of RS4D: QGIS code only. What computes is the engine, a process of its own (see `engine/`)."""


def classFactory(iface):
    """What QGIS calls to load the plugin. `iface` is None in `qgis_process`."""
    from rs4d_qgis.plugin import RS4DPlugin

    return RS4DPlugin(iface)
