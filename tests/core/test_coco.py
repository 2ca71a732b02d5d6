"""The COCO reader: what it reads, and one clear error for each way a file can be broken."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils

from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.run_lengths import checked_rle
from rs4d_core.errors import DatasetError

CLASSES = ("ship", "building")
WIDTH, HEIGHT = 20, 10
SQUARE = [2, 1, 8, 1, 8, 5, 2, 5]
SQUARE_RUNS = [21, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 125]  # the same pixels, down the columns


def content() -> dict:
    """A valid file: one image, one ship."""
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 3, "name": "ship"}],
        "annotations": [
            {"id": 11, "image_id": 7, "category_id": 3, "bbox": [2, 1, 6, 4], "segmentation": [SQUARE], "iscrowd": 0}
        ],
    }


@pytest.fixture
def read(tmp_path):
    """A function that writes the given content beside its image, and reads it."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")

    def read_content(value: object, class_map: dict | None = None):
        file = tmp_path / "file.json"
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        return read_coco(file, tmp_path, CLASSES, class_map)

    return read_content


def with_annotation(**changes) -> dict:
    value = content()
    value["annotations"][0].update(changes)
    return value


def test_reads_an_instance(read):
    (sample,) = read(content())
    (annotation,) = sample.annotations
    assert (sample.image.name, sample.width, sample.height, sample.image_id) == ("a.png", WIDTH, HEIGHT, 7)
    assert sample.annotated == (True, False)
    assert annotation.label == 0
    assert annotation.box_xyxy == (2, 1, 8, 5)
    assert annotation.polygons[0].tolist() == [[2, 1], [8, 1], [8, 5], [2, 5]]
    assert not annotation.crowd


def test_reads_both_forms_of_run_lengths_as_the_polygon_that_they_draw(read):
    compressed = mask_utils.frPyObjects([SQUARE], HEIGHT, WIDTH)[0]["counts"].decode()
    expected = mask_utils.decode(mask_utils.frPyObjects([SQUARE], HEIGHT, WIDTH)[0])
    for counts in (SQUARE_RUNS, compressed):
        (sample,) = read(with_annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": counts}))
        (annotation,) = sample.annotations
        np.testing.assert_array_equal(mask_utils.decode(annotation.rle), expected)
        assert annotation.box_xyxy == (2, 1, 8, 5)


@pytest.mark.parametrize("segmentation", [[], None])
def test_an_instance_without_an_outline_keeps_its_box(read, segmentation):
    (sample,) = read(with_annotation(segmentation=segmentation))
    assert sample.annotations[0].box_xyxy == (2, 1, 8, 5)
    assert not sample.annotations[0].has_outline


def test_crowds_are_told_apart(read):
    (sample,) = read(with_annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": SQUARE_RUNS}, iscrowd=1))
    assert sample.annotations[0].crowd


def test_boxes_are_clipped_and_what_lies_outside_is_dropped(read):
    value = content()
    for number, bbox in enumerate([[-4, -2, 10, 6], [15, 5, 50, 50], [30, 3, 5, 5], [3, 3, 0, 4]]):
        value["annotations"].append(
            {"id": number, "image_id": 7, "category_id": 3, "bbox": bbox, "segmentation": [], "iscrowd": 0}
        )
    (sample,) = read(value)
    assert [annotation.box_xyxy for annotation in sample.annotations[1:]] == [(0, 0, 6, 4), (15, 5, 20, 10)]


def test_the_outline_decides_the_box(read):
    (sample,) = read(with_annotation(bbox=[0, 0, 20, 10]))
    assert sample.annotations[0].box_xyxy == (2, 1, 8, 5)


def test_categories_can_be_mapped(read):
    value = content()
    value["categories"][0]["name"] = "House"
    (sample,) = read(value, {"House": "building"})
    assert sample.annotations[0].label == 1
    assert sample.annotated == (False, True)


def test_an_image_without_annotations_is_a_sample(read):
    value = content()
    value["annotations"] = []
    (sample,) = read(value)
    assert sample.annotations == ()
    assert sample.annotated == (True, False)


def changed(*path, to) -> dict:
    """The valid file with one value replaced, or removed where `to` is `...`."""
    value = copy.deepcopy(content())
    place = value
    for step in path[:-1]:
        place = place[step]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return value


def doubled(key: str) -> dict:
    value = content()
    value[key] *= 2
    return value


def runs(counts: object, size: object = (HEIGHT, WIDTH)) -> dict:
    return with_annotation(segmentation={"size": list(size) if isinstance(size, tuple) else size, "counts": counts})


BROKEN = {
    "not JSON": ("{", "not JSON"),
    "a list": ("[]", "holds a list"),
    "no images": (changed("images", to=...), "has no 'images'"),
    "no annotations": (changed("annotations", to=...), "has no 'annotations'"),
    "no categories": (changed("categories", to=...), "has no 'categories'"),
    "images an object": (changed("images", to={}), "'images' is a dict"),
    "annotations text": (changed("annotations", to="x"), "'annotations' is a str"),
    "categories null": (changed("categories", to=None), "'categories' is a NoneType"),
    "image a number": (changed("images", 0, to=5), "image number 1 is 5"),
    "image id twice": (doubled("images"), "image id 7 is used twice"),
    "annotation id twice": (doubled("annotations"), "annotation id 11 is used twice"),
    "category id twice": (doubled("categories"), "category id 3 is used twice"),
    "no image id": (changed("images", 0, "id", to=...), "has no 'id'"),
    "annotation id text": (changed("annotations", 0, "id", to="x"), "'id' is 'x', not a whole number"),
    "unknown image": (with_annotation(image_id=8), "annotation 11 is for image 8"),
    "unknown category": (with_annotation(category_id=9), "annotation 11 is of category 9"),
    "unknown class": (changed("categories", 0, "name", to="plane"), "category 'plane' is not a known class; map it to"),
    "no category name": (changed("categories", 0, "name", to=...), "category 3 has no 'name'"),
    "missing image file": (changed("images", 0, "file_name", to="b.png"), "there is no file"),
    "file name too long": (changed("images", 0, "file_name", to="b" * 300), "there is no file"),
    "file name a number": (changed("images", 0, "file_name", to=1), "'file_name' is 1, not text"),
    "no width": (changed("images", 0, "width", to=...), "image 7 has no 'width'"),
    "height text": (changed("images", 0, "height", to="10"), "'height' is '10', not a whole number"),
    "height a fraction": (changed("images", 0, "height", to=9.5), "'height' is 9.5"),
    "width zero": (changed("images", 0, "width", to=0), "image 7 is 0 x 10 pixels"),
    "box of three": (with_annotation(bbox=[1, 2, 3]), "annotation 11: 'bbox' is [1, 2, 3]"),
    "box negative": (with_annotation(bbox=[1, 2, -3, 4]), "negative width or height"),
    "box not a number": (with_annotation(bbox=[1, 2, float("nan"), 4]), "not four finite numbers"),
    "box beyond floats": (with_annotation(bbox=[1, 2, 10**400, 4]), "not four finite numbers"),
    "box of 5000 digits": ('{"images": [1' + "0" * 5000 + "]}", "not JSON"),
    "box text": (with_annotation(bbox=["1", 2, 3, 4]), "not four finite numbers"),
    "no box, no outline": (
        changed("annotations", 0, to={"id": 1, "image_id": 7, "category_id": 3}),
        "neither 'bbox' nor 'segmentation'",
    ),
    "crowd 2": (with_annotation(iscrowd=2), "'iscrowd' is 2"),
    "polygon odd": (with_annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "a polygon has 7 numbers"),
    "polygon short": (with_annotation(segmentation=[[1, 2, 3, 4]]), "a polygon has 4 numbers"),
    "polygon infinite": (with_annotation(segmentation=[[1, 2, 3, 4, 5, float("inf")]]), "not a finite number"),
    "polygon far outside": (with_annotation(segmentation=[[1, 2, 3e9, 4, 5, 6]]), "reaches 3e+09 pixels far"),
    "polygon flat": (with_annotation(segmentation=SQUARE), "a polygon is a int, not a list"),
    "segmentation text": (with_annotation(segmentation="x"), "'segmentation' is a str"),
    "runs without size": (with_annotation(segmentation={"counts": SQUARE_RUNS}), "lack 'size' or 'counts'"),
    "runs of another size": (runs([200], (WIDTH, HEIGHT)), "are for 10 x 20 pixels, the image has 20 x 10"),
    "runs size text": (runs([200], "x"), "not [height, width]"),
    "runs too short": (runs([100]), "cover 100 pixels, the image has 200"),
    "runs negative": (runs([-1, 201]), "not all whole numbers"),
    "runs a number": (runs(5), "are a int"),
    "compressed runs cut off": (runs("Pf"), "cut off"),
    "compressed runs of foreign characters": (runs("é!"), "cut off or hold characters"),
    "compressed runs too short": (runs("0"), "cover 0 pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gives_one_clear_error(read, name):
    value, message = BROKEN[name]
    with pytest.raises(DatasetError) as error:
        read(value)
    text = str(error.value)
    assert message in text
    assert "file.json" in text
    assert "\n" not in text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.json: no such file"):
        read_coco(tmp_path / "none.json", tmp_path, CLASSES)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12))
def test_no_string_of_run_lengths_reaches_the_decoder_unchecked(counts):
    try:
        rle = checked_rle({"size": [HEIGHT, WIDTH], "counts": counts}, WIDTH, HEIGHT)
    except ValueError:
        return
    assert mask_utils.decode(rle).shape == (HEIGHT, WIDTH)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_every_mask_passes_the_check(seed, width, height, share):
    mask = np.asfortranarray((np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8))
    counts = mask_utils.encode(mask)["counts"].decode()
    rle = checked_rle({"size": [height, width], "counts": counts}, width, height)
    np.testing.assert_array_equal(mask_utils.decode(rle), mask)


@pytest.mark.parametrize(
    ("annotations", "images", "samples", "instances"),
    [
        ("nwpu_vhr10/annotations/train.json", "nwpu_vhr10/images", 520, 3178),
        ("buildings/khokana/train.json", "buildings/khokana/images", 474, 1868),
        ("ships/optical/train.json", "ships/optical/images", 317, 472),
    ],
)
def test_reads_real_data_whole(data_folder, default_classes, annotations, images, samples, instances):
    read = read_coco(data_folder / annotations, data_folder / images, default_classes)
    assert len(read) == samples
    assert sum(not annotation.crowd for sample in read for annotation in sample.annotations) == instances
