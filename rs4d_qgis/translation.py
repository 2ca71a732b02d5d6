"""The language of the user."""

from qgis.PyQt.QtCore import QCoreApplication


def tr(text: str) -> str:
    """`text` in the user's language, where there is a translation."""
    return QCoreApplication.translate("RS4D", text)
