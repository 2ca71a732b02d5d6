"""Measure a model on labelled images, by COCO's average precision of boxes and masks.

    python training/evaluate.py --model MODEL --images DIR --annotations FILE [--page PAGE.html] [--json]
    python training/evaluate.py --model MODEL --synthetic 50 [--page PAGE.html] [--json]

With --page, it also writes one HTML file: the figures by size and by class, precision-recall curves, the best and the
worst images with truth and predictions, the model's card. Exit status: 0 done, 2 bad input, 130 interrupted.
"""

import argparse
import json
import shlex
import sys
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from rs4d_core.datasets.class_map import read_class_map
from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.coco_records import check_class_map, read_content
from rs4d_core.datasets.sample import Sample
from rs4d_core.errors import DatasetError, OptionError
from rs4d_core.evaluation.coco_metrics import CocoMetrics, Comparison
from rs4d_core.evaluation.page import Measurement, write_page
from rs4d_core.evaluation.predict_samples import predict_samples
from rs4d_core.finetuning.data import fresh_scenes
from rs4d_core.models.checkpoint import LoadedModel, load_model
from rs4d_core.runs.command import exit_status
from rs4d_core.wording import counted


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model file")
    parser.add_argument("--images", type=Path, help="the folder of the images")
    parser.add_argument("--annotations", type=Path, help="their COCO file")
    parser.add_argument(
        "--classes",
        default="",
        metavar="A=B,C=D",
        help="where names differ: the file's category A is the model's class B, and so on",
    )
    parser.add_argument(
        "--fit",
        type=int,
        metavar="PX",
        help="scale images to this longer side, as a recipe's data set with `fit` is measured (default: as they are)",
    )
    parser.add_argument("--synthetic", type=int, metavar="N", help="measure on N generated scenes instead")
    parser.add_argument("--seed", type=int, default=20_000, help="of the generated scenes (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch (default: as torch takes them)")
    parser.add_argument("--page", type=Path, metavar="PAGE.html", help="also write a page that shows all of it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _check_page(page: Path | None) -> None:
    """See, before anything is measured, that the page can be written."""
    if page is not None and page.suffix.lower() != ".html":
        raise OptionError(f"--page {page} must end in .html")
    if page is not None and not page.parent.is_dir():
        raise OptionError(f"--page {page}: there is no folder {page.parent}; make it, or give another place")


def _samples(arguments: argparse.Namespace, model: LoadedModel) -> list[Sample]:
    files = arguments.images is not None and arguments.annotations is not None
    if files == (arguments.synthetic is not None):
        raise OptionError("give either --images and --annotations, or --synthetic N")
    card = model.card
    if files:
        class_map = read_class_map("--classes", arguments.classes)
        if class_map:
            check_class_map({arguments.annotations: read_content(arguments.annotations)}, class_map)
        samples = read_coco(arguments.annotations, arguments.images, card.classes, class_map)
        if not samples:
            raise DatasetError(f"{arguments.annotations} lists no image: there is nothing to measure on")
        return samples
    if arguments.synthetic < 1:
        raise OptionError(f"--synthetic is {arguments.synthetic}: give 1 scene or more")
    if arguments.seed < 0:
        raise OptionError(f"--seed is {arguments.seed}: it cannot be negative")
    return fresh_scenes(arguments.synthetic, arguments.seed, card.window_px, card.resolution_m, card.classes)


def _print(metrics: CocoMetrics) -> None:
    print(f"{counted(metrics.images, 'image'):<23}{'box AP':>8}{'AP50':>8}{'mask AP':>10}{'AP50':>8}{'instances':>11}")
    rows = [("all", metrics.box.ap, metrics.box.ap50, metrics.mask.ap, metrics.mask.ap50, None)]
    if metrics.box_unlimited is not None:
        box, mask = metrics.box_unlimited, metrics.mask_unlimited
        rows.append(("all detections", box.ap, box.ap50, mask.ap, mask.ap50, None))
    rows += [
        (name, entry.box_ap, entry.box_ap50, entry.mask_ap, entry.mask_ap50, entry.instances)
        for name, entry in metrics.by_class.items()
        if entry.instances
    ]
    for name, *values, count in rows:
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        print(f"{name:<23}{cells[0]:>8}{cells[1]:>8}{cells[2]:>10}{cells[3]:>8}{'' if count is None else count:>11}")


def _run() -> int:
    arguments = _arguments()
    _check_page(arguments.page)
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise OptionError(f"--threads is {arguments.threads}: give 1 or more")
        torch.set_num_threads(arguments.threads)
    if arguments.fit is not None and arguments.fit < 1:
        raise OptionError(f"--fit is {arguments.fit}: give 1 pixel or more")
    model = load_model(arguments.model, arguments.device)
    samples = _samples(arguments, model)
    console = Console(stderr=True)
    shown = track(samples, "measuring", console=console, disable=not console.is_terminal, transient=True)
    predictions = list(predict_samples(model.predict, shown, arguments.fit))
    comparison = Comparison(predictions, samples, model.card.classes)
    if arguments.page is not None:
        source = str(arguments.annotations or f"generated scenes, seed {arguments.seed}")
        command, time = shlex.join(["python", *sys.argv]), datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        write_page(Measurement(model, samples, predictions, source, command, time), comparison, arguments.page)
    if arguments.json:
        page = {} if arguments.page is None else {"page": str(arguments.page)}
        print(json.dumps(comparison.metrics.to_json() | page))
    else:
        _print(comparison.metrics)
        if arguments.page is not None:
            print(arguments.page)
    return 0


def main() -> int:
    return exit_status(_run, "nothing was measured")


if __name__ == "__main__":
    sys.exit(main())
