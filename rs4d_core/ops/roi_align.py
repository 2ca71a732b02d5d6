"""RoIAlign: the features inside a box, resampled to a grid of fixed size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rs4d_core.errors import OptionError

_COMPILED_DTYPES = (torch.float32, torch.bfloat16)


def roi_align(
    features: Tensor,
    boxes_xyxy: Tensor,
    batch_index: Tensor,
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int = 2,
) -> Tensor:
    """Mean of bilinear samples in each of the S x S equal cells of each box.

    Source: He et al., "Mask R-CNN", arXiv 1703.06870, section 3, in the "aligned" form: the centre of feature
    `(row, col)` lies at image pixel `((col + 0.5) / spatial_scale, (row + 0.5) / spatial_scale)`. Samples outside the
    map take its border's value, and 0 from one cell beyond it.

    Args:
        features: `(B, C, H, W)`. On the CPU, `channels_last` in memory is fastest: another layout is converted first.
        boxes_xyxy: `(K, 4)` image pixels.
        batch_index: `(K,)` which of the B maps each box lies in.
        output_size: S, cells a side.
        spatial_scale: feature cells a pixel, 1 / stride.
        sampling_ratio: samples a cell and axis; 0 takes as many as the cell is features wide, rounded up.

    Returns:
        `(K, C, S, S)` in the dtype of the features (computed in float32, or float64 for float64), differentiable with
        respect to the features, once.

    Raises:
        OptionError: the shapes do not fit each other, a map is empty, or a batch index is not one of the B maps.
    """
    _check([features], boxes_xyxy, batch_index)
    return _align(
        [features],
        torch.zeros_like(batch_index, dtype=torch.int64),
        boxes_xyxy,
        batch_index,
        output_size,
        [spatial_scale],
        sampling_ratio,
    )


def pyramid_roi_align(
    levels: Sequence[Tensor],
    level_of: Tensor,
    boxes_xyxy: Tensor,
    batch_index: Tensor,
    output_size: int,
    strides: Sequence[int],
) -> Tensor:
    """`roi_align` from several maps, each box from its own; two samples a cell and axis.

    Args:
        levels: `(B, C, H / stride, W / stride)` each, up to four.
        level_of: `(K,)` int64 which of them each box reads.
        boxes_xyxy: `(K, 4)` image pixels.
        batch_index: `(K,)`.
        output_size: S.
        strides: pixels a feature cell of each level.

    Returns:
        `(K, C, S, S)`, channels last in memory, as from `roi_align`.

    Raises:
        OptionError: the shapes do not fit each other, a map is empty, or an index is not one of the B maps.
    """
    _check(levels, boxes_xyxy, batch_index)
    return _align(levels, level_of, boxes_xyxy, batch_index, output_size, [1 / stride for stride in strides], 2)


def _align(
    levels: Sequence[Tensor],
    level_of: Tensor,
    boxes_xyxy: Tensor,
    batch_index: Tensor,
    output_size: int,
    scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    dtype = levels[0].dtype
    precision = torch.float64 if dtype == torch.float64 else torch.float32
    # Feature cells, with the cells' centres at whole numbers.
    scale = torch.tensor(scales, dtype=precision, device=boxes_xyxy.device)[level_of]
    boxes = boxes_xyxy.detach().to(precision) * scale[:, None] - 0.5
    samples = _samples(boxes, output_size, sampling_ratio, most=max(max(level.shape[2:]) for level in levels))
    batch_index = batch_index.detach().long()
    if levels[0].device.type == "cpu" and dtype in _COMPILED_DTYPES:
        # numba takes half a second to import.
        from rs4d_core.ops.roi_align_numba import roi_align_numba

        return roi_align_numba(levels, level_of, boxes, batch_index, samples, output_size)
    chosen, aligned = [], []
    for index, level in enumerate(levels):
        mine = torch.nonzero(level_of == index).squeeze(1)
        chosen.append(mine)
        aligned.append(_roi_align_torch(level, boxes[mine], batch_index[mine], samples[mine], output_size))
    return torch.cat(aligned).index_select(0, torch.cat(chosen).argsort())


def _samples(boxes_xyxy: Tensor, output_size: int, sampling_ratio: int, most: int) -> Tensor:
    """How many samples a cell each box has across and down: `(K, 2)` int64."""
    sizes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    wanted = torch.ceil(sizes / output_size) if sampling_ratio == 0 else torch.full_like(sizes, sampling_ratio)
    # A network that diverges makes boxes of any size. Those that are not finite lie nowhere and have no samples.
    return torch.where(sizes.isfinite(), wanted, 0).clamp(0, max(most, sampling_ratio)).long()


def _roi_align_torch(
    features: Tensor, boxes_xyxy: Tensor, batch_index: Tensor, samples: Tensor, output_size: int
) -> Tensor:
    """For any device and dtype. Boxes in feature cells, samples `(K, 2)`."""
    values = features.to(boxes_xyxy.dtype)
    pooled = values.new_zeros(len(boxes_xyxy), output_size, output_size, features.shape[1])
    # Boxes with one number of samples are sampled together, whatever their maps.
    kinds, kind = samples.unique(dim=0, return_inverse=True)
    for number, (across, down) in enumerate(kinds.tolist()):
        if across and down:
            mine = torch.nonzero(kind == number).squeeze(1)
            pooled[mine] = _pool(values, boxes_xyxy[mine], batch_index[mine], output_size, across, down)
    # The sum of nothing keeps the result in autograd's graph where there are no boxes.
    return (pooled.permute(0, 3, 1, 2) + values[:0].sum()).to(features.dtype)


def _pool(values: Tensor, boxes_xyxy: Tensor, batch_index: Tensor, output_size: int, across: int, down: int) -> Tensor:
    """`values (B, C, H, W)`, `boxes_xyxy (K, 4)` with `across` x `down` samples a cell -> `(K, S, S, C)`.

    A cell of the result is a weighted sum of rows of the maps as a table `(B * H * W, C)`: what an embedding bag
    computes at once for all boxes, where a GPU would otherwise wait for the start of a kernel for each map.
    """
    _, channels, height, width = values.shape
    x_cells, x_weights = _bilinear(boxes_xyxy[:, 0], boxes_xyxy[:, 2], output_size, across, width)
    y_cells, y_weights = _bilinear(boxes_xyxy[:, 1], boxes_xyxy[:, 3], output_size, down, height)
    rows = batch_index[:, None, None] * height + y_cells
    cells = rows[:, :, None, :, None] * width + x_cells[:, None, :, None, :]
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
    pooled = functional.embedding_bag(
        cells.flatten(3).flatten(0, 2),
        values.permute(0, 2, 3, 1).reshape(-1, channels),
        mode="sum",
        per_sample_weights=weights.flatten(3).flatten(0, 2),
    )
    return pooled.view(-1, output_size, output_size, channels)


def _bilinear(start: Tensor, end: Tensor, output_size: int, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis of a map of `size` cells: what each cell of K boxes reads, `(K, S, 2 * samples)` feature cells,
    and what these weigh in its mean."""
    steps = (torch.arange(output_size * samples, dtype=start.dtype, device=start.device) + 0.5) / (
        output_size * samples
    )
    at = start[:, None] + (end - start)[:, None] * steps
    inside = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    first = at.floor().long()
    of_second = at - first
    cells = torch.stack([first, (first + 1).clamp(max=size - 1)], -1)
    weights = torch.stack([1 - of_second, of_second], -1) * (inside.to(at) / samples)[..., None]
    return tuple(values.unflatten(1, (output_size, samples)).flatten(2) for values in (cells, weights))


def _check(levels: Sequence[Tensor], boxes_xyxy: Tensor, batch_index: Tensor) -> None:
    for features in levels:
        if features.ndim != 4 or boxes_xyxy.shape[1:] != (4,) or batch_index.shape != boxes_xyxy.shape[:1]:
            raise OptionError(
                f"RoIAlign takes features of (B, C, H, W), boxes of (K, 4) and K batch indices, not "
                f"{tuple(features.shape)}, {tuple(boxes_xyxy.shape)} and {tuple(batch_index.shape)}: add what is "
                "missing"
            )
        if 0 in features.shape[2:]:
            raise OptionError(f"RoIAlign got maps of {tuple(features.shape)}, without a cell: give a larger image")
    least = min(len(features) for features in levels)
    if len(batch_index) and not 0 <= int(batch_index.min()) <= int(batch_index.max()) < least:
        raise OptionError(
            f"a box's batch index is outside 0..{least - 1}, the maps that the features hold: number them from 0"
        )
