"""The public data sets that the method is measured on: their layout as published, classes, splits, and whose they are.

None of them is downloaded: what a user has got from its source is found under the folder that they name.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from rs4d_core.datasets.coco_import import CocoPart
from rs4d_core.datasets.mask_import import MaskPart
from rs4d_core.errors import DatasetError

NWPU_CLASSES = (
    "airplane",
    "ship",
    "storage_tank",
    "baseball_diamond",
    "tennis_court",
    "basketball_court",
    "ground_track_field",
    "harbor",
    "bridge",
    "vehicle",
)


@dataclass(frozen=True)
class PublicDataset:
    """What is known of a public data set.

    Attributes:
        title: its full name.
        classes: in the order of its categories.
        images: how many each split has, as published.
        resolution_m: metres a pixel, smallest and largest.
        citation, licence: as its source states them.
    """

    title: str
    classes: tuple[str, ...]
    images: dict[str, int]
    resolution_m: tuple[float, float]
    citation: str
    licence: str


@dataclass(frozen=True)
class CocoDataset(PublicDataset):
    """One that comes as COCO files.

    Attributes:
        annotations: the file of each split: the names under which it is found, the published one first.
        folders: of the images: likewise.
    """

    annotations: dict[str, tuple[str, ...]]
    folders: tuple[str, ...]

    def parts(self, root: Path) -> tuple[CocoPart, ...]:
        """Its files under the folder `root`. Without a file for "val", the training images are to be split.

        Raises:
            DatasetError: they are not there.
        """
        files = {split: _first(root, names) for split, names in self.annotations.items()}
        images = _first(root, self.folders)
        if files["train"] is None or images is None:
            raise DatasetError(
                f"{root}: not laid out as {self.title}: there is no "
                f"{self.annotations['train'][0] if files['train'] is None else self.folders[0]}; give its root folder"
            )
        split = "train" if files["val"] is not None else None
        return tuple(
            CocoPart(file, images, split if name == "train" else name)
            for name, file in files.items()
            if file is not None
        )


@dataclass(frozen=True)
class MaskDataset(PublicDataset):
    """One that comes as folders of image tiles and mask tiles, `SPLIT/image` and `SPLIT/label`."""

    def parts(self, root: Path) -> tuple[MaskPart, ...]:
        """Its folders under the folder `root`.

        Raises:
            DatasetError: those to train on are not there.
        """
        parts = tuple(
            MaskPart(root / split / "image", root / split / "label", split)
            for split in self.images
            if os.path.isdir(root / split)
        )
        if not any(part.split == "train" for part in parts):
            raise DatasetError(f"{root}: not laid out as {self.title}: there is no train/image; give its root folder")
        return parts


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if os.path.exists(root / name)), None)


SSDD = CocoDataset(
    title="SSDD (SAR Ship Detection Dataset)",
    classes=("ship",),
    images={"train": 928, "val": 232},
    resolution_m=(1.0, 15.0),
    citation=(
        "T. Zhang et al., SAR Ship Detection Dataset (SSDD): Official Release and Comprehensive Data Analysis, "
        "Remote Sensing 13(18), 3690, 2021, doi:10.3390/rs13183690; "
        "outlines: H. Su et al., HQ-ISNet: High-Quality Instance Segmentation for Remote Sensing Imagery, "
        "Remote Sensing 12(6), 989, 2020, doi:10.3390/rs12060989 "
        "(github.com/chaozhong2010/VHR-10_dataset_coco)"
    ),
    licence="SSDD: annotations MIT, images for research",
    annotations={
        "train": ("annotations/SSDD_instances_train.json", "annotations/train.json"),
        "val": ("annotations/SSDD_instances_val.json", "annotations/val.json"),
    },
    folders=("imgs", "images"),
)

NWPU = CocoDataset(
    title="NWPU VHR-10",
    classes=NWPU_CLASSES,
    images={"train": 520, "val": 130},
    resolution_m=(0.08, 2.0),
    citation=(
        "G. Cheng, J. Han, P. Zhou, L. Guo, Multi-class geospatial object detection and geographic image "
        "classification based on collection of part detectors, ISPRS Journal of Photogrammetry and Remote "
        "Sensing 98, 119-132, 2014, doi:10.1016/j.isprsjprs.2014.10.002; "
        "outlines: H. Su et al., Object Detection and Instance Segmentation in Remote Sensing Imagery Based on Precise "
        "Mask R-CNN, IGARSS 2019, 1454-1457, doi:10.1109/IGARSS.2019.8898573 "
        "(github.com/chaozhong2010/VHR-10_dataset_coco)"
    ),
    licence="NWPU VHR-10: annotations MIT, images for research",
    annotations={
        "train": ("annotations/NWPU_instances_train.json", "annotations/train.json"),
        "val": ("annotations/NWPU_instances_val.json", "annotations/val.json"),
    },
    folders=("imgs", "positive image set", "images"),
)

WHU = MaskDataset(
    title="the WHU building data set (aerial tiles)",
    classes=("building",),
    images={"train": 4736, "val": 1036, "test": 2416},
    resolution_m=(0.3, 0.3),
    citation=(
        "S. Ji, S. Wei, M. Lu, Fully Convolutional Networks for Multisource Building Extraction From an Open Aerial "
        "and Satellite Imagery Data Set, IEEE Transactions on Geoscience and Remote Sensing 57(1), 574-586, 2019, "
        "doi:10.1109/TGRS.2018.2858817"
    ),
    licence="WHU building data set: free for research",
)

CATALOG = {"ssdd": SSDD, "nwpu": NWPU, "whu": WHU}
