"""Asking the engine about layers that it gets as temporary files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsTask

from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.engine.errors import RequestFailed


def ask_engine(task: QgsTask, method: str, params: dict[str, Any], names: Mapping[Path, str]) -> dict[str, Any]:
    """The engine's answer to the request of a task, whose progress it tells. On a thread of the background.

    Args:
        names: of temporary files, what the user calls them: in the notes and in errors.

    Raises:
        EngineError: with the engine's own words.
    """

    def on_notification(kind: str, told: dict[str, Any]) -> None:
        if kind == "progress":
            task.setProgress(100.0 * told["fraction"])

    given = {name: value for name, value in params.items() if value is not None}
    try:
        answer = engine_client().request(method, given, on_notification, task.isCanceled)
    except RequestFailed as error:
        raise RequestFailed(_renamed(str(error), names), error.code, error.kind) from error
    if "notes" in answer:
        answer["notes"] = [_renamed(note, names) for note in answer["notes"]]
    return answer


def _renamed(text: str, names: Mapping[Path, str]) -> str:
    for path, name in names.items():
        text = text.replace(str(path), f"“{name}”")
    return text
