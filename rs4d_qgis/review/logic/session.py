"""The queue: what is to be decided, in which order, and where in it the analyst is. Pure: no Qt, no QGIS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain

from rs4d_qgis.review.logic.filters import Filters
from rs4d_qgis.review.logic.objects import ReviewObject
from rs4d_qgis.review.logic.order import Order, sort_key


class Session:
    """Objects, an order and filters give a queue; the session knows its place in there.

    An object that does not pass the filters any more, as it was decided on, is not shown but keeps its place in the
    queue until the order or the filters change, so that one can step back to it.

    Attributes:
        order, filters: to be set by `set_order` and `set_filters`.
        scores_version: another number whenever the scores of a class may be others.
    """

    def __init__(
        self, objects: Iterable[ReviewObject] = (), order: Order = Order.UNCERTAIN, filters: Filters | None = None
    ) -> None:
        self.order = order
        self.filters = filters or Filters()
        self.scores_version = 0
        self._queue: list[int] = []
        self._place = 0
        self.reload(objects)

    @property
    def objects(self) -> dict[int, ReviewObject]:
        """All of the layer, by id. Not to be changed."""
        return self._objects

    @property
    def queue(self) -> list[int]:
        """Ids of those that pass the filters, and of those that did when they were last set. Not to be changed."""
        return self._queue

    @property
    def place(self) -> int:
        """How many of the queue come before the current object."""
        return self._place

    @property
    def current(self) -> int | None:
        """The id of the object that is looked at; None at the end of the queue."""
        return self._queue[self._place] if self._place < len(self._queue) else None

    @property
    def shown(self) -> list[int]:
        """Ids of those that pass the filters, in order."""
        return [item for item in self._queue if item in self._matching]

    @property
    def left(self) -> int:
        """How many pass the filters."""
        return len(self._matching)

    def counts(self) -> dict[str, Counter]:
        """Of each class that there is, how many objects have which status."""
        return {name: Counter(count) for name, count in sorted(self._counts.items()) if sum(count.values())}

    def reload(self, objects: Iterable[ReviewObject]) -> None:
        """Take these for all there are. Stays at the current object; where that does not pass, at the next one that
        does."""
        ahead = self._queue[self._place :]
        self._objects = {item.id: item for item in objects}
        self._counts: dict[str, Counter] = {}
        self.scores_version += 1
        for item in self._objects.values():
            self._count(item, 1)
        self._line_up()
        following = next((item for item in ahead if item in self._queued), None)
        if following is not None:
            self.go(following)

    def set_order(self, order: Order) -> None:
        """Line up anew, and begin with the first one."""
        self.order = order
        self._line_up()
        self._place = 0

    def set_filters(self, filters: Filters) -> None:
        """Line up anew. Stays at the current object, if it passes; else begins with the first one."""
        self.filters = filters
        self._line_up()

    def update(self, objects: Iterable[ReviewObject], gone: Iterable[int] = ()) -> None:
        """Take in what has changed or is new, and forget what is gone.

        What passes the filters now and is not in the queue yet comes to where its order puts it. Stays at the current
        object; where that is gone, at the next one.
        """
        gone = {item for item in gone if item in self._objects}
        for item in gone:
            self._count(self._objects.pop(item), -1)
            self._matching.discard(item)
        if not self._queued.isdisjoint(gone):
            before = sum(item in gone for item in self._queue[: self._place])
            self._queue = [item for item in self._queue if item not in gone]
            self._queued -= gone
            self._place -= before
        self.scores_version += bool(gone)
        for item in objects:
            before = self._objects.get(item.id)
            if before is not None:
                self._count(before, -1)
            if before is None or (before.class_name, before.score) != (item.class_name, item.score):
                self.scores_version += 1
            self._objects[item.id] = item
            self._count(item, 1)
            if not self.filters.matches(item):
                self._matching.discard(item.id)
                continue
            self._matching.add(item.id)
            if item.id not in self._queued:
                self._insert(item)

    def advance(self) -> int | None:
        """Go to the next one that passes the filters, from the end on to the start; to the end where there is none."""
        end = len(self._queue)
        onwards = chain(range(self._place + 1, end), range(min(self._place + 1, end)))
        self._place = next((place for place in onwards if self._queue[place] in self._matching), end)
        return self.current

    def step(self, by: int) -> int | None:
        """Go so many places on in the queue, or back where negative; not beyond its first and its last object."""
        self._place = max(0, min(self._place + by, len(self._queue) - 1))
        return self.current

    def go(self, item: int) -> bool:
        """Make this object the current one. False where it is not in the queue."""
        if item not in self._queued:
            return False
        self._place = self._queue.index(item)
        return True

    def visit(self, item: int) -> bool:
        """Make this object the current one; one that does not pass the filters gets a place in the queue for that.
        False where there is no such object."""
        if item not in self._objects:
            return False
        if item not in self._queued:
            self._insert(self._objects[item])
        return self.go(item)

    def resume(self, item: int) -> None:
        """Go to this object, or where it is not in the queue any more to what came after it."""
        if not self.go(item) and item in self._objects:
            self._place = self._find(self._objects[item])

    def _line_up(self) -> None:
        current = self.current
        passing = [item for item in self._objects.values() if self.filters.matches(item)]
        self._key = sort_key(self.order, self._objects.values())
        self._queue = [item.id for item in sorted(passing, key=self._key)]
        self._queued = set(self._queue)
        self._matching = set(self._queue)
        self._place = self._queue.index(current) if current in self._queued else 0

    def _insert(self, item: ReviewObject) -> None:
        place, at_end = self._find(item), self.current is None
        self._queue.insert(place, item.id)
        self._queued.add(item.id)
        if at_end:
            self._place = len(self._queue)
        elif place <= self._place:
            self._place += 1

    def _find(self, item: ReviewObject) -> int:
        """Where in the queue an object belongs."""
        # By halving; what was edited since may be a little out of order, which does no harm.
        low, high, key = 0, len(self._queue), self._key(item)
        while low < high:
            middle = (low + high) // 2
            if self._key(self._objects[self._queue[middle]]) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _count(self, item: ReviewObject, by: int) -> None:
        self._counts.setdefault(item.class_name, Counter())[item.status] += by
