"""The evaluation page: it tells the measured figures, shows the right images, and lets no name out of its text."""

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import small_config
from training_script import run_script

from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.evaluation.coco_metrics import Comparison, ImageResult
from rs4d_core.evaluation.page import SHOWN, Measurement, best_images, render_page, worst_images
from rs4d_core.models.card import ModelCard
from rs4d_core.models.checkpoint import load_model, save_model
from rs4d_core.models.instances import Instances, MaskPatch
from rs4d_core.models.segmenter import Segmenter

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)> $\\frac{ {{ 7 * 7 }}')
WIDTH, HEIGHT = 96, 64

pytest.importorskip("matplotlib", reason="pages need the extra 'train'")
pytest.importorskip("jinja2", reason="pages need the extra 'train'")


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "hostile.safetensors"
    torch.manual_seed(0)
    segmenter = Segmenter(replace(small_config(), classes=HOSTILE))
    card = ModelCard(
        name="<b>bold</b>",
        config=segmenter.config,
        colors=("#e41a1c", "#377eb8"),
        resolution_m=(0.3, 1.0),
        window_px=128,
        overlap_px=32,
        default_scores=(0.5, 0.5),
        training_data=({"name": "<i>data</i>", "licence": "CC0", "via": "older"}, {"name": "of unknown licence"}),
    )
    save_model(path, segmenter, card)
    return path


def found(*boxes_labels_scores: tuple) -> Instances:
    boxes = [box for box, _, _ in boxes_labels_scores]
    return Instances(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for _, _, score in boxes_labels_scores], dtype=torch.float32),
        torch.tensor([label for _, label, _ in boxes_labels_scores], dtype=torch.int64),
        [MaskPatch(torch.ones(28, 28), box) for box in boxes],
    )


def annotation(box: tuple, label: int = 0, crowd: bool = False) -> Annotation:
    x0, y0, x1, y1 = box
    return Annotation(label, box, (np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),), None, crowd)


HOUSE, BARN, AWAY = (10.0, 10.0, 40.0, 40.0), (50.0, 10.0, 90.0, 30.0), (5.0, 45.0, 30.0, 62.0)


def sample(number: int, *annotations: Annotation) -> Sample:
    picture = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 90)).save(picture, "PNG")
    return Sample(picture.getvalue(), WIDTH, HEIGHT, number, annotations, (True, True))


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def pictures(self, kind: str) -> list[bytes]:
        start = f"data:image/{kind};base64,"
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        assert all(source.startswith("data:image/") for source in sources)
        return [base64.b64decode(source.removeprefix(start)) for source in sources if source.startswith(start)]


@pytest.fixture(scope="module")
def page(hostile_model) -> Page:
    samples = [sample(1, annotation(HOUSE), annotation(BARN, 1)), sample(2, annotation(HOUSE)), sample(3)]
    predictions = [found((HOUSE, 0, 0.9), (BARN, 1, 0.8)), found((AWAY, 0, 0.7)), found()]
    comparison = Comparison(predictions, samples, HOSTILE)
    model = load_model(hostile_model, "cpu")
    command = "python evaluate.py --images '<em>here</em>'"
    return Page(render_page(Measurement(model, samples, predictions, "<u>x</u>.json", command, "today"), comparison))


def test_names_stay_text(page):
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b", "em", "u", "iframe", "link"})
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    for name in (*HOSTILE, "<b>bold</b>", "<i>data</i>, by way of older", "of unknown licence"):
        assert any(name in text for text in page.texts), name


def test_the_page_stands_alone(page):
    assert all("href" not in attributes for _, attributes in page.tags)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    (curves,) = page.pictures("svg+xml")
    assert ElementTree.fromstring(curves).tag.endswith("svg")


def test_the_best_and_the_worst_are_drawn_with_their_mistakes_in_red(page):
    best, worst = (np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) for jpeg in page.pictures("jpeg"))
    text = " ".join("".join(page.texts).split())
    assert "generated image 1: F1 1.00; 2 right, 0 wrong, 0 missed" in text
    assert "generated image 2: F1 0.00; 0 right, 1 wrong, 1 missed" in text
    assert best.shape[1] > 2 * WIDTH

    def redness(picture: np.ndarray, box: tuple, side: int) -> float:
        scale = picture.shape[0] / HEIGHT
        x, y = (box[0] + box[2]) / 2 * scale + side * (picture.shape[1] - WIDTH * scale), (box[1] + box[3]) / 2 * scale
        red, green, _ = picture[round(y), round(x)]
        return red - green

    assert redness(best, HOUSE, 0) < 20
    assert redness(best, HOUSE, 1) < 20
    assert redness(worst, HOUSE, 0) > 50  # missed
    assert redness(worst, AWAY, 1) > 50  # wrong


def test_each_image_is_judged_at_the_default_scores_of_the_classes():
    crowd = annotation((0.0, 42.0, 40.0, 64.0), crowd=True)
    samples = [sample(1, annotation(HOUSE), annotation(BARN, 1), crowd)]
    predictions = [found((HOUSE, 0, 0.9), (BARN, 0, 0.8), (BARN, 1, 0.4), (AWAY, 0, 0.7))]
    comparison = Comparison(predictions, samples, HOSTILE)
    assert comparison.by_image((0.5, 0.5)) == [ImageResult(right=(0,), wrong=(1,), found=(0,), missed=(1,))]
    (low,) = comparison.by_image((0.5, 0.3))
    assert (sorted(low.right), low.wrong, sorted(low.found), low.missed) == ([0, 2], (1,), [0, 1], ())
    assert low.f1 == pytest.approx(4 / 5)


def test_curves_fall_from_one_where_half_is_found():
    comparison = Comparison([found((HOUSE, 0, 0.9))], [sample(1, annotation(HOUSE), annotation(AWAY))], HOSTILE)
    curves = comparison.curves("mask")
    assert list(curves) == [HOSTILE[0]]  # the other has nothing to find
    assert curves[HOSTILE[0]][:51] == pytest.approx(1)
    assert curves[HOSTILE[0]][51:] == pytest.approx(0)


def test_best_and_worst_share_no_image():
    def result(right: int, wrong: int, missed: int) -> ImageResult:
        return ImageResult((0,) * right, (0,) * wrong, (0,) * right, (0,) * missed)

    results = [result(0, 0, 0), result(1, 0, 0), result(5, 0, 0), result(1, 1, 0), result(0, 3, 1), result(0, 1, 0)]
    best = best_images(results)
    assert best == [2, 1, 3]
    assert worst_images(results, best) == [4, 5]
    many = [result(1, 1, 0)] * (3 * SHOWN)
    assert best_images(many) == list(range(SHOWN))
    assert worst_images(many, best_images(many)) == list(range(SHOWN, 2 * SHOWN))


def test_the_command_writes_the_page_and_the_figures(tmp_path, untrained_model, monkeypatch, capsys):
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 90)).save(tmp_path / "one.png")
    annotations = tmp_path / "ships.json"
    ship = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "one.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{**ship, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}],
        "categories": [{"id": 1, "name": "ship"}],
    }
    annotations.write_text(json.dumps(content))

    command = "evaluate", "--model", untrained_model, "--images", tmp_path, "--annotations", annotations
    output = tmp_path / "page.html"
    assert run_script(monkeypatch, *command, "--page", output, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"ap", "ap50", "ap75", "small", "medium", "large"} <= figures["box"].keys() & figures["mask"].keys()
    assert figures["by_class"]["ship"]["instances"] == 1
    assert figures["page"] == str(output)
    text = "".join(Page(output.read_text(encoding="utf-8")).texts)
    assert f"--annotations {annotations}" in text
    for bad in (tmp_path / "page.txt", tmp_path / "missing" / "page.html"):
        assert run_script(monkeypatch, *command, "--page", bad) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(bad) in line
