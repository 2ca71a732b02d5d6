"""Generated scenes as samples of a data set, for training and evaluation without files."""

import io
from collections.abc import Iterable

import numpy as np
import shapely
from PIL import Image

from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.datasets.synthetic.scene import SYNTHETIC_CLASSES, SyntheticScene, generate_scene
from rs4d_core.errors import OptionError


def synthetic_samples(
    seeds: Iterable[int],
    width: int,
    height: int,
    classes: tuple[str, ...],
    resolution_m: tuple[float, float] = (0.3, 1.0),
) -> list[Sample]:
    """One sample for each seed, kept in memory as JPEG (about 0.3 bytes a pixel).

    Args:
        seeds: one scene each; a seed always gives the same sample.
        width: pixels.
        height: pixels.
        classes: the classes to label for; all that generated scenes hold must be among them.
        resolution_m: least and greatest size of a pixel; each scene's is drawn between them.

    Raises:
        OptionError: `classes` lacks a class of the generated scenes.
    """
    missing = [name for name in SYNTHETIC_CLASSES if name not in classes]
    if missing:
        raise OptionError(f"generated scenes hold {', '.join(missing)}; add them to the classes {', '.join(classes)}")
    samples = []
    for seed in seeds:
        drawn = np.random.default_rng([seed, 2]).uniform(*np.log(resolution_m))
        samples.append(scene_sample(generate_scene(seed, width, height, float(np.exp(drawn))), seed, classes))
    return samples


def scene_sample(scene: SyntheticScene, image_id: int, classes: tuple[str, ...]) -> Sample:
    """A scene as a sample. Its classes are labelled, all others are not; what the edge leaves too little of is a region
    to ignore."""
    encoded = io.BytesIO()
    Image.fromarray(scene.image).save(
        encoded, "JPEG", quality=int(np.random.default_rng([image_id, 3]).integers(65, 96))
    )
    annotations = tuple(
        Annotation(
            classes.index(instance.class_name),
            instance.polygon.bounds,
            (single_ring(instance.polygon),),
            crowd=not instance.recognizable,
        )
        for instance in scene.instances
    )
    annotated = tuple(name in SYNTHETIC_CLASSES for name in classes)
    height, width = scene.image.shape[:2]
    return Sample(encoded.getvalue(), width, height, image_id, annotations, annotated)


def single_ring(polygon: shapely.Polygon) -> np.ndarray:
    """`(K, 2)`: the polygon as one ring, each hole joined to it by a cut of no width.

    COCO's polygons know no holes. Along the cut the ring runs to the hole and back, so that it has no area and
    rasterises to nothing.
    """
    ring = np.array(polygon.exterior.coords)[:-1]
    for interior in polygon.interiors:
        hole = np.array(interior.coords)[:-1]
        if interior.is_ccw == polygon.exterior.is_ccw:
            hole = hole[::-1]
        distances = np.linalg.norm(ring[:, None] - hole[None], axis=2)
        at, nearest = np.unravel_index(distances.argmin(), distances.shape)
        there_and_back = np.concatenate([np.roll(hole, -nearest, axis=0), hole[nearest : nearest + 1]])
        ring = np.concatenate([ring[: at + 1], there_and_back, ring[at:]])
    return ring
