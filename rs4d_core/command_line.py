"""What the command `rs4d` takes: its commands, their arguments, and the help on them."""

import argparse
from pathlib import Path
from typing import Any

import rs4d_core

BAD_USAGE = 2


class _Parser(argparse.ArgumentParser):
    """Argparse, with one line for a wrong command line."""

    def error(self, message: str) -> None:
        self.exit(BAD_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """What `rs4d` takes. The chosen command's name is the attribute `command` of what it parses."""
    whole = _Parser(prog="rs4d", description="Instance polygons from remote-sensing scenes.", allow_abbrev=False)
    whole.add_argument("--version", action="version", version=f"rs4d {rs4d_core.__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_segment(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_info(commands)
    _add_doctor(commands)
    _add_serve(commands)
    return whole


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(command=name)
    return command


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_segment(commands: Any) -> None:
    command = _command(commands, "segment", "Find the instances in a scene and write them as polygons.")
    command.add_argument(
        "scene",
        metavar="SCENE",
        nargs="+",
        help="a raster that GDAL can read: a file, a VRT, or an address (https, s3, gs, az), of which only what is "
        "needed is fetched; a folder of rasters; or @FILE with one of these a line. Tiles that touch are one scene",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the suffix picks the format: .gpkg, .geojson, .fgb, .parquet, or .json for COCO. "
        "A .gpkg that exists gets a further run; any other file is replaced. A folder gets a .gpkg for each scene. "
        "A run that was broken off goes on when the same command is given again",
    )
    command.add_argument("--model", metavar="FILE", type=Path, help="model file (default: the one that comes along)")
    command.add_argument(
        "--bbox", metavar=("W", "S", "E", "N"), type=float, nargs=4, help="only this part: west south east north"
    )
    command.add_argument("--bbox-crs", metavar="CRS", help="of --bbox, such as EPSG:4326 (default: the scene's)")
    command.add_argument("--bands", metavar="1,2,3", type=_integers, help="the bands to take as red, green and blue")
    command.add_argument("--resolution", metavar="M", type=float, help="metres a pixel to work at")
    command.add_argument(
        "--window",
        metavar="PX",
        type=_window,
        help="side of the windows (default: the model's own); 'auto': as large as memory holds, up to 4096",
    )
    command.add_argument("--overlap", metavar="PX", type=int, help="overlap of the windows (default: the model's)")
    command.add_argument(
        "--score", metavar="S", type=float, help="least score, 0 to 1 (default: the model's, by class)"
    )
    command.add_argument("--classes", metavar="A,B", type=_names, help="only these classes")
    command.add_argument("--regularize", action="store_true", help="straighten outlines, buildings to right angles")
    command.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument(
        "--cluster",
        metavar="WHERE",
        help="tcp://HOST:PORT of a Dask scheduler, whose workers predict; or local:N for N processes on this machine",
    )
    command.add_argument("--picture", metavar="PNG", type=Path, help="also draw an overview picture, of one scene")
    _add_json(command)


def _add_evaluate(commands: Any) -> None:
    command = _command(commands, "evaluate", "Compare predicted polygons with a reference layer.")
    command.add_argument("predicted", metavar="PREDICTED", help="vector file, or FILE|layername=NAME")
    command.add_argument("reference", metavar="REFERENCE", help="vector file, or FILE|layername=NAME, in any CRS")
    command.add_argument(
        "--iou", metavar="I", type=float, default=0.5, help="overlap that a match asks for (default: 0.5)"
    )
    command.add_argument("--class-field", metavar="F", help="class field of the reference (default: class)")
    command.add_argument("--errors", metavar="GPKG", type=Path, help="also write what is missed, false or badly shaped")
    _add_json(command)


def _add_export(commands: Any) -> None:
    command = _command(commands, "export", "Write a result layer in another format.")
    command.add_argument("layer", metavar="LAYER", help="GeoPackage that rs4d wrote")
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        required=True,
        help="its suffix picks the format: .gpkg, .geojson, .fgb, .parquet, .shp, or .json for COCO",
    )
    command.add_argument("--accepted", action="store_true", help="only what a review has accepted")
    command.add_argument("--scene", metavar="SCENE", help="for COCO and chips: the scene, where it has moved since")
    command.add_argument(
        "--chips",
        metavar="PX",
        type=int,
        help="a folder to train on: -o FOLDER/annotations.json, and image chips of this size beside it",
    )
    command.add_argument("--resolution", metavar="M", type=float, help="of chips, metres a pixel (default: the run's)")
    _add_json(command)


def _add_info(commands: Any) -> None:
    command = _command(commands, "info", "Show the card of a model file, or of a distilled encoder.")
    command.add_argument("model", metavar="FILE", type=Path, nargs="?", help="(default: the model that comes along)")
    _add_json(command)


def _add_doctor(commands: Any) -> None:
    _add_json(_command(commands, "doctor", "Check this installation, and say how to mend what is missing."))


def _add_serve(commands: Any) -> None:
    _command(commands, "serve", "Take requests from stdin, for programs such as QGIS: see docs/engine-protocol.md.")


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 1,2,3") from None


def _window(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'auto' nor a number of pixels") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))
