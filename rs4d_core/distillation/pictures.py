"""Pictures of a distillation: its losses over the steps, and maps of teacher and student side by side."""

import io
import json
from pathlib import Path

import matplotlib
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from rs4d_core.errors import OutputError
from rs4d_core.whole_file import write_whole


def draw_curve(metrics: Path, path: Path) -> None:
    """Losses and corruption over the steps, from a run's `metrics.jsonl`.

    Raises:
        OutputError: the picture cannot be written.
    """
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "l1" in line]
    measured = [line for line in lines if "held_back_l1" in line]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([e["step"] for e in steps], [e["l1"] for e in steps], lw=1, label="training, corrupted")
    axes.plot(
        [e["step"] for e in measured], [e["held_back_l1"] for e in measured], "o-", ms=3, label="held back, clean"
    )
    axes.set(xlabel="step", ylabel="L1", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="both")
    if steps:
        percent = axes.twinx()
        for name, style in (("noise", ":"), ("mask", "--")):
            percent.plot([e["step"] for e in steps], [e[name] for e in steps], style, color="grey", lw=1, label=name)
        percent.set(ylabel="noise, mask (%)", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    _write(figure, path)


def draw_maps(images: Tensor, teacher: Tensor, student: Tensor, path: Path) -> None:
    """Images `(N, 3, S, S)` uint8 and the maps `(N, C, h, w)` of both, in the teacher's three main components.

    The components are those of all the teacher's tokens together. Both maps are drawn in them: equal colours mean equal
    features.

    Raises:
        OutputError: the picture cannot be written.
    """
    tokens = teacher.permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = tokens.mean(0)
    axes3 = torch.linalg.eigh((tokens - mean).T @ (tokens - mean)).eigenvectors[:, -3:].flip(1)
    projected = (tokens - mean) @ axes3
    low, high = projected.quantile(0.01, dim=0), projected.quantile(0.99, dim=0)

    def colors(maps: Tensor) -> Tensor:
        values = (maps.permute(0, 2, 3, 1).double() - mean) @ axes3
        return ((values - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)

    columns = ("image", images.permute(0, 2, 3, 1)), ("teacher", colors(teacher)), ("student", colors(student))
    figure = Figure(figsize=(6, 2 * len(images) + 0.3), layout="constrained")
    grid = figure.subplots(len(images), len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns):
        grid[0][column].set_title(title)
        for row, picture in enumerate(pictures):
            grid[row][column].imshow(picture.numpy(), interpolation="nearest")
            grid[row][column].set_axis_off()
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    with matplotlib.rc_context({"font.size": 9}):
        FigureCanvasAgg(figure).print_png(picture)
    try:
        write_whole(path, picture.getvalue())
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error}); make room, then start again") from error
