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
from rs4d_core.evaluation import counts


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


SECTIONS = {
    "counts": Section(counts.count_all, show_counts, "parameters and MACs of the encoders, against SAM ViT-B"),
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
