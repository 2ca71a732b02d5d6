"""Measure the engine against the figures of its design.

Each section is one entry of `SECTIONS`: a function that returns its part of the JSON object, and one that prints it.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from rs4d_core.errors import RS4DError
from rs4d_core.evaluation import cluster_speed, counts, encoder_speed, gpu_speed, heads_speed, scene_speed


@dataclass(frozen=True)
class Section:
    """One group of figures: how to measure it, how to show it, and what it is, for `--help`."""

    measure: Callable[[], dict[str, Any]]
    show: Callable[[Console, dict[str, Any]], None]
    summary: str


def show_counts(console: Console, figures: dict[str, Any]) -> None:
    """A row for each encoder, and how they were counted."""
    table = Table(title="Image encoders at 1024 x 1024")
    headers = ("encoder", "parameters", "SAM ViT-B /", "GMAC", "SAM ViT-B /", "whole segmenter")
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left")
    sam = figures["sam_vit_b"]
    table.add_row("SAM ViT-B", f"{sam['parameters'] / 1e6:.2f} M", "", f"{sam['macs_1024'] / 1e9:.1f}", "", "")
    for name, preset in figures["presets"].items():
        ratios = figures["ratios"][name]
        table.add_row(
            name,
            f"{preset['parameters'] / 1e6:.2f} M",
            f"{ratios['parameters']:.2f}x",
            f"{preset['macs_1024'] / 1e9:.1f}",
            f"{ratios['macs']:.2f}x",
            f"{preset['total_parameters'] / 1e6:.2f} M",
        )
    console.print(table)
    console.print(
        "Parameters: without the position embedding. MAC: matrix products and convolutions (half the FLOP of torch's "
        f"counter), and the selective scan at {counts.SCAN_MACS_A_STATE} MAC a state, step and direction; norms, "
        "activations and gates are left out on both sides. Whole segmenter: head 'box', one class.",
        highlight=False,
    )


def show_encoder(console: Console, figures: dict[str, Any]) -> None:
    """Against SAM ViT-B, by size, and where the time goes."""
    base, sam = figures["seconds"]["base"], figures["seconds"]["sam_vit_b"]
    table = Table(
        "base encoder, 1024 x 1024", "seconds", "SAM ViT-B's", "SAM / ours", *figures["shares"]["base"]["fp32"]
    )
    for name, ratio in figures["ratios"]["base"].items():
        parts = figures["shares"]["base"][name.partition("_")[0]].values()
        table.add_row(
            name, f"{base[name]:.3f}", f"{sam[name]:.3f}", f"{ratio:.2f}x", *(f"{part:.0%}" for part in parts)
        )
    console.print(table)
    sizes = Table("base encoder", "side", "seconds", "step", "peak memory")
    for precision, scaling in figures["scaling"]["base"].items():
        for side in (1024, 2048, 4096):
            step = f"{scaling[f'step_{side}']:.2f}x" if f"step_{side}" in scaling else ""
            seconds, peak = scaling[f"seconds_{side}"], scaling[f"peak_mib_{side}"]
            sizes.add_row(precision, str(side), f"{seconds:.3f}", step, f"{peak:.0f} MiB")
    console.print(sizes)
    scan = figures["scan"]
    beside = "no C compiler found" if scan["c_s"] is None else f"{scan['c_s'] * 1e3:.1f} ms as a C loop"
    console.print(
        f"One direction's scan: {scan['numba_s'] * 1e3:.1f} ms, {beside}. {figures['threads']} threads. Medians of "
        "interleaved runs; a part's share is of the same work timed alone.",
        highlight=False,
    )


def show_heads(console: Console, figures: dict[str, Any]) -> None:
    """A row for each part of a window."""
    windows = figures["heads"]
    table = Table(f"default model, {figures['threads']} threads, {figures['dtype']}", *windows)
    for part in next(iter(windows.values()))["seconds"]:
        table.add_row(part, *(f"{window['seconds'][part] * 1e3:.1f} ms" for window in windows.values()))
    table.add_row("heads / whole", *(f"{window['heads_share']:.0%}" for window in windows.values()))
    console.print(table)
    console.print(
        "Medians. Heads: rpn (with its proposals), box and mask, with the RoIAlign and the suppression in them.",
        highlight=False,
    )


def show_scene(console: Console, figures: dict[str, Any]) -> None:
    """A row for each scene, and the time until the first polygon."""
    scene = dict(figures["scene"])
    first, extent, twice = (scene.pop(key) for key in ("first_polygon_s", "extent_1024_s", "twice_the_scene"))
    table = Table("scene", "windows", "instances", "seconds", "outside the model", "peak memory")
    for name, run in scene.items():
        table.add_row(
            name,
            str(run["windows"]),
            str(run["instances"]),
            f"{run['seconds']:.1f}",
            f"{run['outside_share']:.1%}",
            f"{run['peak_mib']:.0f} MiB",
        )
    console.print(table)
    console.print(
        f"Twice the scene takes {twice:.2f} times as long. An extent of 1024 x 1024 px with a warm engine: first "
        f"polygons after {first:.2f} s, all after {extent:.2f} s.",
        highlight=False,
    )


def show_memory(console: Console, figures: dict[str, Any]) -> None:
    """A row for each scene."""
    memory = dict(figures["memory"])
    ratio = memory.pop("ratio")
    table = Table("scene", "windows", "instances", "seconds", "peak memory")
    for name, run in memory.items():
        table.add_row(
            name, str(run["windows"]), str(run["instances"]), f"{run['seconds']:.1f}", f"{run['peak_mib']:.0f} MiB"
        )
    console.print(table)
    console.print(f"The larger scene's peak is {ratio:.2f} times the smaller one's. No model: the pipeline alone.")


def show_gpu(console: Console, figures: dict[str, Any]) -> None:
    """A row for each preset."""
    gpu = figures["gpu"]
    if gpu is None:
        console.print("No CUDA GPU here: nothing to measure on one.")
        return
    table = Table(f"{gpu['name']}, 1024 x 1024, bf16", "encoder", "SAM / ours", "floor reached", "whole model")
    table.add_row("SAM ViT-B", f"{gpu['sam_vit_b_seconds'] * 1e3:.2f} ms", "", "", "")
    for name, preset in gpu["presets"].items():
        table.add_row(
            name,
            f"{preset['encoder_seconds'] * 1e3:.2f} ms",
            f"{preset['ratio']:.2f}x",
            f"{preset['floor_share']:.0%}",
            f"{preset['model_seconds'] * 1e3:.2f} ms",
        )
    console.print(table)
    errors = ", ".join(f"{name} {error:.1e}" for name, error in gpu["mixer_error"].items())
    console.print(
        f"Floors: {gpu['bytes_a_second'] / 1e12:.2f} TB/s copied, {gpu['macs_a_second'] / 1e12:.0f} TMAC/s in a large "
        f"product. A mixer's largest difference from float64, relative: {errors}.",
        highlight=False,
    )


def show_cluster(console: Console, figures: dict[str, Any]) -> None:
    """A row for each way to run a scene, and what a client can feed."""
    cluster = figures["cluster"]
    alone, client = cluster["alone"], cluster["client"]
    table = Table(f"{cluster['side_px']} px at {cluster['resolution_m']} m", "seconds", "windows a second", "/ alone")
    for way in ("alone", "local:1", "local:2"):
        seconds, windows = cluster[way]["seconds"], cluster[way]["windows"]
        table.add_row(way, f"{seconds:.1f}", f"{windows / seconds:.1f}", f"{alone['seconds'] / seconds:.2f}x")
    console.print(table)
    start_s, transport_s = (cluster["local:2"][key] for key in ("start_s", "transport_s_a_window"))
    client_s = client["merge_and_write_s_a_window"]
    console.print(
        f"{alone['threads']} threads, shared out to the workers. Starting local:2 takes {start_s:.1f} s. A window's "
        f"result has {client['bytes_a_window'] / 1024:.0f} KiB. Handing out and fetching: {transport_s * 1e3:.2f} ms a "
        f"window. Reading results, merging and writing at the client: {client_s * 1e3:.2f} ms a window. One client "
        f"keeps up with {1 / (client_s + transport_s):.0f} windows a second, at most.",
        highlight=False,
    )


SECTIONS = {
    "counts": Section(counts.count_all, show_counts, "parameters and MACs of the encoders, against SAM ViT-B"),
    "encoder": Section(
        encoder_speed.measure, show_encoder, "the base encoder: seconds and memory, against SAM ViT-B (3 minutes)"
    ),
    "heads": Section(heads_speed.measure, show_heads, "where a window's time goes in the default model (10 seconds)"),
    "scene": Section(
        scene_speed.measure_scenes, show_scene, "whole scenes: time, share outside the model, memory (2 minutes)"
    ),
    "memory": Section(
        scene_speed.measure_memory, show_memory, "peak memory at 16 megapixels and at 1 gigapixel (half a minute)"
    ),
    "cluster": Section(
        cluster_speed.measure, show_cluster, "a scene over Dask workers of this machine, and what they cost (2 minutes)"
    ),
    "gpu": Section(gpu_speed.measure, show_gpu, "encoders and models on a CUDA GPU, against SAM ViT-B and its floors"),
}


def merge(into: dict[str, Any], figures: dict[str, Any]) -> None:
    """Add nested figures: several sections fill the same `ratios.base`."""
    for key, value in figures.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen sections; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Measure the engine against the figures of its design.",
        epilog="sections: " + "; ".join(f"{name}: {section.summary}" for name, section in SECTIONS.items()),
    )
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section to run (may be repeated)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args(arguments)

    console = Console()
    report: dict[str, Any] = {}
    try:
        for name in options.only or SECTIONS:
            figures = SECTIONS[name].measure()
            merge(report, figures)
            if not options.json:
                SECTIONS[name].show(console, figures)
    except RS4DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
