"""The command `rs4d`.

Results go to stdout, progress and everything said to a person to stderr. Exit codes: 0 done; 2 bad input, told in one
line; 130 interrupted, with what was finished kept; 1 a check failed (`doctor`) or a fault of rs4d itself.

Torch and the geo libraries take seconds to import, so each command imports what it needs: `--help` answers at once.
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rs4d_core
from rs4d_core.errors import CancelledError, OptionError, RS4DError
from rs4d_core.interruption import Interruption
from rs4d_core.wording import counted, one_line, visible

if TYPE_CHECKING:
    from rs4d_core.models.checkpoint import LoadedModel
    from rs4d_core.scenes.layer_file import WrittenLayer
    from rs4d_core.scenes.pipeline import Progress, RunStart, SegmentOptions, SegmentResult, WindowSourceMaker
    from rs4d_core.scenes.writers import Feature

DONE = 0
FAULT = 1
BAD_INPUT = 2
INTERRUPTED = 130

_DEBUG_VARIABLE = "RS4D_DEBUG"


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit code; raises nothing."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # help and version were shown, or the command line is wrong and that was said
        return int(stop.code or DONE)
    try:
        with Interruption() as interruption:
            code = arguments.run(arguments, interruption)
        sys.stdout.flush()
        return code
    except CancelledError as error:
        return _fail(INTERRUPTED, f"interrupted: {error}")
    except RS4DError as error:
        _show_traceback()
        return _fail(BAD_INPUT, str(error))
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "interrupted: nothing was written")
    except BrokenPipeError:
        # The reader of stdout has gone, as `head` does. Python would complain about it once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # the last line of defence: a user never meets a traceback
        _show_traceback()
        return _fail(
            FAULT,
            f"internal error, please report it: {type(error).__name__}: {error} (set {_DEBUG_VARIABLE}=1 to see where)",
        )


def _debugging() -> bool:
    return bool(os.environ.get(_DEBUG_VARIABLE))


def _show_traceback() -> None:
    if _debugging():
        traceback.print_exc()


def _fail(code: int, message: str) -> int:
    print(f"rs4d: {one_line(message)}", file=sys.stderr)
    return code


def _note(message: str) -> None:
    print(f"rs4d: note: {one_line(message)}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Argparse, with one line for a wrong command line."""

    def error(self, message: str) -> None:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rs4d", description="Instance polygons from remote-sensing scenes.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"rs4d {rs4d_core.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_segment(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_info(commands)
    _add_doctor(commands)
    _add_serve(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_segment(commands: Any) -> None:
    command = _command(commands, "segment", _segment, "Find the instances in a scene and write them as polygons.")
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
    command.add_argument("--picture", metavar="PNG", type=Path, help="also draw an overview picture")
    _add_json(command)


def _add_evaluate(commands: Any) -> None:
    command = _command(commands, "evaluate", _evaluate, "Compare predicted polygons with a reference layer.")
    command.add_argument("predicted", metavar="PREDICTED", help="vector file, or FILE|layername=NAME")
    command.add_argument("reference", metavar="REFERENCE", help="vector file, or FILE|layername=NAME, in any CRS")
    command.add_argument(
        "--iou", metavar="I", type=float, default=0.5, help="overlap that a match asks for (default: 0.5)"
    )
    command.add_argument("--class-field", metavar="F", help="class field of the reference (default: class)")
    command.add_argument("--errors", metavar="GPKG", type=Path, help="also write what is missed, false or badly shaped")
    _add_json(command)


def _add_export(commands: Any) -> None:
    command = _command(commands, "export", _export, "Write a result layer in another format.")
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
    command = _command(commands, "info", _info, "Show the card of a model file, or of a distilled encoder.")
    command.add_argument("model", metavar="FILE", type=Path, nargs="?", help="(default: the model that comes along)")
    _add_json(command)


def _add_doctor(commands: Any) -> None:
    _add_json(_command(commands, "doctor", _doctor, "Check this installation, and say how to mend what is missing."))


def _add_serve(commands: Any) -> None:
    _command(
        commands, "serve", _serve, "Take requests from stdin, for programs such as QGIS: see docs/engine-protocol.md."
    )


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


def _print_json(result: dict[str, Any]) -> None:
    print(visible(json.dumps(result, ensure_ascii=False)))


def _print_line(text: str) -> None:
    print(one_line(text))


def _segment(arguments: argparse.Namespace, interruption: Interruption) -> int:
    from rs4d_core.console import ProgressReport
    from rs4d_core.scenes.many_scenes import plan_jobs
    from rs4d_core.scenes.picture import check_picture_path, write_picture
    from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
    from rs4d_core.scenes.reader import Scene
    from rs4d_core.scenes.scene_runs import segment_jobs

    jobs = plan_jobs(arguments.scene, arguments.output)
    if arguments.picture is not None:
        check_picture_path(arguments.picture)
        if len(jobs.scenes) > 1:
            raise OptionError("--picture shows one scene: leave it out, or give one scene")
    for note in jobs.notes:
        _note(note)
    options = SegmentOptions(
        bands=arguments.bands,
        resolution_m=arguments.resolution,
        bbox=None if arguments.bbox is None else tuple(arguments.bbox),
        bbox_crs=arguments.bbox_crs,
        window_px=arguments.window,
        overlap_px=arguments.overlap,
        score=arguments.score,
        classes=arguments.classes,
        regularize=arguments.regularize,
    )
    drawn: list[Feature] = []
    told: list[str] = []
    with _predicting(arguments, options) as (model, source), ProgressReport() as report:

        def on_progress(progress: "Progress") -> None:
            # From the first finished window on there is something to keep.
            interruption.be_graceful()
            report.show(progress)

        def on_start(start: "RunStart") -> None:
            told.extend(start.notes)
            for note in start.notes:
                _note(note)

        def segment(scene: str, output: Path) -> "SegmentResult":
            return segment_scene(
                scene,
                output,
                model,
                options,
                on_progress=on_progress,
                on_features=None if arguments.picture is None else drawn.extend,
                cancelled=lambda: interruption.requested,
                on_start=on_start,
                source=source,
            )

        result = segment_jobs(jobs, segment, model, options, _note, lambda: interruption.requested)
    if arguments.picture is not None and not result.interrupted:
        with Scene.open(
            jobs.scenes[0].scene(),
            options.bands,
            model.resolution_m,
            options.resolution_m,
            options.bbox,
            options.bbox_crs,
        ) as scene:
            write_picture(scene, drawn, arguments.picture, dict(zip(model.classes, model.colors, strict=True)))
    memory = f"{result.peak_rss_mb:.0f} MiB of memory at most"
    _note(f"model {model.name} on {model.device} ({model.device_reason}), {memory}")
    for note in result.notes:
        if note not in told:
            _note(note)
    if arguments.json:
        _print_json(
            {
                "output": str(result.output),
                "instances": result.instances,
                "by_class": result.by_class,
                "windows": result.windows,
                "seconds": result.seconds,
                "model_seconds": result.model_seconds,
                "device": result.device,
                "peak_rss_mb": result.peak_rss_mb,
                "interrupted": result.interrupted,
                "notes": [*jobs.notes, *result.notes],
                **({"scenes": [scene.to_json() for scene in result.scenes]} if len(jobs.scenes) > 1 else {}),
            }
        )
    else:
        in_model = "of it in the model" if arguments.cluster is None else "in the model, of all workers together"
        _print_line(
            f"{result.output}: {_counted(result.instances, result.by_class)}, from {counted(result.windows, 'window')} "
            f"in {result.seconds:.1f} s ({result.model_seconds:.1f} s {in_model})"
        )
    if result.interrupted:
        kept = counted(result.windows, "finished window")
        where = f"is in {result.output}" if result.written else "is kept, and the same command goes on from there"
        return _fail(INTERRUPTED, f"interrupted: what {kept} showed {where}")
    if result.failed:
        return _fail(BAD_INPUT, f"{counted(len(result.failed), 'scene')} could not be segmented: {result.failed[0]}")
    return DONE


@contextmanager
def _predicting(
    arguments: argparse.Namespace, options: "SegmentOptions"
) -> Iterator[tuple["LoadedModel", "WindowSourceMaker"]]:
    """The model, and what predicts the windows with it: this process, or a cluster."""
    from rs4d_core.models.checkpoint import default_model_path, load_model
    from rs4d_core.scenes.local_windows import LocalWindows

    path = arguments.model or default_model_path()
    if arguments.cluster is None:
        yield load_model(path, arguments.device), LocalWindows
        return
    from rs4d_core.scenes.distributed import cluster_windows
    from rs4d_core.scenes.distributed_cluster import open_cluster

    model = load_model(path, "cpu")
    with open_cluster(arguments.cluster, arguments.device) as cluster:
        for note in cluster.notes:
            _note(note)
        yield (
            dataclasses.replace(model, device=cluster.device, device_reason=cluster.description),
            cluster_windows(cluster, path, options),
        )


def _counted(instances: int, by_class: dict[str, int]) -> str:
    parts = ", ".join(f"{name} {count}" for name, count in by_class.items() if count)
    return f"{counted(instances, 'instance')}{f' ({parts})' if parts else ''}"


def _evaluate(arguments: argparse.Namespace, _interruption: Interruption) -> int:
    from rs4d_core.evaluation.layer_metrics import evaluate_layers

    metrics = evaluate_layers(
        arguments.predicted, arguments.reference, arguments.iou, arguments.class_field, arguments.errors
    )
    for note in metrics.notes:
        _note(note)
    if arguments.json:
        _print_json(metrics.to_json())
        return DONE
    from rs4d_core.console import print_table, share

    figures = ("ap50", "precision", "recall", "f1", "mean_iou")
    counts = ("predicted", "reference", "matched")
    rows = [("all", metrics.overall), *metrics.by_class.items()]
    print_table(
        (f"IoU {metrics.iou:g}", *figures, *counts),
        [
            (name, *(share(getattr(a, key)) for key in figures), *(str(getattr(a, key)) for key in counts))
            for name, a in rows
        ],
    )
    return DONE


def _info(arguments: argparse.Namespace, _interruption: Interruption) -> int:
    from rs4d_core.models.checkpoint import default_model_path, read_card
    from rs4d_core.models.encoder_file import holds_encoder

    path = arguments.model or default_model_path()
    if holds_encoder(path):
        return _info_of_encoder(path, arguments.json)
    card = read_card(path)
    if arguments.json:
        _print_json(card.to_json())
        return DONE
    from rs4d_core.card_tables import by_class, by_data_set
    from rs4d_core.console import print_pairs, print_table

    low, high = card.resolution_m
    print_pairs(
        [
            ("model", card.name),
            ("file", _file_and_size(path)),
            ("preset", f"{card.config.preset}, head {card.config.head}"),
            ("resolution", f"{low:g} to {high:g} m a pixel"),
            ("bands", ", ".join(card.bands)),
            ("windows", f"{card.window_px} px, overlapping by {card.overlap_px} px"),
            ("trained on", "" if card.training_data else "not told"),
            *(("", ", ".join(f"{key}: {value}" for key, value in data.items())) for data in card.training_data),
            *(() if card.metrics else (("measured", "not told"),)),
            ("created by", card.created_by),
        ]
    )
    if card.metrics:
        print()
        print_table(*by_data_set(card.metrics))
    print()
    print_table(*by_class(card.metrics, card.classes, card.default_scores))
    return DONE


def _info_of_encoder(path: Path, as_json: bool) -> int:
    from rs4d_core.card_tables import encoder_rows
    from rs4d_core.console import print_pairs
    from rs4d_core.models.config import presets_with
    from rs4d_core.models.encoder_file import read_encoder_card

    card = read_encoder_card(path)
    presets = presets_with(card.config)
    if as_json:
        _print_json({"kind": "encoder", "presets": list(presets), **card.to_json()})
        return DONE
    first, *rest = encoder_rows(card, presets)
    print_pairs([first, ("file", _file_and_size(path)), *rest])
    return DONE


def _file_and_size(path: Path) -> str:
    return f"{path}, {path.stat().st_size / 2**20:.1f} MiB"


def _doctor(arguments: argparse.Namespace, _interruption: Interruption) -> int:
    from rs4d_core.doctor import diagnose

    diagnosis = diagnose()
    if arguments.json:
        _print_json(diagnosis.to_json())
    else:
        from rs4d_core.console import print_pairs

        rows = []
        for check in diagnosis.checks:
            rows.append((check.name, check.value if check.ok else f"FAILED: {check.value}"))
            if check.mend:
                rows.append(("", f"{'if you want it' if check.ok else 'TO MEND'}: {check.mend}"))
        print_pairs([*rows, ("result", "all that is needed works" if diagnosis.ok else "not all that is needed works")])
    return DONE if diagnosis.ok else FAULT


def _export(arguments: argparse.Namespace, _interruption: Interruption) -> int:
    result, more = _exported(arguments)
    for note in result.notes:
        _note(note)
    if arguments.accepted and result.instances == 0:
        _note("no instance of the layer is accepted yet: a review in QGIS accepts them")
    if arguments.json:
        _print_json({"output": str(result.output), "instances": result.instances, "by_class": result.by_class, **more})
    else:
        chips = f" on {counted(more['chips'], 'chip')}" if more else ""
        _print_line(f"{result.output}: {_counted(result.instances, result.by_class)}{chips}")
    return DONE


def _exported(arguments: argparse.Namespace) -> tuple["WrittenLayer", dict[str, int]]:
    layer, output = arguments.layer, arguments.output
    if arguments.chips is None:
        from rs4d_core.scenes.export import export_layer

        if arguments.resolution is not None:
            raise OptionError("--resolution is for chips: give --chips with it, or leave it out")
        return export_layer(layer, output, arguments.accepted, arguments.scene), {}
    from rs4d_core.scenes.chip_export import export_chips

    written = export_chips(layer, output, arguments.chips, arguments.resolution, arguments.accepted, arguments.scene)
    return written, {"chips": written.chips, "annotations": written.annotations}


def _serve(_arguments: argparse.Namespace, _interruption: Interruption) -> int:
    from rs4d_core.engine.server import serve

    serve()


def command() -> None:
    """The entry point of the installed command: `main`, as the whole of a process."""
    if not _debugging():
        # What libraries warn and log of is meant for developers; users get this program's own notes.
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    # A name that the terminal's encoding lacks is shown in another way, as on stderr.
    sys.stdout.reconfigure(errors="backslashreplace")
    code = main()
    sys.stderr.flush()
    if code != DONE:
        # Where a run was broken off, a prediction may still be computing. Leaving the usual way would wait for it, or
        # pull the interpreter from under it.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
