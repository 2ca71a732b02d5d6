"""Bring a data set into the one layout that recipes read: see docs/data.md.

    python training/prepare.py ssdd|nwpu|whu ROOT -o DATA/NAME
    python training/prepare.py coco FILE.json --images DIR --place 'x(\\d+)_y(\\d+)' -o DATA/NAME
    python training/prepare.py raster SCENE... --layer LAYER... --class-name roof --resolution 0.3 -o DATA/NAME
    python training/prepare.py check DATA/NAME

The folder appears when it is whole; an existing one is never touched. Interrupted, the same command goes on where it
was. Exit status: 0 done, 2 bad input (check: faults found), 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from rs4d_core.datasets.catalog import CATALOG, CocoDataset
from rs4d_core.datasets.check import Checked, check_dataset
from rs4d_core.datasets.class_map import read_class_map
from rs4d_core.datasets.coco_import import CocoPart, CocoSource, prepare_coco
from rs4d_core.datasets.mask_import import prepare_masks
from rs4d_core.datasets.places import Split
from rs4d_core.datasets.preparation import Description, Prepared
from rs4d_core.errors import OptionError
from rs4d_core.interruption import Interruption
from rs4d_core.runs.command import exit_status
from rs4d_core.wording import one_line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, public in CATALOG.items():
        command = commands.add_parser(name, help=f"{public.title}, as published")
        command.add_argument("root", type=Path, help="its root folder")
        _common(command)
        if isinstance(public, CocoDataset):
            _split(command, "held back, where it comes without a file for val")
    coco = commands.add_parser("coco", help="any COCO instance file")
    coco.add_argument("annotations", type=Path, help="the file, of the images to train on or of all images")
    coco.add_argument("--images", type=Path, required=True, help="the folder of the images")
    coco.add_argument("--val", type=Path, metavar="FILE", help="the file of the images to measure")
    coco.add_argument("--val-images", type=Path, metavar="DIR", help="their folder, where it is another")
    coco.add_argument("--place", metavar="REGEX", help="split by place: finds x and y, in pixels, in the file names")
    coco.add_argument("--by-image", action="store_true", help="split by image: for images that share no ground")
    coco.add_argument("--class-map", default="", metavar="A=B,C=D", help="call the file's category A B, and so on")
    _common(coco)
    _described(coco)
    _split(coco, "held back")
    raster = commands.add_parser("raster", help="scenes with layers of polygons")
    raster.add_argument("scenes", type=Path, nargs="+", help="files that GDAL can read, or folders of them")
    raster.add_argument("--layer", nargs="+", required=True, metavar="LAYER", help="one for each scene, or for all")
    raster.add_argument("--class-field", metavar="NAME", help="field that names the class (default: class)")
    raster.add_argument("--class-name", metavar="NAME", help="the class of all polygons, in place of a field")
    raster.add_argument("--resolution", type=float, metavar="M", help="metres a pixel (default: each scene's own)")
    raster.add_argument("--bands", metavar="R,G,B", help="three numbers from 1, or one (default: as the scene says)")
    raster.add_argument("--chip", type=int, default=512, metavar="PX", help="length of a chip (default: %(default)s)")
    raster.add_argument("--overlap", type=int, default=0, metavar="PX", help="of neighbours (default: %(default)s)")
    raster.add_argument(
        "--empty-share",
        type=float,
        default=0.2,
        metavar="S",
        help="at most this share of the chips to train on shows no object (default: %(default)s)",
    )
    _common(raster)
    _described(raster)
    _split(raster, "held back, in whole blocks of ground")
    check = commands.add_parser("check", help="check a folder that was prepared")
    check.add_argument("folder", type=Path)
    check.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", type=Path, required=True, help="the folder to make")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _described(command: argparse.ArgumentParser) -> None:
    command.add_argument("--classes", default="", metavar="A,B", help="all that may occur (default: those that do)")
    command.add_argument(
        "--licence", default="not stated", help="of the data, for dataset.json; a model's card has its recipe's"
    )


def _split(command: argparse.ArgumentParser, what: str) -> None:
    group = command.add_argument_group("what is held back to measure")
    group.add_argument(
        "--val-share", type=float, default=0.2, metavar="S", help=f"share {what} (default: %(default)s; 0: nothing)"
    )
    group.add_argument(
        "--margin",
        type=float,
        metavar="PX",
        help="ground between it and what is trained on, where the split is by place (default: an eighth of a chip; 64)",
    )
    group.add_argument("--seed", type=int, default=0, help="of what is left to chance (default: %(default)s)")


def _progress(what: str) -> Callable[[list], Iterable]:
    console = Console(stderr=True)
    return lambda items: track(items, what, console=console, disable=not console.is_terminal, transient=True)


def _public(arguments: argparse.Namespace) -> Prepared:
    public = CATALOG[arguments.command]
    description = Description(
        arguments.output.name, public.classes, public.licence, public.citation, public.resolution_m
    )
    parts = public.parts(arguments.root)
    if isinstance(public, CocoDataset):
        source = CocoSource(parts, public.classes)
        split = _split_of(arguments)
        prepared = prepare_coco(source, split, arguments.output, lambda _: description, _progress("images"))
    else:
        prepared = prepare_masks(parts, arguments.output, description, _progress("tiles"))
    there, published = sum(part["images"] for part in prepared.splits.values()), sum(public.images.values())
    if there < published:
        note = f"{there} of the {published} images of {public.title}, as published, are in the data set"
        prepared = replace(prepared, notes=(note, *prepared.notes))
    return prepared


def _coco(arguments: argparse.Namespace) -> Prepared:
    split = _split_of(arguments)
    ways = (arguments.val is not None, arguments.place is not None, arguments.by_image, split.share == 0)
    if sum(ways) != 1:
        raise OptionError(
            "say what is held back: --val FILE; or --place REGEX, where file names tell where images lie; or "
            "--by-image, where images share no ground; or --val-share 0 for nothing"
        )
    parts = [CocoPart(arguments.annotations, arguments.images, None if arguments.val is None else "train")]
    if arguments.val is not None:
        parts.append(CocoPart(arguments.val, arguments.val_images or arguments.images, "val"))
    source = CocoSource(
        tuple(parts), _names(arguments.classes), read_class_map("--class-map", arguments.class_map), arguments.place
    )
    return prepare_coco(source, split, arguments.output, _description(arguments), _progress("images"))


def _raster(arguments: argparse.Namespace) -> Prepared:
    # Imported here: what reads scenes imports torch, which takes seconds.
    from rs4d_core.datasets.scene_import import SceneSource, find_scenes, prepare_scenes

    scenes = find_scenes(arguments.scenes)
    layers = arguments.layer * len(scenes) if len(arguments.layer) == 1 else arguments.layer
    source = SceneSource(
        scenes,
        tuple(layers),
        arguments.class_field,
        arguments.class_name,
        _names(arguments.classes),
        arguments.resolution,
        _numbers(arguments.bands),
        arguments.chip,
        arguments.overlap,
        arguments.empty_share,
    )
    return prepare_scenes(source, _split_of(arguments), arguments.output, _description(arguments), _progress("chips"))


def _split_of(arguments: argparse.Namespace) -> Split:
    usual = arguments.chip / 8 if arguments.command == "raster" else 64.0
    margin = usual if arguments.margin is None else arguments.margin
    return Split(arguments.val_share, margin, arguments.seed)


def _description(arguments: argparse.Namespace) -> Callable[[tuple[str, ...]], Description]:
    return lambda classes: Description(arguments.output.name, classes, arguments.licence)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise OptionError(f'--bands "{text}" are no band numbers: give three, such as 4,3,2, or one') from None


def _prepare(arguments: argparse.Namespace) -> Prepared | Checked:
    if arguments.command == "check":
        return check_dataset(arguments.folder, _progress("images"))
    return {"coco": _coco, "raster": _raster}.get(arguments.command, _public)(arguments)


def _run() -> int:
    arguments = _arguments()
    with Interruption():
        result = _prepare(arguments)
    faults = result.faults if isinstance(result, Checked) else ()
    for line in faults or getattr(result, "notes", ()):
        print(one_line(line), file=sys.stderr)
    print(json.dumps(result.to_json()) if arguments.json else one_line(result.summary))
    return 2 if faults else 0


def main() -> int:
    return exit_status(_run, "the same command goes on where it was")


if __name__ == "__main__":
    sys.exit(main())
