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

from rs4d_core.command_line import BAD_USAGE, parser
from rs4d_core.errors import CancelledError, OptionError, RS4DError
from rs4d_core.interruption import Interruption
from rs4d_core.wording import counted, one_line, visible

if TYPE_CHECKING:
    from rs4d_core.models.checkpoint import LoadedModel
    from rs4d_core.scenes.layers.layer_file import WrittenLayer
    from rs4d_core.scenes.many.jobs import Jobs
    from rs4d_core.scenes.options import SegmentOptions
    from rs4d_core.scenes.pipeline import Progress, RunStart, SegmentResult, WindowSourceMaker
    from rs4d_core.scenes.writers import Feature

DONE = 0
FAULT = 1
BAD_INPUT = BAD_USAGE
INTERRUPTED = 130

_DEBUG_VARIABLE = "RS4D_DEBUG"


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit code; raises nothing."""
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as stop:  # help and version were shown, or the command line is wrong and that was said
        return int(stop.code or DONE)
    try:
        with Interruption() as interruption:
            code = _COMMANDS[arguments.command](arguments, interruption)
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


def _print_json(result: dict[str, Any]) -> None:
    print(visible(json.dumps(result, ensure_ascii=False)))


def _print_line(text: str) -> None:
    print(one_line(text))


def _segment(arguments: argparse.Namespace, interruption: Interruption) -> int:
    jobs, options = _asked_for(arguments)
    for note in jobs.notes:
        _note(note)

    from rs4d_core.console import ProgressReport
    from rs4d_core.scenes.layers.picture import write_picture
    from rs4d_core.scenes.many.runs import segment_jobs
    from rs4d_core.scenes.pipeline import segment_scene
    from rs4d_core.scenes.reading.scene import Scene

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
    elif result.written:
        in_model = "of it in the model" if arguments.cluster is None else "in the model, of all workers together"
        _print_line(
            f"{result.output}: {_counted(result.instances, result.by_class)}, from {counted(result.windows, 'window')} "
            f"in {result.seconds:.1f} s ({result.model_seconds:.1f} s {in_model})"
        )
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
    if result.interrupted:
        kept = counted(result.windows, "finished window")
        where = f"is in {result.output}" if result.written else "is kept, and the same command goes on from there"
        return _fail(INTERRUPTED, f"interrupted: what {kept} showed {where}")
    if result.failed:
        return _fail(BAD_INPUT, f"{counted(len(result.failed), 'scene')} could not be segmented: {result.failed[0]}")
    return DONE


def _asked_for(arguments: argparse.Namespace) -> tuple["Jobs", "SegmentOptions"]:
    """What to do, checked without torch: what is wrong with it is told at once, not after seconds of importing."""
    from rs4d_core.device_name import check_device_name
    from rs4d_core.models.card import default_model_path, read_card
    from rs4d_core.scenes.cluster.dask_cluster import check_where
    from rs4d_core.scenes.many.jobs import plan_jobs
    from rs4d_core.scenes.options import SegmentOptions

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
    if arguments.cluster is not None:
        check_where(arguments.cluster)
    check_device_name(arguments.device)
    arguments.model = arguments.model or default_model_path()
    options.check_classes(read_card(arguments.model))
    jobs = plan_jobs(arguments.scene, arguments.output)
    jobs.check(options)
    if arguments.picture is not None:
        from rs4d_core.scenes.layers.picture import check_picture_path

        check_picture_path(arguments.picture)
        if len(jobs.scenes) > 1:
            arguments.picture = None
            note = f"no picture is drawn: it would show one scene, and these are {len(jobs.scenes)}"
            jobs = dataclasses.replace(jobs, notes=(*jobs.notes, note))
    return jobs, options


@contextmanager
def _predicting(
    arguments: argparse.Namespace, options: "SegmentOptions"
) -> Iterator[tuple["LoadedModel", "WindowSourceMaker"]]:
    """The model, and what predicts the windows with it: this process, or a cluster."""
    from rs4d_core.models.checkpoint import load_model
    from rs4d_core.scenes.prediction.local_windows import LocalWindows

    if arguments.cluster is None:
        yield load_model(arguments.model, arguments.device), LocalWindows
        return
    from rs4d_core.scenes.cluster.cluster_windows import cluster_windows
    from rs4d_core.scenes.cluster.dask_cluster import open_cluster

    model = load_model(arguments.model, "cpu")
    with open_cluster(arguments.cluster, arguments.device) as cluster:
        for note in cluster.notes:
            _note(note)
        yield (
            dataclasses.replace(model, device=cluster.device, device_reason=cluster.description),
            cluster_windows(cluster, arguments.model, options),
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
    from rs4d_core.models.card import default_model_path, read_card
    from rs4d_core.models.encoder_card import holds_encoder

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
    from rs4d_core.models.encoder_card import read_encoder_card

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
        from rs4d_core.scenes.layers.export import export_layer

        if arguments.resolution is not None:
            raise OptionError("--resolution is for chips: give --chips with it, or leave it out")
        return export_layer(layer, output, arguments.accepted, arguments.scene), {}
    from rs4d_core.scenes.layers.chip_export import export_chips

    written = export_chips(layer, output, arguments.chips, arguments.resolution, arguments.accepted, arguments.scene)
    return written, {"chips": written.chips, "annotations": written.annotations}


def _serve(_arguments: argparse.Namespace, _interruption: Interruption) -> int:
    from rs4d_core.engine.server import serve

    serve()


_COMMANDS = {
    "segment": _segment,
    "evaluate": _evaluate,
    "export": _export,
    "info": _info,
    "doctor": _doctor,
    "serve": _serve,
}


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
