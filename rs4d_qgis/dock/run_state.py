"""The states of a run, and what the panel says in each. Pure: no widget, no layer, no engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from rs4d_qgis.translation import tr
from rs4d_qgis.words import count, duration


class Phase(Enum):
    """How far a run has come."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class RunState:
    """A run, as its user sees it. Each method gives the state after an event.

    Attributes:
        phase: how far it is.
        fraction: of the work, 0..1.
        doing: what the engine says it is doing.
        windows_done, windows: None until the engine has planned them.
        found: instances so far.
        seconds_left: as the engine estimates it.
        reason: why it failed.
        kept: for a run that has ended, where its instances are; None where there are none.
    """

    phase: Phase = Phase.IDLE
    fraction: float = 0.0
    doing: str = ""
    windows_done: int | None = None
    windows: int | None = None
    found: int = 0
    seconds_left: float | None = None
    reason: str = ""
    kept: str | None = None

    @property
    def busy(self) -> bool:
        """A run is on."""
        return self.phase in (Phase.RUNNING, Phase.CANCELLING)

    def started(self) -> RunState:
        """A new run begins."""
        return RunState(Phase.RUNNING, doing=tr("Starting"))

    def progressed(self, told: dict) -> RunState:
        """The engine told how far it is. What comes after the run's end, or after Cancel, no longer matters."""
        if self.phase is not Phase.RUNNING:
            return self
        return replace(
            self,
            # The bar never goes back, whatever step of the work is counted.
            fraction=max(self.fraction, min(1.0, float(told.get("fraction") or 0.0))),
            doing=str(told.get("message") or self.doing),
            windows_done=told.get("windows_done", self.windows_done),
            windows=told.get("windows", self.windows),
            seconds_left=told.get("seconds_left"),
        )

    def more_found(self, instances: int) -> RunState:
        """So many more instances arrived."""
        return replace(self, found=self.found + instances)

    def cancel_asked(self) -> RunState:
        """The user wants it to stop."""
        return replace(self, phase=Phase.CANCELLING) if self.phase is Phase.RUNNING else self

    def ended(self, ok: bool, found: int, kept: str | None, reason: str = "") -> RunState:
        """The run is over. One that was cancelled is not a failure, whatever it said on its way out."""
        phase = Phase.DONE if ok else Phase.CANCELLED if self.phase is Phase.CANCELLING else Phase.FAILED
        return replace(self, phase=phase, found=found, kept=kept, reason=reason, seconds_left=None)

    def line(self) -> str:
        """What to say now, in one line; empty before the first run."""
        return {
            Phase.IDLE: lambda: "",
            Phase.RUNNING: self._running,
            Phase.CANCELLING: lambda: tr("Cancelling. What was found is kept."),
            Phase.DONE: self._done,
            Phase.CANCELLED: lambda: tr("Cancelled. {}").format(self._kept()),
            Phase.FAILED: self._failed,
        }[self.phase]()

    def _running(self) -> str:
        if self.windows is None or self.windows_done is None:
            return self.doing
        parts = [
            tr("{} of {}").format(self.windows_done, count(self.windows, tr("window"), tr("windows"))),
            tr("{} found").format(self.found),
        ]
        if self.seconds_left is not None and self.windows_done < self.windows:
            parts.append(tr("about {} left").format(duration(self.seconds_left)))
        return ", ".join(parts)

    def _done(self) -> str:
        if not self.found:
            return tr("Nothing was found.")
        return tr("{} found.").format(count(self.found, tr("instance"), tr("instances")))

    def _failed(self) -> str:
        # The algorithm may have said already where its instances are.
        return self.reason if self.kept and self.kept in self.reason else f"{self.reason} {self._kept()}"

    def _kept(self) -> str:
        if not self.found or self.kept is None:
            return tr("Nothing was found until then.")
        return tr("The {} found until then are kept.").format(count(self.found, tr("instance"), tr("instances")))
