"""The classes of the default model, and the public data sets that this project knows."""

from dataclasses import dataclass

# In the order of the default model's outputs; colours are those of its result layers.
DEFAULT_CLASSES: dict[str, str] = {
    "airplane": "#e6194b",
    "ship": "#4363d8",
    "storage_tank": "#f58231",
    "baseball_diamond": "#bfef45",
    "tennis_court": "#3cb44b",
    "basketball_court": "#9a6324",
    "ground_track_field": "#800000",
    "harbor": "#469990",
    "bridge": "#808000",
    "vehicle": "#f032e6",
    "building": "#ffe119",
}


@dataclass(frozen=True)
class CatalogEntry:
    """A public data set.

    Attributes:
        title: as it is cited.
        classes: its classes, in its own order.
        splits: name -> annotation file (COCO), or folder where the data set comes as rasters; relative to its root.
        images: split -> folder of the images, relative to its root.
        license: as its source states it.
    """

    title: str
    classes: tuple[str, ...]
    splits: dict[str, str]
    images: dict[str, str]
    license: str


CATALOG: dict[str, CatalogEntry] = {
    "ssdd": CatalogEntry(
        title="SSDD, SAR ship detection",
        classes=("ship",),
        splits={"train": "annotations/SSDD_instances_train.json", "val": "annotations/SSDD_instances_val.json"},
        images={"train": "imgs", "val": "imgs"},
        license="annotations MIT; images for research",
    ),
    "whu": CatalogEntry(
        title="WHU building, aerial",
        classes=("building",),
        splits={"train": "train/label", "val": "val/label"},
        images={"train": "train/image", "val": "val/image"},
        license="free for research",
    ),
    "nwpu": CatalogEntry(
        title="NWPU VHR-10, instances",
        classes=tuple(name for name in DEFAULT_CLASSES if name != "building"),
        splits={"train": "annotations/train.json", "val": "annotations/val.json"},
        images={"train": "images", "val": "images"},
        license="annotations MIT; images by NWPU, for research",
    ),
}
