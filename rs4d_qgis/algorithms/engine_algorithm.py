"""What all algorithms of RS4D share: they ask the engine, and tell what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
)

from rs4d_qgis import bundled
from rs4d_qgis.algorithms.feedback import RunFeedback
from rs4d_qgis.compat import ADVANCED
from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.engine.errors import Cancelled, EngineError
from rs4d_qgis.engine.locate import missing_engine
from rs4d_qgis.translation import tr
from rs4d_qgis.words import duration

# Each text of progress becomes a line of the dialog's log.
_SECONDS_BETWEEN_TEXTS = 5.0


class EngineAlgorithm(QgsProcessingAlgorithm):
    """An algorithm whose work is done by the engine, in the background."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, str] = {}

    def createInstance(self) -> EngineAlgorithm:
        return type(self)()

    def group(self) -> str:
        return tr("Instance segmentation")

    def groupId(self) -> str:
        return "instancesegmentation"

    def icon(self):
        return bundled.icon()

    def canExecute(self) -> tuple[bool, str]:
        reason = missing_engine()
        return reason is None, reason or ""

    def add(self, parameter: QgsProcessingParameterDefinition, help_text: str, advanced: bool = False) -> None:
        """Declares a parameter with its help."""
        parameter.setHelp(help_text)
        if advanced:
            parameter.setFlags(parameter.flags() | ADVANCED)
        self.addParameter(parameter)

    def call_it(self, path: Path, name: str) -> None:
        """In what the engine says, a temporary file is called by the name of the layer that it was made of."""
        self._names[str(path)] = f"“{name}”"

    def tell(self, notes: list[str], feedback: QgsProcessingFeedback) -> list[str]:
        """Tells the engine's notes to the user, and returns them as told."""
        told = [self._in_users_words(note) for note in notes]
        for note in told:
            feedback.pushInfo(note)
        return told

    def ask(
        self,
        method: str,
        params: dict[str, Any],
        feedback: QgsProcessingFeedback,
        on_instances: Callable[[dict[str, Any]], None] | None = None,
        done_before: float = 0.0,
    ) -> dict[str, Any] | None:
        """The engine's answer to a request; None where it was cancelled and there is nothing to keep.

        Args:
            method, params: of the engine's protocol. Those that are None are left out: the engine then chooses.
            on_instances: told the polygons of `segment`.
            done_before: the share of the algorithm's work, 0..1, that was done before this request.

        Raises:
            QgsProcessingException: with the engine's own words.
        """
        last_text = float("-inf")

        def on_notification(name: str, told: dict[str, Any]) -> None:
            nonlocal last_text
            if name == "instances" and on_instances:
                on_instances(told)
            elif name == "progress":
                told = {**told, "fraction": done_before + (1.0 - done_before) * told["fraction"]}
                feedback.setProgress(100.0 * told["fraction"])
                if isinstance(feedback, RunFeedback):
                    feedback.progressTold.emit(told)
                elif time.monotonic() > last_text + _SECONDS_BETWEEN_TEXTS:
                    last_text = time.monotonic()
                    feedback.setProgressText(_progress_text(told))

        given = {name: value for name, value in params.items() if value is not None}
        try:
            return engine_client().request(method, given, on_notification, feedback.isCanceled)
        except Cancelled:
            return None
        except EngineError as error:
            raise QgsProcessingException(self._in_users_words(str(error))) from error

    def _in_users_words(self, text: str) -> str:
        for path, name in self._names.items():
            text = text.replace(path, name)
        return text


def _progress_text(told: dict[str, Any]) -> str:
    left = told.get("seconds_left")
    if not left:
        return told["message"]
    return tr("{}, about {} left").format(told["message"], duration(left))
