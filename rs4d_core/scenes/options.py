"""What to segment in a scene, and how."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from rs4d_core.errors import OptionError
from rs4d_core.scenes.reading.area import Area
from rs4d_core.scenes.reading.resolution import check_resolution
from rs4d_core.scenes.windows.largest import largest_window
from rs4d_core.scenes.windows.plan import check_tiling

if TYPE_CHECKING:
    from rs4d_core.models.card import ModelCard
    from rs4d_core.scenes.prediction.predictor import Predictor


@dataclass(frozen=True)
class SegmentOptions:
    """What to segment, and how; None leaves a choice to the scene or the model.

    Attributes:
        bands: three band numbers from 1, or one for all three.
        resolution_m: metres in a pixel of the model's grid.
        bbox, bbox_crs: west, south, east, north of the part to segment, and their CRS (by default the scene's).
        area: look only inside of it. Without a `bbox`, its extent is segmented.
        window_px, overlap_px: size and overlap of the windows. A size of "auto" is the largest that memory
            holds.
        score: least score, for all classes, 0..1.
        classes: names of the classes to keep.
        regularize: give right angles to outlines that nearly have them, save in classes of curved things.
    """

    bands: tuple[int, ...] | None = None
    resolution_m: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str | None = None
    area: Area | None = None
    window_px: int | Literal["auto"] | None = None
    overlap_px: int | None = None
    score: float | None = None
    classes: tuple[str, ...] | None = None
    regularize: bool = False

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 1:
            raise OptionError(f"least score {self.score:g}: it must lie between 0 and 1")
        check_resolution(self.resolution_m)
        check_tiling(None if self.window_px == "auto" else self.window_px, self.overlap_px)

    def tiling(self, predictor: "Predictor") -> tuple[int, int]:
        """Size and overlap of the windows, pixels. Windows smaller than the model's own overlap by half at most."""
        window_px = predictor.window_px if self.window_px is None else self.window_px
        if window_px == "auto":
            window_px = largest_window(predictor.bytes_a_pixel, predictor.window_px, predictor.device)
        overlap_px = min(predictor.overlap_px, window_px // 2) if self.overlap_px is None else self.overlap_px
        return window_px, overlap_px

    def check_classes(self, model: "ModelCard | Predictor") -> None:
        """Raises OptionError where the model does not know one of `classes`."""
        unknown = [name for name in self.classes or () if name not in model.classes]
        if unknown:
            raise OptionError(
                f"class {unknown[0]!r} is not known to model {model.name}: it finds {', '.join(model.classes)}"
            )

    def least_scores(self, predictor: "Predictor") -> np.ndarray:
        """The score that an instance of each class needs; infinite for classes that are not wanted.

        Raises:
            OptionError: the model does not know one of `classes`.
        """
        self.check_classes(predictor)
        known = predictor.classes
        scores = np.array(predictor.default_scores if self.score is None else [self.score] * len(known), dtype=float)
        if self.classes is not None:
            scores[[name not in self.classes for name in known]] = np.inf
        return scores
