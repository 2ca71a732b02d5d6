"""Measure a model on labelled images, by COCO's average precision of boxes and masks.

    python training/evaluate.py --model MODEL --images DIR --annotations FILE [--page PAGE.html] [--json]
    python training/evaluate.py --model MODEL --synthetic 50 [--page PAGE.html] [--json]
    python training/evaluate.py --model MODEL --recipe RECIPE --data DATA [--card] [--json]

With --page, it also writes one HTML file: the figures by size and by class, precision-recall curves, the best and the
worst images with truth and predictions, the model's card. --pictures writes those images alone.

With --recipe, it measures all that the recipe holds back from training, each data set for itself and all together.
--card puts these figures on the card in the model file, and the scores that follow from them: training does the same
when it ends. Exit status: 0 done, 2 bad input, 130 interrupted.
"""

import argparse
import importlib
import json
import shlex
import sys
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, track
from torch import Tensor

from rs4d_core.datasets.class_map import read_class_map
from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.coco_records import check_class_map, read_content
from rs4d_core.datasets.sample import Sample
from rs4d_core.errors import DatasetError, OptionError, OutputError
from rs4d_core.evaluation.coco_metrics import CocoMetrics, Comparison
from rs4d_core.evaluation.page import Measurement, best_images, worst_images, write_page
from rs4d_core.evaluation.predict_samples import predict_samples
from rs4d_core.finetuning.data import fresh_scenes
from rs4d_core.models.checkpoint import LoadedModel, load_model, replace_card
from rs4d_core.models.instances import Instances
from rs4d_core.runs.command import exit_status
from rs4d_core.whole_file import write_whole
from rs4d_core.wording import counted

PICTURES = 2
"""How many --pictures draws of the best images, and of the worst."""
SEED = 20_000
"""Of --synthetic; recipes hold back scenes of small seeds."""


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
    parser.add_argument("--seed", type=int, help=f"of the generated scenes (default: {SEED})")
    parser.add_argument("--recipe", type=Path, help="measure on what this recipe of training/finetune.py holds back")
    parser.add_argument("--data", type=Path, help="the folder that the recipe's paths start from")
    parser.add_argument("--card", action="store_true", help="with --recipe: put the figures into the model file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch (default: as torch takes them)")
    parser.add_argument("--page", type=Path, metavar="PAGE.html", help="also write a page that shows all of it")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also draw the best and the worst images there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _check(arguments: argparse.Namespace) -> None:
    """See, before anything is measured, that the options go together and that what is asked for can be written."""
    page, pictures = arguments.page, arguments.pictures
    ways = (arguments.images or arguments.annotations, arguments.synthetic, arguments.recipe)
    if sum(way is not None for way in ways) != 1 or (arguments.images is None) != (arguments.annotations is None):
        raise OptionError("give either --images and --annotations, or --synthetic N, or --recipe and --data")
    if (arguments.recipe is None) != (arguments.data is None):
        raise OptionError("--recipe and --data go together: the recipe's paths start from the data folder")
    if arguments.recipe is None and arguments.card:
        raise OptionError("--card needs --recipe: a card tells of what was held back from the model's training")
    if arguments.classes and arguments.annotations is None:
        raise OptionError("--classes is for --annotations, whose names it tells: leave it out")
    if arguments.seed is not None and arguments.synthetic is None:
        raise OptionError("--seed is for --synthetic: leave it out")
    if arguments.recipe is not None and (page or pictures or arguments.fit):
        raise OptionError("--page, --pictures and --fit are for one data set: leave them out beside --recipe")
    if pictures is not None and not pictures.is_dir():
        raise OptionError(f"--pictures {pictures} is no folder; make it, or give another place")
    if page is not None and page.suffix.lower() != ".html":
        raise OptionError(f"--page {page} must end in .html")
    if page is not None and not page.parent.is_dir():
        raise OptionError(f"--page {page}: there is no folder {page.parent}; make it, or give another place")
    if page is not None or pictures is not None:
        for module in ("jinja2", "rs4d_core.evaluation.page_pictures"):
            importlib.import_module(module)  # where a package is missing, it shall not be told after the measuring


def _samples(arguments: argparse.Namespace, model: LoadedModel) -> list[Sample]:
    card = model.card
    if arguments.annotations is not None:
        class_map = read_class_map("--classes", arguments.classes)
        if class_map:
            check_class_map({arguments.annotations: read_content(arguments.annotations)}, class_map)
        samples = read_coco(arguments.annotations, arguments.images, card.classes, class_map)
        if not samples:
            raise DatasetError(f"{arguments.annotations} lists no image: there is nothing to measure on")
        return samples
    if arguments.synthetic < 1:
        raise OptionError(f"--synthetic is {arguments.synthetic}: give 1 scene or more")
    seed = _seed(arguments)
    if seed < 0:
        raise OptionError(f"--seed is {seed}: it cannot be negative")
    return fresh_scenes(arguments.synthetic, seed, card.window_px, card.resolution_m, card.classes)


def _seed(arguments: argparse.Namespace) -> int:
    return SEED if arguments.seed is None else arguments.seed


def _print(metrics: CocoMetrics, name: str = "") -> None:
    title = f"{name}, {metrics.images}" if name else counted(metrics.images, "image")
    print(f"{title:<23}{'box AP':>8}{'AP50':>8}{'mask AP':>10}{'AP50':>8}{'instances':>11}")
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


def _write_pictures(measurement: Measurement, comparison: Comparison, folder: Path) -> None:
    from rs4d_core.evaluation.page_pictures import draw_comparison

    card, results = measurement.model.card, comparison.by_image(measurement.model.card.default_scores)
    best = best_images(results)[:PICTURES]
    for kind, places in (("best", best), ("worst", worst_images(results, best)[:PICTURES])):
        for number, place in enumerate(places, 1):
            sample, instances = measurement.samples[place], measurement.predictions[place]
            path = folder / f"{kind}-{number}.jpg"
            try:
                write_whole(path, draw_comparison(sample, instances, results[place], card.colors))
            except OSError as error:
                raise OutputError(
                    f"cannot write the picture {path} ({error.strerror}): choose another place"
                ) from error


def _measure_recipe(arguments: argparse.Namespace, model: LoadedModel) -> int:
    # Imported here: recipes need a package of the training extra on Python 3.10, and nothing else here does.
    from rs4d_core.finetuning.data import open_data
    from rs4d_core.finetuning.measuring import measure_held_back, predict_held_back, with_figures
    from rs4d_core.finetuning.recipe import Recipe
    from rs4d_core.runs.tables import read_settings

    recipe = read_settings(Recipe, arguments.recipe)
    if recipe.model.classes != model.classes:
        raise OptionError(f"{arguments.model} has other classes than {arguments.recipe}: give the recipe of this model")
    data = open_data(recipe, arguments.data)
    if not data.held_back:
        raise OptionError(f"{arguments.recipe} holds nothing back: there is nothing to measure on")
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("measuring", total=sum(map(len, data.held_back.values())))

        def predict(images: Tensor) -> list[Instances]:
            progress.advance(task)
            return model.predict(images)

        predictions = predict_held_back(predict, data.held_back, data.fit_px)
        metrics = measure_held_back(predictions, data.held_back, model.classes)
    figures = {name: entry.to_json() for name, entry in metrics.items()}
    if arguments.json:
        print(json.dumps(figures))
    else:
        for number, (name, entry) in enumerate(metrics.items()):
            print(end="\n" if number else "")
            _print(entry, name)
    if arguments.card:
        replace_card(arguments.model, with_figures(model.card, figures))
    return 0


def _run() -> int:
    arguments = _arguments()
    _check(arguments)
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise OptionError(f"--threads is {arguments.threads}: give 1 or more")
        torch.set_num_threads(arguments.threads)
    if arguments.fit is not None and arguments.fit < 1:
        raise OptionError(f"--fit is {arguments.fit}: give 1 pixel or more")
    model = load_model(arguments.model, arguments.device)
    if arguments.recipe is not None:
        return _measure_recipe(arguments, model)
    samples = _samples(arguments, model)
    console = Console(stderr=True)
    shown = track(samples, "measuring", console=console, disable=not console.is_terminal, transient=True)
    predictions = list(predict_samples(model.predict, shown, arguments.fit))
    comparison = Comparison(predictions, samples, model.card.classes)
    # First what took the time: a page that cannot be written shall not cost the figures.
    if arguments.json:
        page = {} if arguments.page is None else {"page": str(arguments.page)}
        print(json.dumps(comparison.metrics.to_json() | page))
    else:
        _print(comparison.metrics)
    if arguments.page is not None or arguments.pictures is not None:
        source = str(arguments.annotations or f"generated scenes, seed {_seed(arguments)}")
        command, time = shlex.join(["python", *sys.argv]), datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        measurement = Measurement(model, samples, predictions, source, command, time)
        if arguments.page is not None:
            write_page(measurement, comparison, arguments.page)
            if not arguments.json:
                print(arguments.page)
        if arguments.pictures is not None:
            _write_pictures(measurement, comparison, arguments.pictures)
    return 0


def main() -> int:
    return exit_status(_run, "nothing was measured")


if __name__ == "__main__":
    sys.exit(main())
