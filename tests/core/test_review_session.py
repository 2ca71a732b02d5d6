"""The desk's queue, orders, filters and histogram: the plugin's pure parts, which need no QGIS."""

import importlib
import itertools
import json
import math
import pkgutil
import random
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, STATUSES
from rs4d_qgis.review import logic
from rs4d_qgis.review.logic.filters import Filters
from rs4d_qgis.review.logic.histogram import ScoreHistogram
from rs4d_qgis.review.logic.objects import ReviewObject
from rs4d_qgis.review.logic.order import Order, sort_key
from rs4d_qgis.review.logic.place import Place
from rs4d_qgis.review.logic.session import Session

CLASSES = ("", "building", "ship")
scores = st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)
coordinates = st.floats(-1e6, 1e6)


def objects(ids):
    return st.builds(
        ReviewObject,
        ids,
        st.sampled_from(CLASSES),
        scores,
        st.sampled_from(STATUSES),
        st.none() | st.floats(0, 1e6),
        coordinates,
        coordinates,
    )


layers = st.lists(objects(st.integers(-50, 50)), max_size=30, unique_by=lambda item: item.id)
all_filters = st.builds(
    Filters,
    st.none() | st.frozensets(st.sampled_from(CLASSES)),
    st.frozensets(st.sampled_from(STATUSES)),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.6, 1.0]),
    st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([0.2, 0.5, 0.9])),
)


class Desk(RuleBasedStateMachine):
    """Anything that may happen to a layer and its queue, in any sequence."""

    def __init__(self):
        super().__init__()
        self.session = Session()
        self.scores = self.spread()

    def spread(self):
        return Counter((item.class_name, item.score) for item in self.session.objects.values())

    @rule(layer=layers)
    def reload(self, layer):
        ahead = self.session.queue[self.session.place :]
        self.session.reload(layer)
        left = [item for item in ahead if item in self.session.shown]
        if left:
            assert self.session.current == left[0]

    @rule(order=st.sampled_from(Order))
    def reorder(self, order):
        self.session.set_order(order)
        self.is_lined_up()
        assert self.session.place == 0

    @rule(filters=all_filters)
    def refilter(self, filters):
        current = self.session.current
        self.session.set_filters(filters)
        self.is_lined_up()
        if current in self.session.shown:
            assert self.session.current == current

    def is_lined_up(self):
        every = self.session.objects
        key = sort_key(self.session.order, every.values())
        assert self.session.queue == self.session.shown
        assert self.session.queue == sorted(self.session.queue, key=lambda item: key(every[item]))

    @rule(changed=st.lists(objects(st.integers(-60, 60)), max_size=4, unique_by=lambda item: item.id), data=st.data())
    def edit(self, changed, data):
        current, place = self.session.current, self.session.place
        gone = data.draw(st.sets(st.sampled_from(sorted(self.session.objects)))) if self.session.objects else set()
        gone -= {item.id for item in changed}
        queued = list(self.session.queue)
        self.session.update(changed, gone)
        if current is not None and current not in gone:
            assert self.session.current == current
        elif current is None:
            assert self.session.current is None
        else:
            after = next((item for item in queued[place:] if item not in gone), None)
            assert self.session.current == after

    @precondition(lambda self: self.session.current is not None)
    @rule(status=st.sampled_from(STATUSES))
    def decide(self, status):
        current, queue = self.session.current, list(self.session.queue)
        self.session.update([self.session.objects[current]._replace(status=status)])
        assert self.session.queue == queue
        assert self.session.current == current

    @rule()
    def advance(self):
        place, queue, shown = self.session.place, list(self.session.queue), set(self.session.shown)
        expected = next((item for item in [*queue[place + 1 :], *queue[: place + 1]] if item in shown), None)
        assert self.session.advance() == expected == self.session.current

    @precondition(lambda self: self.session.queue)
    @rule(by=st.integers(-3, 3))
    def step(self, by):
        expected = max(0, min(self.session.place + by, len(self.session.queue) - 1))
        assert self.session.step(by) == self.session.queue[expected]

    @rule(item=st.integers(-60, 60))
    def go(self, item):
        current = self.session.current
        assert self.session.go(item) == (item in self.session.queue)
        assert self.session.current == (item if item in self.session.queue else current)

    @rule(item=st.integers(-60, 60))
    def visit(self, item):
        current, queue = self.session.current, list(self.session.queue)
        there = item in self.session.objects
        assert self.session.visit(item) == there
        assert self.session.current == (item if there else current)
        assert [other for other in self.session.queue if other != item] == [other for other in queue if other != item]

    @rule(item=st.integers(-60, 60))
    def resume(self, item):
        self.session.resume(item)
        if item in self.session.queue:
            assert self.session.current == item

    @invariant()
    def shows_what_passes(self):
        passing = {item.id for item in self.session.objects.values() if self.session.filters.matches(item)}
        assert set(self.session.shown) == passing
        assert self.session.left == len(self.session.shown) == len(passing)
        assert len(set(self.session.queue)) == len(self.session.queue)
        assert set(self.session.queue) <= set(self.session.objects)

    @invariant()
    def counts_all(self):
        counted = {name: Counter() for name in {item.class_name for item in self.session.objects.values()}}
        for item in self.session.objects.values():
            counted[item.class_name][item.status] += 1
        assert {name: +count for name, count in self.session.counts().items()} == counted

    @invariant()
    def tells_of_other_scores(self):
        before, self.scores = self.scores, self.spread()
        seen, self.version = getattr(self, "version", None), self.session.scores_version
        assert seen is None or before == self.scores or seen != self.version


TestDesk = Desk.TestCase
TestDesk.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(layers, st.sampled_from(Order))
def test_deciding_on_one_after_the_other_comes_to_an_end_and_leaves_none_out(layer, order):
    session = Session(layer, order)
    wanted, seen = set(session.shown), []
    while session.current is not None:
        seen.append(session.current)
        session.update([session.objects[session.current]._replace(status=ACCEPTED)])
        session.advance()
    assert len(seen) == len(wanted)
    assert set(seen) == wanted


@given(layers.filter(len))
def test_what_is_skipped_comes_up_again(layer):
    session = Session([item._replace(status=PENDING) for item in layer])
    assert [session.advance() for _ in session.queue] == [*session.queue[1:], session.queue[0]]


@given(layers)
def test_each_order_means_what_it_says(layer):
    def lined_up(order):
        return sorted(layer, key=sort_key(order, layer))

    def known(values):
        return [value for value in values if value is not None]

    for order, value, sign in (
        (Order.LOW_SCORE, lambda item: item.score, 1),
        (Order.HIGH_SCORE, lambda item: item.score, -1),
        (Order.SMALL, lambda item: item.area_m2, 1),
        (Order.LARGE, lambda item: item.area_m2, -1),
        (Order.UNCERTAIN, lambda item: None if item.score is None else abs(item.score - 0.5), 1),
    ):
        values = [value(item) for item in lined_up(order)]
        assert known(values) == sorted(known(values), key=lambda number, sign=sign: sign * number)
        assert all(number is None for number in values[len(known(values)) :])
    names = [item.class_name for item in lined_up(Order.CLASS)]
    assert names == sorted(names)


@pytest.mark.parametrize(("width", "height"), [(1.0, 1.0), (4.0, 1.0), (1.0, 0.0)])
def test_the_way_across_the_map_is_short(width, height):
    draw = random.Random(3)
    layer = [
        ReviewObject(number, "", 0.5, PENDING, 1.0, width * draw.random(), height * draw.random())
        for number in range(500)
    ]
    ordered = sorted(layer, key=sort_key(Order.PLACE, layer))
    length = sum(math.dist(a[-2:], b[-2:]) for a, b in itertools.pairwise(ordered))
    # The shortest way of all is about 0.71 sqrt(n A); row by row it is 0.92 sqrt(n A), for many points.
    assert length <= max(1.05 * math.sqrt(len(layer) * width * height), width)
    assert ordered[0].y >= height * 0.8


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0, 1))
def test_the_histogram_counts_every_score_once(values, cut):
    histogram = ScoreHistogram.of(values)
    assert histogram.can_be_cut == (len(set(values)) > 1)
    assert histogram.under(cut) == sum(value < cut for value in values)
    if histogram.can_be_cut:
        assert sum(histogram.counts) == len(values)
        assert 0 <= histogram.least <= min(values) < max(values) <= histogram.most <= 1
        assert histogram.least > min(values) - 0.011
        assert histogram.most < max(values) + 0.011


@given(objects(st.just(1)), all_filters)
def test_a_cut_takes_low_scores_away_but_nothing_that_is_accepted_or_has_no_score(item, filters):
    cut = filters.is_cut(item)
    assert cut == (
        item.score is not None and item.status != ACCEPTED and item.score < filters.cuts.get(item.class_name, 0)
    )
    assert not (cut and filters.matches(item))


@given(all_filters, st.sampled_from(Order), st.none() | st.integers())
def test_a_place_comes_back_as_it_was_written_down(filters, order, current):
    place = Place(order, filters, current)
    assert Place.from_json(json.loads(json.dumps(place.to_json()))) == place


@pytest.mark.parametrize("told", [None, [], {}, {"order": "?"}, {**Place().to_json(), "scores": ["a", 1]}])
def test_a_place_that_cannot_be_read_is_the_start(told):
    assert Place.from_json(told) == Place()


def test_no_logic_of_the_desk_needs_qgis():
    for module in pkgutil.iter_modules(logic.__path__, f"{logic.__name__}."):
        importlib.import_module(module.name)
    assert sys.modules.keys().isdisjoint({"qgis", "PyQt5", "PyQt6"})
