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
    _check(features, boxes_xyxy, batch_index)
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
    for level in levels:
        _check(level, boxes_xyxy, batch_index)
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
    pooled = values.new_zeros(len(boxes_xyxy), features.shape[1], output_size, output_size)
    # Boxes of one map with one number of samples are sampled together.
    kinds, kind = torch.cat([batch_index[:, None], samples], dim=1).unique(dim=0, return_inverse=True)
    for number, (image, across, down) in enumerate(kinds.tolist()):
        if across and down:
            mine = torch.nonzero(kind == number).squeeze(1)
            pooled[mine] = _pool(values[image], boxes_xyxy[mine], output_size, across, down)
    # The sum of nothing keeps the result in autograd's graph where there are no boxes.
    return (pooled + values[:0].sum()).to(features.dtype)


def _pool(values: Tensor, boxes_xyxy: Tensor, output_size: int, across: int, down: int) -> Tensor:
    """`values (C, H, W)`, `boxes_xyxy (K, 4)` with `across` x `down` samples a cell -> `(K, C, S, S)`."""
    channels, height, width = values.shape
    count = len(boxes_xyxy)

    def positions(start: Tensor, end: Tensor, samples: int) -> Tensor:
        steps = torch.arange(output_size * samples, dtype=start.dtype, device=start.device) + 0.5
        return start[:, None] + (end - start)[:, None] * steps / (output_size * samples)

    x = positions(boxes_xyxy[:, 0], boxes_xyxy[:, 2], across)[:, None, :].expand(-1, output_size * down, -1)
    y = positions(boxes_xyxy[:, 1], boxes_xyxy[:, 3], down)[:, :, None].expand(-1, -1, output_size * across)
    inside = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    sampled = functional.grid_sample(
        values[None], grid.reshape(1, -1, output_size * across, 2), padding_mode="border", align_corners=False
    )
    sampled = sampled.reshape(channels, count, output_size * down, output_size * across).transpose(0, 1)
    return functional.avg_pool2d(sampled * inside[:, None], (down, across))


def _check(features: Tensor, boxes_xyxy: Tensor, batch_index: Tensor) -> None:
    if features.ndim != 4 or boxes_xyxy.ndim != 2 or boxes_xyxy.shape[1] != 4 or len(batch_index) != len(boxes_xyxy):
        raise OptionError(
            f"RoIAlign takes features of (B, C, H, W), boxes of (K, 4) and K batch indices, not "
            f"{tuple(features.shape)}, {tuple(boxes_xyxy.shape)} and {tuple(batch_index.shape)}: add what is missing"
        )
    if 0 in features.shape[2:]:
        raise OptionError(f"RoIAlign got maps of {tuple(features.shape)}, without a cell: give a larger image")
    if len(batch_index) and not 0 <= int(batch_index.min()) <= int(batch_index.max()) < len(features):
        raise OptionError(
            f"a box's batch index is outside 0..{len(features) - 1}, the maps that the features hold: "
            "number them from 0"
        )
