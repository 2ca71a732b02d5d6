from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.errors import OptionError
from rs4d_core.evaluation.coco_metrics import Comparison, measure
from rs4d_core.evaluation.paste import paste_mask
from rs4d_core.models.instances import Instances, MaskPatch

CLASSES = ("building", "ship")


def square(x0, y0, x1, y1):
    return (np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float),)


def annotation(box, label=0, outline=True, crowd=False):
    return Annotation(label, box, square(*box) if outline else None, None, crowd)


def sample(*annotations, annotated=(True, True)):
    return Sample(Path("image.png"), 100, 80, 1, tuple(annotations), annotated)


def found(*boxes_labels_scores):
    boxes = [box for box, _, _ in boxes_labels_scores]
    return Instances(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for _, _, score in boxes_labels_scores], dtype=torch.float32),
        torch.tensor([label for _, label, _ in boxes_labels_scores], dtype=torch.int64),
        [MaskPatch(torch.ones(28, 28), box) for box in boxes],
    )


HOUSE, BARN, AWAY = (10.0, 10.0, 40.0, 40.0), (50.0, 10.0, 90.0, 30.0), (5.0, 50.0, 30.0, 75.0)


def test_a_perfect_prediction_scores_one_and_a_missing_class_scores_nothing():
    metrics = measure([found((HOUSE, 0, 0.9), (BARN, 0, 0.8))], [sample(annotation(HOUSE), annotation(BARN))], CLASSES)
    assert (metrics.box.ap, metrics.mask.ap, metrics.mask.ap50) == pytest.approx((1, 1, 1))
    assert metrics.box.small == pytest.approx(1)
    assert metrics.box.large is None
    assert metrics.by_class["ship"].mask_ap is None
    assert metrics.to_json()["by_class"]["building"]["instances"] == 2
    assert metrics.by_class["building"].best_score == pytest.approx(0.8)


def test_half_of_the_instances_found_is_half_the_precision():
    metrics = measure([found((HOUSE, 0, 0.9))], [sample(annotation(HOUSE), annotation(BARN))], CLASSES)
    # 101-point interpolation: the recalls 0 to 0.5 are reached, 51 of 101 points.
    assert metrics.mask.ap == pytest.approx(51 / 101)


def test_a_class_counts_only_where_its_data_set_labels_it():
    prediction = found((HOUSE, 0, 0.9), (AWAY, 1, 0.95))
    ship = sample(annotation(BARN, label=1))
    unlabelled = measure(
        [prediction, found((BARN, 1, 0.5))], [sample(annotation(HOUSE), annotated=(True, False)), ship], CLASSES
    )
    labelled = measure([prediction, found((BARN, 1, 0.5))], [sample(annotation(HOUSE)), ship], CLASSES)
    assert unlabelled.by_class["ship"].box_ap == pytest.approx(1)
    assert labelled.by_class["ship"].box_ap == pytest.approx(0.5)


def test_scores_are_chosen_where_labels_are_sure_and_precision_is_by_all():
    """Three ships that the data set has not marked lie, by their scores, between the two that it has."""
    ships = sample(annotation(HOUSE, label=1), annotation(BARN, label=1))
    predictions = [
        found((HOUSE, 1, 0.9), (BARN, 1, 0.3)),
        found((HOUSE, 1, 0.6), (BARN, 1, 0.5), (AWAY, 1, 0.4)),
    ]
    by_labels, by_sure_ones = (
        measure(predictions, [ships, replace(sample(), doubtful=frozenset(doubtful))], CLASSES).by_class["ship"]
        for doubtful in ([], [1])
    )
    assert by_labels.mask_ap == by_sure_ones.mask_ap == pytest.approx((51 + 50 * 2 / 5) / 101)
    assert by_labels.best_score == pytest.approx(0.9)
    assert by_sure_ones.best_score == pytest.approx(0.3)


def test_detections_inside_a_crowd_region_are_not_punished():
    crowd = annotation((0.0, 45.0, 60.0, 80.0), crowd=True)
    prediction = found((AWAY, 0, 0.95), (HOUSE, 0, 0.9))
    assert measure([prediction], [sample(annotation(HOUSE), crowd)], CLASSES).mask.ap == pytest.approx(1)
    assert measure([prediction], [sample(annotation(HOUSE))], CLASSES).mask.ap == pytest.approx(0.5)


def test_an_instance_without_outline_counts_for_boxes_only():
    box_only = annotation(BARN, outline=False)
    metrics = measure([found((BARN, 0, 0.95), (HOUSE, 0, 0.9))], [sample(annotation(HOUSE), box_only)], CLASSES)
    missed = measure([found((HOUSE, 0, 0.9))], [sample(annotation(HOUSE), box_only)], CLASSES)
    assert metrics.box.ap == pytest.approx(1)
    assert metrics.mask.ap == pytest.approx(1)
    assert missed.box.ap == pytest.approx(51 / 101)
    assert missed.mask.ap == pytest.approx(1)
    nothing_else = measure([found((BARN, 0, 0.9))], [sample(box_only)], CLASSES)
    assert nothing_else.mask.ap is None
    assert nothing_else.by_class["building"].best_score == pytest.approx(0.9)


def test_more_instances_than_coco_counts_have_a_figure_of_all_detections_beside_coco_s():
    """Of 120 houses in an image, all found: COCO's own figure knows the 100 best."""
    places = [(float(x), float(y), x + 5.0, y + 5.0) for x in range(0, 96, 8) for y in range(0, 80, 8)]
    prediction = found(*((box, 0, 0.9 - place / 1000) for place, box in enumerate(places)))
    comparison = Comparison([prediction], [sample(*map(annotation, places))], CLASSES)
    metrics = comparison.metrics
    assert metrics.most_instances == len(places) == 120
    assert metrics.box.ap50 == pytest.approx(100 / 120, abs=0.01)
    assert metrics.mask_unlimited.ap50 == metrics.box_unlimited.ap == pytest.approx(1)
    # The threshold is chosen, and each image drawn, by all of them.
    assert metrics.by_class["building"].best_score == pytest.approx(0.9 - 119 / 1000)
    assert len(comparison.by_image([0.5, 0.5])[0].right) == 120
    assert measure([found((HOUSE, 0, 0.9))], [sample(annotation(HOUSE))], CLASSES).box_unlimited is None


def test_no_prediction_at_all_scores_zero():
    metrics = measure([found()], [sample(annotation(HOUSE))], CLASSES)
    assert metrics.mask.ap == 0
    assert metrics.by_class["building"].best_score is None


def test_it_prints_nothing(capsys):
    measure([found((HOUSE, 0, 0.9))], [sample(annotation(HOUSE))], CLASSES)
    assert capsys.readouterr() == ("", "")


def test_one_prediction_for_each_image():
    with pytest.raises(OptionError, match="1 predictions for 2 images"):
        measure([found()], [sample(), sample()], CLASSES)


def test_a_pasted_mask_fills_its_box_to_the_pixel_and_stays_inside_the_image():
    pasted = paste_mask(MaskPatch(torch.ones(28, 28), (90.0, -5.0, 120.0, 7.0)), 100, 80)
    assert pasted.shape == (80, 100)
    assert pasted[:7, 90:] == pytest.approx(1)
    assert pasted.sum() == pytest.approx(70)


def test_a_pasted_mask_is_linear_between_its_cells():
    # Probability is the x coordinate / 8 at the cells' centres: so it is at the pixels' centres, whatever the ratio.
    cells = torch.arange(0.5, 8, 1.0).expand(3, 8) / 8
    pasted = paste_mask(MaskPatch(cells, (10.0, 20.0, 26.0, 60.0)), 100, 80)
    inside = pasted[20:60, 11:25]
    expected = (np.arange(11, 25) + 0.5 - 10) / 16
    assert np.allclose(inside, expected, atol=1e-6)


def test_a_patch_of_one_cell_and_a_patch_outside_the_image():
    assert paste_mask(MaskPatch(torch.full((1, 1), 0.7), (2.0, 3.0, 4.0, 5.0)), 10, 10)[3:5, 2:4] == pytest.approx(0.7)
    assert not paste_mask(MaskPatch(torch.ones(4, 4), (20.0, 20.0, 30.0, 30.0)), 10, 10).any()
