"""Preparing COCO files and mask tiles: what is kept, what is dropped and why, and never half a data set."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils
from training_script import ROOT, run_script

from rs4d_core.datasets.catalog import CATALOG
from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.coco_import import CocoPart, CocoSource, prepare_coco
from rs4d_core.datasets.mask_import import instances
from rs4d_core.datasets.outlines import annotation_record
from rs4d_core.datasets.places import Split, split_tiles
from rs4d_core.datasets.preparation import Description
from rs4d_core.errors import DatasetError
from rs4d_core.finetuning.data import open_data
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.runs.tables import read_settings

SIDE = 40
SQUARE = [4, 4, 20, 4, 20, 20, 4, 20]


def annotation(number: int, image: int, **changes) -> dict:
    return {"id": number, "image_id": image, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0} | changes


def content(images: int = 6) -> dict:
    """One house in each image; the file names tell the place of each."""
    return {
        "images": [
            {"id": n, "file_name": f"x{SIDE * (n - 1)}_y0.png", "width": SIDE, "height": SIDE}
            for n in range(1, images + 1)
        ],
        "annotations": [annotation(n, n) for n in range(1, images + 1)],
        "categories": [{"id": 1, "name": "house"}],
    }


@pytest.fixture
def source(tmp_path):
    """A function that writes the given content, beside the images of a whole file. Returns the options of a command."""
    folder = tmp_path / "source"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for record in content()["images"]:
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / record["file_name"])

    def write(value: object) -> list[str]:
        (folder / "all.json").write_text(value if isinstance(value, str) else json.dumps(value))
        return ["coco", str(folder / "all.json"), "--images", str(folder)]

    return write


def samples_of(folder, split: str, classes=("house",)):
    return read_coco(folder / f"{split}.json", folder / "images", classes)


def test_what_is_broken_is_dropped_counted_and_named(source, tmp_path, monkeypatch, capsys):
    value = content()
    whole = mask_utils.encode(np.asfortranarray(np.ones((SIDE, SIDE), np.uint8)))["counts"].decode()
    value["images"] += [{"id": 7, "file_name": "missing.png", "width": SIDE, "height": SIDE}]
    value["images"][4]["width"] = SIDE + 1
    value["annotations"] += [
        annotation(11, 1, segmentation=[[90, 90, 99, 90, 99, 99]]),
        annotation(12, 1, segmentation=[[1, 1, 5, 5, 9, 9]]),
        annotation(13, 1, segmentation=[[1, 1, float("nan"), 5, 9, 9]]),
        annotation(14, 1, segmentation={"size": [SIDE, SIDE - 1], "counts": whole}),
        annotation(15, 2, segmentation={"size": [SIDE, SIDE], "counts": whole}),
        annotation(16, 2, segmentation=[[30, 30, 38, 38, 38, 30, 30, 38]]),
        annotation(17, 3, segmentation=[[30, 30, 50, 30, 50, 38, 30, 38]]),
        annotation(18, 3, segmentation=[], bbox=[5, 5, 9, 9]),
        annotation(19, 3, iscrowd=1),
    ]
    options = source(value)
    (tmp_path / "source" / "x200_y0.png").write_bytes(b"no image")
    output = tmp_path / "prepared"
    assert (
        run_script(monkeypatch, "prepare", *options, "--by-image", "--val-share", "0.25", "-o", output, "--json") == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {
        "cut objects": {"over the edge of the image": 1},
        "dropped images": {"not to be read as annotated": 2, "no such file": 1},
        "dropped objects": {"outside of the image or without area": 2, "broken": 2},
        "repaired objects": {"invalid outline": 1},
    }
    assert "dropped 3 images (not to be read as annotated 2, no such file 1), 4 objects (" in told["summary"]
    assert sum(split["images"] for split in told["splits"].values()) == 4
    report = json.loads((output / "report.json").read_text())
    details = " ".join(finding["where"] + finding["detail"] for finding in report["findings"])
    assert "annotation 14" in details
    assert "39 x 40 pixels, the image has 40 x 40" in details
    kept = {s.image.name: s for split in ("train", "val") for s in samples_of(output, split)}
    assert set(kept) == {f"x{SIDE * n}_y0.png" for n in range(4)}
    first, second, third = (kept[f"x{SIDE * n}_y0.png"].annotations for n in range(3))
    assert [ring.ravel().tolist() for ring in first[0].polygons] == [SQUARE]
    assert len(first) == 1
    assert mask_utils.area(second[1].rle) == SIDE**2
    assert third[1].box_xyxy == (30, 30, SIDE, 38)
    assert (third[2].has_outline, third[3].crowd) == (False, True)
    assert run_script(monkeypatch, "prepare", "check", output) == 0


def test_classes_are_renamed_and_joined(source, tmp_path, monkeypatch, capsys):
    value = content()
    value["categories"] += [{"id": 2, "name": "hut"}, {"id": 3, "name": "boat"}]
    value["annotations"][0]["category_id"], value["annotations"][1]["category_id"] = 2, 3
    names = ["--class-map", "hut=house", "--classes", "boat,house"]
    output = tmp_path / "prepared"
    assert run_script(monkeypatch, "prepare", *source(value), *names, "--val-share", "0", "-o", output, "--json") == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"].values()
    assert split["by_class"] == {"boat": 1, "house": 5}
    labels = [sample.annotations[0].label for sample in samples_of(output, "train", ("boat", "house"))]
    assert sorted(labels) == [0, 1, 1, 1, 1, 1]


def faulty(change) -> object:
    value = copy.deepcopy(content())
    change(value)
    return value


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (json.dumps(content())[:400], [], "all.json: not JSON"),
        (
            faulty(lambda v: v["categories"][0].update(name="barn")),
            ["--classes", "house"],
            "'barn' is not a known class",
        ),
        (faulty(lambda v: v["images"][1].update(id=1)), [], "the image id 1 is used twice"),
        (faulty(lambda v: v["annotations"][1].update(id=1)), [], "the annotation id 1 is used twice"),
        (faulty(lambda v: v["annotations"][1].update(image_id=99)), [], "annotation 2 is for image 99"),
        (faulty(lambda v: v["images"][1].update(file_name="x0_y0.png")), [], "list each file once"),
        (faulty(lambda v: v.update(images=[])), [], "annotation 1 is for image 1, which the file does not list"),
        (
            faulty(lambda v: [i.update(file_name=f"{i['id']}") for i in v["images"]]),
            [],
            "none of its 6 images is",
        ),
        (content(), ["--val-share", "1"], "a share of 1 to hold back cannot be"),
        (content(), ["--place", "x(.)"], "needs two groups, for x and y"),
        (content(), ["--place", r"a(\d+)_b(\d+)"], "finds no place in the file name x0_y0.png"),
    ],
)
def test_what_makes_a_file_doubtful_is_one_line_and_leaves_nothing(
    source, tmp_path, monkeypatch, capsys, value, options, message
):
    options = [*source(value), *([] if "--place" in options else ["--by-image"]), *options]
    output = tmp_path / "out" / "prepared"
    assert run_script(monkeypatch, "prepare", *options, "-o", output) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not any(tmp_path.glob("out/*"))


def test_it_must_be_said_what_is_held_back(source, tmp_path, monkeypatch, capsys):
    assert run_script(monkeypatch, "prepare", *source(content()), "-o", tmp_path / "prepared") == 2
    assert "say what is held back: --val FILE; or --place REGEX" in capsys.readouterr().err


@pytest.mark.parametrize("cut_off", [b"", b"\0" * 9 + b"\n"])
def test_an_interrupted_preparation_goes_on_and_ends_as_an_unbroken_one(cut_off, source, tmp_path):
    source(content())
    part = CocoPart(tmp_path / "source" / "all.json", tmp_path / "source")

    def prepare(name: str, stop_at: int = 99):
        def items(all_items: list):
            for number, item in enumerate(all_items):
                if number == stop_at:
                    raise KeyboardInterrupt
                yield item

        return prepare_coco(
            CocoSource((part,)), Split(0.3), tmp_path / name, lambda names: Description("set", names, "none"), items
        )

    for stop_at in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            prepare("broken", stop_at)
        assert not (tmp_path / "broken").exists()
    staged = {file: file.stat().st_mtime_ns for file in (tmp_path / ".broken.part").rglob("*.png")}
    assert len(staged) == 4
    # What a crash cuts off or garbles at the end of the journal is made again.
    journal = tmp_path / ".broken.part" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-10] + cut_off)
    prepare("broken")
    prepare("whole")
    for name in ("train.json", "val.json", "dataset.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "broken").rglob("*.png")}
    assert sum(again[file.name] == time for file, time in staged.items()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "source", "whole"]


def test_an_interrupted_preparation_of_something_else_starts_anew(source, tmp_path):
    source(content())
    part = CocoPart(tmp_path / "source" / "all.json", tmp_path / "source")

    def describe(names):
        return Description("set", names, "none")

    def first_only(items: list):
        yield items[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_coco(CocoSource((part,)), Split(0.0), tmp_path / "set", describe, first_only)
    renamed = CocoSource((part,), class_map={"house": "hut"})
    prepare_coco(renamed, Split(0.5), tmp_path / "set", describe)
    files = [file.name for file in (tmp_path / "set" / "images").rglob("*.png")]
    assert len(files) == len(set(files)) == 6


def test_one_process_at_a_time_prepares_a_folder(source, tmp_path, monkeypatch, capsys):
    command = [*source(content()), "--by-image", "-o", tmp_path / "set"]
    part = CocoPart(tmp_path / "source" / "all.json", tmp_path / "source")
    status = []

    def meanwhile(items: list):
        yield items[0]
        status.append(run_script(monkeypatch, "prepare", *command))
        yield from items[1:]

    prepare_coco(
        CocoSource((part,)), Split(0.5), tmp_path / "set", lambda names: Description("set", names, "none"), meanwhile
    )
    assert status == [2]
    assert "another process is preparing" in capsys.readouterr().err
    assert len(list((tmp_path / "set" / "images").rglob("*.png"))) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "source"]


def test_a_folder_that_is_there_is_not_touched(source, tmp_path, monkeypatch, capsys):
    output = tmp_path / "prepared"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    assert run_script(monkeypatch, "prepare", *source(content()), "--by-image", "-o", output) == 2
    assert "is there already" in capsys.readouterr().err
    assert [file.read_text() for file in output.iterdir()] == ["mine"]


def test_copies_of_what_is_held_back_are_not_trained_on(source, tmp_path, monkeypatch, capsys):
    options = source(content())
    folder = tmp_path / "source"
    (folder / "x40_y0.png").write_bytes((folder / "x0_y0.png").read_bytes())
    for name in ("x40_y0.pgw", "x80_y0.pgw"):
        (folder / name).write_text("1\n")
    parts = {"train": range(2, 7), "val": range(1, 2)}
    for name, numbers in parts.items():
        value = content()
        value["images"] = [image for image in value["images"] if image["id"] in numbers]
        value["annotations"] = [record for record in value["annotations"] if record["image_id"] in numbers]
        (folder / f"{name}.json").write_text(json.dumps(value))
    output = tmp_path / "prepared"
    options = [options[0], folder / "train.json", *options[2:], "--val", folder / "val.json", "-o", output, "--json"]
    assert run_script(monkeypatch, "prepare", *options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"dropped images": {"copy of one held back": 1}}
    assert told["splits"]["train"]["images"] == 4
    names = {file.name for file in (output / "images" / "train").iterdir()}
    assert names == {"x80_y0.pgw", *(f"x{place}_y0.png" for place in (80, 120, 160, 200))}, (
        "nor is its world file there"
    )


def test_tiles_are_split_by_the_place_in_their_names(source, tmp_path, monkeypatch):
    output = tmp_path / "prepared"
    options = ["--place", r"x(\d+)_y(\d+)", "--margin", "8", "--val-share", "0.3", "-o", output]
    assert run_script(monkeypatch, "prepare", *source(content()), *options) == 0
    places = {
        split: [int(sample.image.name[1:].partition("_")[0]) for sample in samples_of(output, split)]
        for split in ("train", "val")
    }
    assert places["val"]
    assert all(abs(one - other) >= SIDE + 8 for one in places["train"] for other in places["val"])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=8, max_size=60, unique=True),
    st.integers(4, 16),
    st.integers(0, 12),
    st.sampled_from([0.1, 0.2, 0.5]),
)
def test_no_ground_is_both_trained_on_and_measured(corners, tile, margin, share):
    low = np.array(corners, np.float64) * 4
    boxes = np.hstack([low, low + tile])
    counts = np.ones((len(boxes), 1), int)
    splits = split_tiles(boxes, counts, tile, Split(share, margin))
    train, val = (boxes[[split == name for split in splits]] for name in ("train", "val"))
    assert len(val)
    for box in val:
        gaps = np.maximum(train[:, :2] - box[2:], box[:2] - train[:, 2:]).max(axis=1)
        assert (gaps >= margin).all()


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(0.2, 0.8), st.integers(1, 5))
def test_the_regions_of_a_mask_are_its_pixels(seed, share, block):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((9, 11)) < share, np.ones((block, block), bool))
    drawn = np.zeros(mask.shape, int)
    for region, pixels in instances(mask):
        segmentation = annotation_record(region, mask.shape[1], mask.shape[0])["segmentation"]
        if isinstance(segmentation, list):
            segmentation = mask_utils.merge(mask_utils.frPyObjects(segmentation, *mask.shape))
        own = mask_utils.decode(segmentation)
        assert own.sum() == pixels
        drawn += own
    np.testing.assert_array_equal(drawn, mask)


def test_mask_tiles_become_instances_and_keep_their_world_files(tmp_path, monkeypatch, capsys):
    """As WHU's: one-bit TIFFs in which white, the buildings, is stored as 0."""
    root = tmp_path / "whu"
    mask = np.zeros((32, 32), np.uint8)
    mask[2:10, 2:10], mask[10:18, 10:18], mask[20:30, 20:30], mask[23:26, 23:26], mask[0, 31] = 1, 1, 1, 0, 1
    for split, names in {"train": ("0", "1", "2"), "val": ("9",)}.items():
        for kind in ("image", "label"):
            (root / split / kind).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (32, 32), (int(name), 5, 5)).save(root / split / "image" / f"{name}.tif")
            label = Image.fromarray(mask * 255).convert("1")
            label.save(root / split / "label" / f"{name}.tif", tiffinfo={262: 0})
            (root / split / "image" / f"{name}.tfw").write_text("0.3\n0\n0\n-0.3\n10\n20\n")
    (root / "train" / "label" / "2.tif").unlink()
    Image.new("RGB", (32, 32)).save(root / "train" / "image" / "0.tiff")
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(root / "train" / "label" / "1.tif")
    output = tmp_path / "prepared"
    assert run_script(monkeypatch, "prepare", "whu", root, "-o", output, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {
        "dropped images": {"named as another, but for the ending": 1, "no mask": 1, "mask not to be used": 1},
        "dropped objects": {"smaller than 10 pixels": 2},
    }
    (sample,) = samples_of(output, "train", ("building",))
    areas = [
        mask_utils.area(a.rle) if a.rle else mask_utils.area(mask_utils.frPyObjects([a.polygons[0].ravel()], 32, 32))[0]
        for a in sample.annotations
    ]
    # Two that touch by a corner are two, and one has a courtyard.
    assert sorted(areas) == [64, 64, 91]
    assert (output / "images" / "train" / "0.tfw").read_text().startswith("0.3")

    # Where nothing is left to train on, the line says what is amiss with the first that was left out.
    for file in ("label/0.tif", "image/0.tiff"):
        (root / "train" / file).unlink()
    assert run_script(monkeypatch, "prepare", "whu", root, "-o", tmp_path / "nothing") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("label/1.tif: has 256 values, where background and object are two")
    assert not (tmp_path / "nothing").exists()


def test_check_names_each_fault(source, tmp_path, monkeypatch, capsys):
    output = tmp_path / "prepared"
    assert run_script(monkeypatch, "prepare", *source(content()), "--by-image", "-o", output) == 0
    train, val = sorted((output / "images" / "train").iterdir()), sorted((output / "images" / "val").iterdir())
    train[0].write_bytes(b"no image")
    val[0].write_bytes(train[1].read_bytes())
    file = json.loads((output / "train.json").read_text())
    file["annotations"][2]["segmentation"] = [[1, 1, 9, 9, 9, 1, 1, 9]]
    (output / "train.json").write_text(json.dumps(file))
    capsys.readouterr()
    assert run_script(monkeypatch, "prepare", "check", output) == 2
    told = capsys.readouterr()
    faults = told.err.splitlines()
    assert len(faults) == 3
    assert "3 faults" in told.out
    for text in ("not an image", "crosses itself", "is the same image as"):
        assert sum(text in fault for fault in faults) == 1
    for image in train[2:4]:
        image.unlink()
    assert run_script(monkeypatch, "prepare", "check", output) == 2
    faults = capsys.readouterr().err
    assert faults.count("there is no file") == 2
    assert "not an image" in faults
    (output / "dataset.json").unlink()
    assert run_script(monkeypatch, "prepare", "check", output) == 2
    assert "is no prepared data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "place", "images", "objects"),
    [
        (["ssdd", "samples/ssdd"], (), 2, 2),
        (["whu", "samples/whu"], (), 4, 8),
        (["nwpu", "nwpu_vhr10"], (), 520, 3178),
        (
            ["coco", "buildings/khokana/train.json", "--images", "buildings/khokana/images"],
            ("--place", r"x(\d+)_y(\d+)"),
            445,
            1725,
        ),
    ],
)
def test_public_layouts_are_read_whole(data_folder, tmp_path, monkeypatch, capsys, command, place, images, objects):
    paths = [data_folder / part if "/" in part or part == "nwpu_vhr10" else part for part in command]
    output = tmp_path / command[0]
    assert run_script(monkeypatch, "prepare", *paths, *place, "-o", output, "--json") == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert sum(split["images"] for split in splits.values()) == images
    assert sum(split["objects"] for split in splits.values()) == objects
    assert splits["val"]["objects"] > 0
    shipped = ROOT / "training" / "recipes" / f"{command[0]}-box.toml"
    if command[0] in CATALOG:
        data = open_data(read_settings(Recipe, shipped), tmp_path)
        assert {name: len(samples) for name, samples in data.held_back.items()} == {command[0]: splits["val"]["images"]}


def test_a_class_map_names_categories_that_are_there(source, tmp_path):
    source(content())
    part = CocoPart(tmp_path / "source" / "all.json", tmp_path / "source")
    misspelt = CocoSource((part,), class_map={"buildin": "roof"})
    with pytest.raises(DatasetError, match=r"all\.json: no category 'buildin' to call 'roof'; .*there are: "):
        prepare_coco(misspelt, Split(0.3), tmp_path / "set", lambda names: Description("set", names, "none"))


def test_a_dot_in_front_of_a_name_is_part_of_it(source, tmp_path):
    value = content()
    value["images"][1]["file_name"] = ".x0_y0.png"
    part = CocoPart(tmp_path / "source" / "all.json", tmp_path / "source")
    source(value)
    (part.images / f"x{SIDE}_y0.png").rename(part.images / ".x0_y0.png")
    prepare_coco(CocoSource((part,)), Split(0), tmp_path / "set", lambda names: Description("set", names, "none"))
    assert {"x0_y0.png", ".x0_y0.png"} <= {Path(sample.image).name for sample in samples_of(tmp_path / "set", "train")}


def test_a_public_data_set_of_which_images_are_missing_says_how_many_are_there(source, tmp_path, monkeypatch, capsys):
    value = content()
    value["categories"][0]["name"] = "ship"
    source(value)
    root = tmp_path / "ssdd"
    (root / "annotations").mkdir(parents=True)
    (tmp_path / "source").rename(root / "imgs")
    (root / "imgs" / "all.json").rename(root / "annotations" / "train.json")
    assert run_script(monkeypatch, "prepare", "ssdd", root, "-o", tmp_path / "set", "--val-share", 0) == 0
    assert capsys.readouterr().err.startswith("6 of the 1160 images of SSDD")
