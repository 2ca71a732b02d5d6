"""Runs so small that tests do them whole: their images, their recipes, and what their logs say."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from rs4d_core.models.card import default_model_path

ROOT = Path(__file__).resolve().parents[2]
RUNNING = """
[running]
checkpoint_steps = 3
log_every = 1
threads = 1
workers = 0
accelerator = "cpu"
"""
"""The settings of a run's machine, alike everywhere: every step is logged, and few are lost with a kill."""

DISTILLATION = f"""
[student]
name = "pupil"
preset = "tiny"

[teacher]
kind = "segmenter"
source = "{default_model_path()}"

[images]
held_back = 2

[corruption]
noise = 30
mask = 25
full_at = 0.9

[optimization]
image_size = 64
batch = 4
steps = 16
lr = 1e-3
warmup_steps = 3
precision = "32"
seed = 5

[evaluation]
every = 8
"""
FINETUNING = """
[model]
name = "squares"
preset = "tiny"
classes = ["building", "ship"]
colors = ["#ff0000", "#0000ff"]
resolution_m = [0.3, 1.0]

[[datasets]]
kind = "coco"
name = "squares"
annotations = "squares.json"
images = "images"
weight = 1
scale = [0.8, 1.25]
licence = "generated"
held_back = { count = 2, seed = 3 }

[optimization]
image_size = 64
batch = 2
steps = 14
lr = 1e-3
warmup_steps = 3
precision = "32"
seed = 5

[evaluation]
every = 7
"""


def write_distillation(folder: Path) -> Path:
    """The recipe, `folder/recipe.toml`, and ten images in two folders of `folder/images`: bright squares on a dark,
    uneven ground; one more is cut short."""
    rng = np.random.default_rng(0)
    for number in range(10):
        place = folder / "images" / ("a" if number < 5 else "b")
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(rng.integers(20, 120, (80, 64, 3), dtype=np.uint8))
        x, y = rng.integers(0, 40, 2).tolist()
        ImageDraw.Draw(picture).rectangle((x, y, x + 23, y + 23), (200, 180, 160))
        picture.save(place / f"{number}.png")
    whole = (folder / "images" / "a" / "3.png").read_bytes()
    (folder / "images" / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "recipe.toml").write_text(DISTILLATION + RUNNING)
    return folder / "recipe.toml"


def write_finetuning(folder: Path) -> Path:
    """The recipe, `folder/squares.toml`, and eight images of 80 x 64 pixels, each with bright squares (buildings) on a
    dark ground."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 9):
        picture = Image.fromarray(rng.integers(20, 60, (64, 80, 3), dtype=np.uint8))
        for x in (5, 45):
            y = int(rng.integers(5, 35))
            ImageDraw.Draw(picture).rectangle((x, y, x + 23, y + 23), (200, 180, 160))
            ring = [x, y, x + 24, y, x + 24, y + 24, x, y + 24]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x, y, 24, 24],
                    "segmentation": [ring],
                    "area": 576,
                    "iscrowd": 0,
                }
            )
        picture.save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 64})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "building"}]}
    (folder / "squares.json").write_text(json.dumps(content))
    (folder / "squares.toml").write_text(FINETUNING + RUNNING)
    return folder / "squares.toml"


def start(script: str, recipe: Path, data: Path, runs: Path, *arguments: object) -> subprocess.Popen:
    """`training/SCRIPT.py` as a user starts it."""
    command = [sys.executable, ROOT / "training" / f"{script}.py", recipe, "--data", data, "--runs", runs, *arguments]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def metrics_of(folder: Path) -> list[dict]:
    """The lines of a run's metrics, less the timings."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timings = "images_per_second", "seconds"
    return [{key: value for key, value in line.items() if key not in timings} for line in lines]


def steps_of(folder: Path) -> list[dict]:
    """The lines that tell of steps: a run that is at work may have written half of the last one."""
    try:
        whole = (folder / "metrics.jsonl").read_text().rpartition("\n")[0]
    except FileNotFoundError:
        return []
    return [line for line in map(json.loads, whole.splitlines()) if "grad_norm" in line]


def wait_for_steps(run: subprocess.Popen, folder: Path, steps: int) -> None:
    """Until a run has told of that many steps."""
    deadline = time.monotonic() + 120
    while len(steps_of(folder)) < steps:
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_after(run: subprocess.Popen, folder: Path, steps: int) -> None:
    """SIGKILL once a run has told of that many steps."""
    wait_for_steps(run, folder, steps)
    run.send_signal(signal.SIGKILL)
    run.communicate()
