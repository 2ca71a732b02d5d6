"""Transforms: image and target stay together, boxes bind, what cannot be learned is ignored."""

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.datasets.transforms import (
    PADDING_RGB,
    Placement,
    TransformSettings,
    draw_placement,
    load_evaluation_image,
    load_training_image,
    place_target,
)
from rs4d_core.errors import DatasetError, OptionError
from rs4d_core.evaluation.predict_samples import predict_samples
from rs4d_core.models.instances import Instances, MaskPatch

SIZE = 64
PLAIN = TransformSettings(scale=(1.0, 1.0), flip=False, turn=False, color=0)


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return encoded(pixels, "PNG")


def sample_of(width: int, height: int, *annotations: Annotation, pixels: np.ndarray | None = None) -> Sample:
    pixels = np.zeros((height, width, 3), np.uint8) if pixels is None else pixels
    return Sample(png(pixels), width, height, 0, annotations, (True, False))


def outlined(ring: np.ndarray, label: int = 0) -> Annotation:
    ring = np.asarray(ring, float)
    return Annotation(label, (*ring.min(axis=0), *ring.max(axis=0)), (ring,))


def drawn(ring: np.ndarray, width: int, height: int) -> np.ndarray:
    return mask_utils.decode(mask_utils.frPyObjects([np.asarray(ring, float).ravel().tolist()], height, width))[..., 0]


@st.composite
def samples(draw) -> Sample:
    """An image of any size with one white figure on black, and that figure's outline."""
    width, height = draw(st.integers(20, 150)), draw(st.integers(20, 150))
    corners = draw(st.integers(3, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    phase = (np.arange(corners) + rng.uniform(0, 0.6, corners)) * 2 * np.pi / corners
    radius = rng.uniform(0.35, 0.5, corners) * min(width, height)
    centre = rng.uniform(0.3, 0.7, 2) * (width, height)
    ring = centre + radius[:, None] * np.stack([np.cos(phase), np.sin(phase)], axis=1)
    ring = ring.clip(0, (width, height))
    pixels = np.repeat(drawn(ring, width, height)[..., None] * np.uint8(255), 3, axis=2)
    return sample_of(width, height, outlined(ring), pixels=pixels)


SETTINGS = TransformSettings(scale=(0.6, 2.0), color=0)


@settings(max_examples=150, deadline=None)
@given(samples(), st.integers(0, 2**32))
def test_image_mask_and_outline_stay_together(sample, seed):
    image, target = load_training_image(sample, SIZE, np.random.default_rng(seed), SETTINGS)
    placement = draw_placement(sample, SIZE, np.random.default_rng(seed), SETTINGS)
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    centres = shapely.points(columns, rows)
    x0, y0, x1, y1 = placement.shown_xyxy
    plain = Placement(SIZE, (1, 1), (0, 0), (SIZE, SIZE), placement.mirrored, placement.turns)
    shown = shapely.box(*plain.boxes([(x0, y0, x1, y1)])[0])
    figure = shapely.Polygon(placement.points(sample.annotations[0].polygons[0]))
    inside = shapely.contains(figure, centres) & shapely.contains(shown, centres)
    # A pixel of the source can span two of the grid: beside the edge, the picture may differ from the outline.
    edge = shapely.distance(figure.boundary, centres) < 1.1 * max(1, *placement.scale_xy)
    white = image[0].numpy() > 127
    in_picture = shapely.contains(shown, centres)
    assert (white == inside)[in_picture & ~edge].all()
    if len(target.labels):
        mask = target.masks[0].numpy()
        assert (mask == inside)[shapely.distance(figure.boundary, centres) > 0.75].all()
        ys, xs = np.nonzero(mask)
        extent = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        box = target.boxes_xyxy[0].numpy()
        assert (np.floor(box[:2]) <= extent[:2]).all()
        assert (np.ceil(box[2:]) >= extent[2:]).all()
        if shapely.covers(shown, figure):
            np.testing.assert_allclose(box, figure.bounds, atol=1e-3)
        else:
            assert np.abs(box - extent).max() <= 1.0
    elif inside.sum() > 4:
        assert len(target.ignore_xyxy) == 1


@settings(max_examples=40, deadline=None)
@given(samples(), st.integers(0, 2**32))
def test_run_lengths_give_the_target_of_the_polygon_that_drew_them(sample, seed):
    (annotation,) = sample.annotations
    mask = drawn(annotation.polygons[0], sample.width, sample.height)
    rle = mask_utils.encode(np.asfortranarray(mask))
    x, y, width, height = mask_utils.toBbox(rle)
    same = Annotation(annotation.label, (x, y, x + width, y + height), rle=rle)
    other = Sample(sample.image, sample.width, sample.height, 0, (same,), sample.annotated)
    placement = draw_placement(sample, SIZE, np.random.default_rng(seed), SETTINGS)
    one, two = place_target(sample, placement), place_target(other, placement)
    if len(one.labels) and len(two.labels) and one.masks.sum() > 200:
        union, common = (one.masks | two.masks).sum(), (one.masks & two.masks).sum()
        assert common / union > 0.8
        assert (one.boxes_xyxy - two.boxes_xyxy).abs().max() <= 2.5


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_mirror_and_turns_undo(mirrored, turns):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    ring = [(5, 4), (30, 8), (22, 33)]
    sample = sample_of(50, 40, outlined(ring), pixels=pixels)
    as_it_is = Placement(SIZE, (1.0, 1.0), (3, 9), (50, 40), False, 0)
    moved = Placement(SIZE, (1.0, 1.0), (3, 9), (50, 40), mirrored, turns)
    picture = np.rot90(moved.picture(Image.fromarray(pixels), PADDING_RGB), -turns)
    mask = np.rot90(place_target(sample, moved).masks[0].numpy(), -turns)
    if mirrored:
        picture, mask = picture[:, ::-1], mask[:, ::-1]
    np.testing.assert_array_equal(picture, as_it_is.picture(Image.fromarray(pixels), PADDING_RGB))
    expected = place_target(sample, as_it_is).masks[0].numpy()
    # COCO's rule for pixels on the edge itself is not symmetric.
    assert (mask != expected).sum() <= 12
    assert (picture[:9] == PADDING_RGB).all()
    np.testing.assert_array_equal(picture[9:49, 3:53], pixels)


def test_the_same_generator_state_gives_the_same_view():
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    sample = sample_of(120, 90, outlined([(5, 4), (90, 8), (62, 83)]), pixels=pixels)
    one, other, next_one = [
        load_training_image(sample, SIZE, np.random.default_rng(seed), TransformSettings()) for seed in (4, 4, 5)
    ]
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(getattr(one[1], name), getattr(other[1], name)) for name in one[1].__dataclass_fields__)
    assert not torch.equal(one[0], next_one[0])


def place(*annotations: Annotation, shift: tuple[int, int] = (0, 0)):
    """The target of a 300 x 300 image of which the grid shows a window, shifted by `shift`."""
    return place_target(sample_of(300, 300, *annotations), Placement(SIZE, (1, 1), shift, (300, 300), False, 0))


def square(x: float, y: float, side: float) -> Annotation:
    return outlined([(x, y), (x + side, y), (x + side, y + side), (x, y + side)])


def test_a_small_rest_of_a_cut_instance_is_ignored():
    target = place(square(60, 10, 40))
    assert len(target.labels) == 0
    assert target.ignore_xyxy.tolist() == [[60, 10, 64, 50]]


def test_a_large_rest_is_an_instance_however_small_its_share():
    target = place(square(40, -100, 200))
    assert target.boxes_xyxy.tolist() == [[40, 0, 64, 64]]
    assert target.masks[0].sum() == 24 * 64


def test_specks_are_ignored_and_what_lies_outside_is_gone():
    target = place(square(10, 10, 1), square(70, 10, 20), square(30, 30, 8))
    assert target.boxes_xyxy.tolist() == [[30, 30, 38, 38]]
    assert target.ignore_xyxy.tolist() == [[10, 10, 11, 11]]


def test_crowds_become_regions_to_ignore():
    crowd = Annotation(0, (50.0, 20.0, 90.0, 40.0), crowd=True)
    target = place(crowd, square(5, 5, 10))
    assert target.ignore_xyxy.tolist() == [[50, 20, 64, 40]]
    assert len(target.labels) == 1


def test_a_box_without_outline_trains_no_mask():
    target = place(Annotation(0, (10.0, 20.0, 40.0, 45.0)), square(50, 50, 10))
    assert target.boxes_xyxy[0].tolist() == [10, 20, 40, 45]
    assert target.has_mask.tolist() == [False, True]
    assert target.masks.any(dim=(1, 2)).tolist() == [False, True]
    assert target.annotated.tolist() == [True, False]


def test_an_image_without_instances_has_an_empty_target():
    target = place()
    assert target.boxes_xyxy.shape == target.ignore_xyxy.shape == (0, 4)
    assert target.masks.shape == (0, SIZE, SIZE)


def test_crops_are_drawn_towards_instances():
    sample = sample_of(1000, 1000, square(900, 900, 20))
    rng = np.random.default_rng(0)
    seen = sum(len(load_training_image(sample, SIZE, rng, PLAIN)[1].labels) for _ in range(20))
    assert seen >= 10


def test_a_view_that_is_to_show_a_class_is_drawn_towards_an_instance_of_it():
    common = [square(50 + 80 * i, 50, 20) for i in range(10)]
    rare = replace(square(900, 900, 20), label=1)
    sample = sample_of(1000, 1000, *common, rare)
    rng = np.random.default_rng(0)
    views = [load_training_image(sample, SIZE, rng, PLAIN, label=1)[1] for _ in range(20)]
    assert sum(1 in view.labels for view in views) >= 10


def test_color_jitter_changes_light_but_not_place():
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[20:40, 10:30] = 200
    settings_ = TransformSettings(scale=(1.0, 1.0), flip=False, turn=False, color=1.0)
    sample = sample_of(SIZE, SIZE, pixels=pixels)
    views = [load_training_image(sample, SIZE, np.random.default_rng(seed), settings_)[0] for seed in range(8)]
    assert len({int(view.sum()) for view in views}) == 8
    for view in views:
        assert (view[:, 20:40, 10:30] == view[:, 20:21, 10:11]).all()
        assert (view[:, 25, 15] > view[:, 5, 5]).all()


def test_evaluation_images_are_padded_to_multiples_of_32():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 65, 3), dtype=np.uint8)
    image = load_evaluation_image(sample_of(65, 40, pixels=pixels))
    assert image.shape == (3, 64, 96)
    np.testing.assert_array_equal(image[:, :40, :65].numpy().transpose(1, 2, 0), pixels)
    assert (image[:, 40:] == torch.tensor(PADDING_RGB)[:, None, None]).all()


@given(st.integers(20, 300), st.integers(20, 300), st.sampled_from([32, 96, 160]))
def test_fitted_images_meet_at_one_size_whatever_their_own(width, height, size):
    sample = sample_of(width, height)
    placement = draw_placement(sample, size, np.random.default_rng(0), replace(PLAIN, fit=True))
    assert max(placement.scaled_size) == size
    image = load_evaluation_image(sample, size)
    assert image.shape == (3, *(-(-side // 32) * 32 for side in reversed(placement.scaled_size)))


def test_what_is_found_in_a_fitted_image_is_told_in_its_own_pixels():
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[10:20, 15:40] = 255

    def find_bright(images: torch.Tensor) -> list[Instances]:
        rows, columns = torch.nonzero(images[0, 0] > 200, as_tuple=True)
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        patch = MaskPatch(torch.ones(28, 28), box)
        return [Instances(torch.tensor([box]), torch.ones(1), torch.zeros(1, dtype=torch.int64), [patch])]

    sample = sample_of(50, 30, pixels=pixels)
    (found,) = predict_samples(find_bright, [sample], fit_px=200)
    assert found.boxes_xyxy.tolist()[0] == pytest.approx([15, 10, 40, 20], abs=0.5)
    assert found.masks[0].box_xyxy == pytest.approx([15, 10, 40, 20], abs=0.5)


def of_16_bits(driver: str, bands: int) -> bytes:
    options = {"photometric": "RGB"} if driver == "GTiff" else {}
    with warnings.catch_warnings(), MemoryFile() as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(driver=driver, width=10, height=10, count=bands, dtype="uint16", **options) as dataset:
            dataset.write(np.full((bands, 10, 10), 900, np.uint16))
        return file.read()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"no image", "not an image that Pillow can read"),
        (png(np.zeros((10, 12, 3), np.uint8)), "is 12 x 10 pixels, its annotations are for 10 x 10"),
        (png(np.random.default_rng(0).integers(0, 255, (10, 10, 3), dtype=np.uint8))[:150], "cannot be read"),
        (png(np.zeros((10, 10), np.uint16)), "more than 8 bits"),
        *((of_16_bits(driver, bands), "more than 8 bits") for driver in ("GTiff", "PNG") for bands in (3, 4)),
        (png(np.zeros((10, 10, 3), np.uint8)).replace(b"\rIDAT", b"\5IDAT"), "not an image that Pillow can read"),
        (
            encoded(np.zeros((10, 10, 3), np.uint8), "JPEG2000").replace(b"\xff\x52\x00\x0c", b"\xff\x52\x00\x00"),
            "not an image that Pillow can read",
        ),
    ],
)
def test_images_that_do_not_fit_give_one_clear_error(image, message):
    with pytest.raises(DatasetError, match=message):
        load_evaluation_image(Sample(image, 10, 10, 0, (), (True,)))


@pytest.mark.parametrize("wrong", [{"scale": (2.0, 1.0)}, {"scale": (0.0, 1.0)}, {"color": 1.5}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(OptionError):
        TransformSettings(**wrong)


def test_real_images_load(data_folder, default_classes):
    folder = data_folder / "buildings" / "china"
    real = read_coco(folder / "train.json", folder / "images", default_classes)[:4]
    for seed, sample in enumerate(real):
        image, target = load_training_image(sample, 256, np.random.default_rng(seed), TransformSettings())
        assert image.float().std() > 5
        assert target.masks.shape == (len(target.labels), 256, 256)
        boxes = target.boxes_xyxy
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert ((boxes >= 0) & (boxes <= 256)).all()
