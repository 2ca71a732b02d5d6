import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rs4d_core.models.boxes import iou
from rs4d_core.ops.best_overlap import best_overlap


@given(seed=st.integers(0, 10_000), boxes=st.integers(0, 2500), truths=st.integers(1, 20))
def test_best_overlap_is_the_maximum_of_all_pairs(seed: int, boxes: int, truths: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(count: int) -> torch.Tensor:
        corner = rng.uniform(0, 100, (count, 2))
        return torch.tensor(np.concatenate([corner, corner + rng.uniform(0, 60, (count, 2))], 1), dtype=torch.float32)

    a, b = draw(boxes), draw(truths)
    best, truth, best_of_truth, box_of_truth = best_overlap(a, b)

    overlaps = iou(a, b)
    torch.testing.assert_close(best, overlaps.amax(1) if boxes else torch.empty(0))
    torch.testing.assert_close(overlaps[torch.arange(boxes), truth], best)
    if boxes:
        torch.testing.assert_close(best_of_truth, overlaps.amax(0))
        torch.testing.assert_close(overlaps[box_of_truth, torch.arange(truths)], best_of_truth)


def test_the_first_of_equal_boxes_wins() -> None:
    same = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(3, 1)
    best, truth, best_of_truth, box_of_truth = best_overlap(same, same[:2])
    assert best.tolist() == [1.0, 1.0, 1.0]
    assert truth.tolist() == [0, 0, 0]
    assert best_of_truth.tolist() == [1.0, 1.0]
    assert box_of_truth.tolist() == [0, 0]
