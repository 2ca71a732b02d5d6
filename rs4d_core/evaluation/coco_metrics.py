"""COCO average precision of predicted instances, by pycocotools."""

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.errors import OptionError
from rs4d_core.evaluation.paste import paste_mask
from rs4d_core.evaluation.score_curve import cuts
from rs4d_core.models.instances import Instances

MASK_THRESHOLD = 0.5
MOST_DETECTIONS = 100
"""Detections counted in an image and class, best first: COCO's own number, so that figures compare. Other data sets of
aerial images are denser than COCO: see `CocoMetrics.box_unlimited`."""
_SIZES = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision, each 0..1; None where there is no instance to find.

    Attributes:
        ap: mean over IoU 0.50 to 0.95.
        ap50, ap75: at one IoU.
        small, medium, large: `ap` of instances under 32 x 32 px, under 96 x 96 px, and larger (area of the outline).
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None


@dataclass(frozen=True)
class ClassMetrics:
    """One class.

    Attributes:
        instances: how many there are to find, without crowd regions.
        best_score: the score threshold at which F1 is largest, at IoU 0.5, of masks (of boxes where no mask is known),
            with every detection counted, in images where the class is not doubtful; None where nothing was found.
    """

    instances: int
    box_ap: float | None
    box_ap50: float | None
    box_ap75: float | None
    mask_ap: float | None
    mask_ap50: float | None
    mask_ap75: float | None
    best_score: float | None


@dataclass(frozen=True)
class CocoMetrics:
    """Box and mask precision over all classes (mean over those with instances), and class by class.

    Attributes:
        most_instances: of one class in one image, without crowd regions.
        box_unlimited, mask_unlimited: `box` and `mask` with every detection counted, where `most_instances` is more
            than COCO counts detections: of 150 houses, its own figures can know 100. None elsewhere.
    """

    images: int
    most_instances: int
    box: AveragePrecision
    mask: AveragePrecision
    box_unlimited: AveragePrecision | None
    mask_unlimited: AveragePrecision | None
    by_class: dict[str, ClassMetrics]

    def to_json(self) -> dict[str, Any]:
        """Nested dicts of numbers and None."""
        return asdict(self)


@dataclass(frozen=True)
class ImageResult:
    """How the instances of one image compare with its truth at IoU 0.5: of masks, or of boxes where no mask is known.

    Attributes:
        right, wrong: indices of the instances that are counted, by whether they are a true one.
        found, missed: indices of the sample's annotations, without what is to be ignored.
    """

    right: tuple[int, ...]
    wrong: tuple[int, ...]
    found: tuple[int, ...]
    missed: tuple[int, ...]

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where there was nothing to find and nothing was found."""
        total = 2 * len(self.right) + len(self.wrong) + len(self.missed)
        return 2 * len(self.right) / total if total else None


def measure(predictions: Sequence[Instances], samples: Sequence[Sample], classes: Sequence[str]) -> CocoMetrics:
    """The figures of a `Comparison`, which see."""
    return Comparison(predictions, samples, classes).metrics


class Comparison:
    """Predictions compared with the truth, image by image.

    - A class counts only in images whose data set labels it: elsewhere its detections are neither right nor wrong.
    - Detections inside a crowd region are not punished.
    - An instance known by its box only counts for box precision. For mask precision its box is a region to ignore.

    Args:
        predictions: one for each sample, in pixels of the sample's image.
        samples: with labels that are indices into `classes`.

    Raises:
        OptionError: the numbers of predictions and samples differ.
    """

    def __init__(self, predictions: Sequence[Instances], samples: Sequence[Sample], classes: Sequence[str]) -> None:
        if len(predictions) != len(samples):
            raise OptionError(f"{len(predictions)} predictions for {len(samples)} images: give one for each")
        self._samples, self._classes = samples, classes
        images = [{"id": i, "width": s.width, "height": s.height} for i, s in enumerate(samples, 1)]
        categories = [{"id": label, "name": name} for label, name in enumerate(classes, 1)]
        self._truth = [
            {**_truth(i, sample, annotation), "place": place}
            for i, sample in enumerate(samples, 1)
            for place, annotation in enumerate(sample.annotations)
        ]
        self._detections = [
            detection
            for i, (instances, sample) in enumerate(zip(predictions, samples, strict=True), 1)
            for detection in _detections(i, sample, instances)
        ]
        for number, entry in enumerate(self._truth, 1):
            entry["id"] = number
        for_masks = [{**entry, "iscrowd": int(entry["iscrowd"] or entry["box_only"])} for entry in self._truth]
        self._box = _Evaluated("bbox", images, categories, self._truth, self._detections)
        self._mask = _Evaluated("segm", images, categories, for_masks, self._detections)

    @property
    def metrics(self) -> CocoMetrics:
        """Box and mask precision over all classes, and class by class."""
        box, mask = self._box, self._mask
        wanted = [(entry["image_id"], entry["category_id"]) for entry in self._truth if not entry["iscrowd"]]
        most = max(Counter(wanted).values(), default=0)
        dense = most > MOST_DETECTIONS
        return CocoMetrics(
            images=len(self._samples),
            most_instances=most,
            box=box.overall(),
            mask=mask.overall(),
            box_unlimited=box.overall(unlimited=True) if dense else None,
            mask_unlimited=mask.overall(unlimited=True) if dense else None,
            by_class={
                name: ClassMetrics(
                    instances=sum(category == k + 1 for _, category in wanted),
                    box_ap=box.precision(label=k),
                    box_ap50=box.precision(label=k, iou=0.5),
                    box_ap75=box.precision(label=k, iou=0.75),
                    mask_ap=mask.precision(label=k),
                    mask_ap50=mask.precision(label=k, iou=0.5),
                    mask_ap75=mask.precision(label=k, iou=0.75),
                    best_score=(box if mask.precision(label=k) is None else mask).best_score(k, self._sure(k)),
                )
                for k, name in enumerate(self._classes)
            },
        )

    def _sure(self, label: int) -> set[int]:
        """The ids of the images in which the label is not doubtful."""
        return {number for number, sample in enumerate(self._samples, 1) if label not in sample.doubtful}

    def curves(self, kind: Literal["box", "mask"]) -> dict[str, np.ndarray]:
        """Precision `(101,)` at the recalls 0, 0.01, ... 1 and IoU 0.5, for each class with instances to find."""
        evaluated = self._box if kind == "box" else self._mask
        found = {name: evaluated.curve(label) for label, name in enumerate(self._classes)}
        return {name: curve for name, curve in found.items() if curve is not None}

    def by_image(self, least_scores: Sequence[float]) -> list[ImageResult]:
        """What is right, wrong and missed in each image, of instances with their class's least score or more."""
        evaluated = self._mask if self._mask.precision() is not None else self._box
        lists: list[tuple[list[int], ...]] = [([], [], [], []) for _ in self._samples]
        tables = (self._detections, self._detections, self._truth, self._truth)
        for image_id, matches in evaluated.matches(least_scores):
            for collected, table, ids in zip(lists[image_id - 1], tables, matches, strict=True):
                collected += [table[number - 1]["place"] for number in ids]
        return [ImageResult(*map(tuple, entry)) for entry in lists]


def _truth(image_id: int, sample: Sample, annotation: Annotation) -> dict[str, Any]:
    rle = _run_lengths(sample, annotation)
    x0, y0, x1, y1 = annotation.box_xyxy
    return {
        "image_id": image_id,
        "category_id": annotation.label + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": rle,
        "area": float(mask_utils.area(rle)),
        "iscrowd": int(annotation.crowd),
        "box_only": not annotation.has_outline,
    }


def _run_lengths(sample: Sample, annotation: Annotation) -> dict[str, Any]:
    if annotation.rle is not None:
        return annotation.rle
    if annotation.polygons is not None:
        rings = [ring.ravel().tolist() for ring in annotation.polygons]
    else:
        x0, y0, x1, y1 = annotation.box_xyxy
        rings = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    return mask_utils.merge(mask_utils.frPyObjects(rings, sample.height, sample.width))


def _detections(image_id: int, sample: Sample, instances: Instances) -> list[dict[str, Any]]:
    detections = []
    rows = zip(
        instances.boxes_xyxy.tolist(),
        instances.scores.tolist(),
        instances.labels.tolist(),
        instances.masks,
        strict=True,
    )
    for place, ((x0, y0, x1, y1), score, label, patch) in enumerate(rows):
        if sample.annotated[label]:
            pasted = paste_mask(patch, sample.width, sample.height) >= MASK_THRESHOLD
            detections.append(
                {
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": mask_utils.encode(np.asfortranarray(pasted)),
                    "score": score,
                    "place": place,
                }
            )
    return detections


class _Evaluated:
    """pycocotools' accumulated tables for one kind of IoU."""

    def __init__(self, kind: str, images: list, categories: list, truth: list, found: list) -> None:
        # pycocotools prints its progress, and has no way to be told not to.
        with contextlib.redirect_stdout(io.StringIO()):
            reference = COCO()
            reference.dataset = {"images": images, "categories": categories, "annotations": truth}
            reference.createIndex()
            result = COCO()
            # Not loadRes(): for boxes it overwrites the outline with the box, for outlines the box, in place.
            areas = [
                float(mask_utils.area(d["segmentation"])) if kind == "segm" else d["bbox"][2] * d["bbox"][3]
                for d in found
            ]
            result.dataset = {
                "images": images,
                "categories": categories,
                "annotations": [
                    {**detection, "id": number, "area": area, "iscrowd": 0}
                    for number, (detection, area) in enumerate(zip(found, areas, strict=True), 1)
                ],
            }
            result.createIndex()
            run = COCOeval(reference, result, kind)
            found_of = Counter((detection["image_id"], detection["category_id"]) for detection in found)
            run.params.maxDets = [MOST_DETECTIONS, max([MOST_DETECTIONS, *found_of.values()])]
            run.evaluate()
            run.accumulate()
        self._run = run
        self._ious = run.params.iouThrs
        # (IoU, recall, class), and with the size at place 3 for precision; -1 where there is nothing to find.
        self._precision, self._unlimited = run.eval["precision"][..., 0], run.eval["precision"][..., 1]

    def overall(self, unlimited: bool = False) -> AveragePrecision:
        return AveragePrecision(
            ap=self.precision(unlimited=unlimited),
            ap50=self.precision(iou=0.5, unlimited=unlimited),
            ap75=self.precision(iou=0.75, unlimited=unlimited),
            small=self.precision(size="small", unlimited=unlimited),
            medium=self.precision(size="medium", unlimited=unlimited),
            large=self.precision(size="large", unlimited=unlimited),
        )

    def precision(
        self, label: int | None = None, iou: float | None = None, size: str = "all", unlimited: bool = False
    ) -> float | None:
        """Mean of the table's cells that are known. `unlimited`: of every detection, not of COCO's 100."""
        table = (self._unlimited if unlimited else self._precision)[..., _SIZES.index(size)]
        if iou is not None:
            table = table[np.isclose(self._ious, iou)]
        if label is not None:
            table = table[:, :, label]
        known = table[table > -1]
        return float(known.mean()) if known.size else None

    def curve(self, label: int) -> np.ndarray | None:
        """Precision `(101,)` by recall at IoU 0.5; None where there is nothing to find."""
        curve = self._precision[0, :, label, 0]
        return curve if (curve > -1).all() else None

    def matches(
        self, least_scores: Sequence[float]
    ) -> Iterator[tuple[int, list[int], list[int], list[int], list[int]]]:
        """For images and classes with anything in them: the image's id; ids of right and of wrong detections, of found
        and of missed truths, at IoU 0.5.

        Detections are matched best first: what a lower score would have matched changes nothing above it.
        """
        for entry in self._of_all_sizes():
            counted = np.array(entry["dtScores"]) >= least_scores[entry["category_id"] - 1]
            counted &= ~entry["dtIgnore"][0].astype(bool)
            matched = entry["dtMatches"][0].astype(int)
            ids = np.array(entry["dtIds"], dtype=int)
            found = {int(number) for number in matched[counted & (matched > 0)]}
            wanted = [number for number, ignored in zip(entry["gtIds"], entry["gtIgnore"], strict=True) if not ignored]
            right, wrong = (ids[counted & side].tolist() for side in (matched > 0, matched == 0))
            missed = [number for number in wanted if number not in found]
            yield entry["image_id"], (right, wrong, sorted(found), missed)

    def best_score(self, label: int, image_ids: set[int]) -> float | None:
        """The least score to count, of the detections in these images, for the largest F1 at IoU 0.5."""
        wanted, scores, right = 0, [], []
        for entry in self._of_all_sizes():
            if entry["category_id"] == label + 1 and entry["image_id"] in image_ids:
                counted = ~entry["dtIgnore"][0].astype(bool)
                scores += np.array(entry["dtScores"])[counted].tolist()
                right += (entry["dtMatches"][0][counted] > 0).tolist()
                wanted += int(np.sum(entry["gtIgnore"] == 0))
        if not any(right):
            return None
        ranked = np.argsort(-np.array(scores))
        falling = np.array(scores)[ranked]
        ends, found = cuts(falling, np.array(right)[ranked])
        f1 = 2 * found / (ends + 1 + wanted)  # detections up to the cut, and instances
        return float(falling[ends[f1.argmax()]])

    def _of_all_sizes(self) -> Iterator[dict[str, Any]]:
        """What `evaluate` noted of each image and class that has anything in it."""
        for entry in self._run.evalImgs:
            if entry is not None and entry["aRng"] == self._run.params.areaRng[0]:
                yield entry
