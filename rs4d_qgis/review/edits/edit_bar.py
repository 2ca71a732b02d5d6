"""The edits of the desk: a row of tools to draw with, and one of things that are done at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qgis.core import QgsApplication, QgsFeatureRequest, QgsRectangle
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from rs4d_qgis import settings
from rs4d_qgis.bundled import icon
from rs4d_qgis.dock.draw_tool import DrawTool
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.edits import shapes
from rs4d_qgis.review.edits.edit_work import EditWork
from rs4d_qgis.review.edits.shape_tool import ShapeTool
from rs4d_qgis.review.reflow_grid import ReflowGrid
from rs4d_qgis.translation import tr

# Of a larger selection nobody looks at each object, to know which buttons apply.
_LOOKED_AT = 100
_LAST_TOLERANCE = "simplify_m"
_ICON_PX = 20
_CLASS_LETTERS = 10


class EditBar(QWidget):
    """Adds its keys to the desk's.

    Attributes:
        work: what its buttons do.
    """

    def __init__(self, desk: DeskState, iface, parent=None):
        super().__init__(parent)
        self._desk = desk
        self._iface = iface
        self._canvas = iface.mapCanvas()
        self.work = EditWork(desk, self)
        self._tools = {
            "box": DrawTool(self._canvas),
            "draw": ShapeTool(self._canvas, ring=True),
            "redraw": ShapeTool(self._canvas, ring=True),
            "split": ShapeTool(self._canvas, ring=False),
            "hole": ShapeTool(self._canvas, ring=True),
        }
        self._tools["box"].drawn.connect(self._box_drawn)
        for name, run in (("draw", self.work.draw), ("split", self.work.split), ("hole", self.work.cut_hole)):
            self._tools[name].drawn.connect(partial(self.work.guarded, run))
        self._tools["redraw"].drawn.connect(self._redrawn)
        self._buttons: dict[str, QToolButton] = {}
        self._classes = QComboBox()
        self._classes.setObjectName("edit_class")
        self._classes.setToolTip(
            tr("The class of what is drawn anew. As suggested: by the model for a box, else that of the current object")
        )
        self._classes.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._classes.setMinimumContentsLength(_CLASS_LETTERS)  # also of longer names: else these widen the panel
        self._classes.currentIndexChanged.connect(self._class_chosen)
        self._tolerance = QDoubleSpinBox()
        self._tolerance.setObjectName("edit_tolerance")
        self._tolerance.setRange(0.05, 100.0)
        self._tolerance.setSingleStep(0.1)
        self._tolerance.setSuffix(tr(" m"))
        self._tolerance.setToolTip(tr("How far outlines may move where Simplify takes points off"))
        self._tolerance.setValue(float(settings.last(_LAST_TOLERANCE, 0.5)))
        # The desk's keys are for the map, and fields take them for typing.
        self._classes.activated.connect(lambda _place: self._canvas.setFocus())
        self._tolerance.editingFinished.connect(self._canvas.setFocus)
        self._build()
        for tool in self._tools.values():
            tool.activated.connect(self._show_tool)
            tool.deactivated.connect(self._show_tool)
        self.work.engine.waiting.connect(self._show)
        self.work.changed.connect(self._show)
        desk.keys.changed.connect(self._show_keys)
        desk.keys.lend(self._keys_while_drawing)
        desk.current_changed.connect(self._show)
        desk.shown_changed.connect(self._show)
        self._show_keys()
        self._show()

    def tear_down(self) -> None:
        """QGIS is closing, or the plugin is turned off."""
        for tool in self._tools.values():
            tool.stop()
        self.work.tear_down()

    def _build(self) -> None:
        drawn, at_once = QHBoxLayout(), QHBoxLayout()
        for name, label, image, default, tip in self._own_tools():
            self._add(drawn, name, label, image, default, tip, partial(self._take_tool, name))
            self._buttons[name].setCheckable(name in self._tools)
        for name, label, image, default, tip, run in self._own_actions():
            self._add(at_once, name, label, image, default, tip, run)
        for line in (drawn, at_once):
            line.setSpacing(2)
            line.addStretch(1)
        labels = [QLabel(tr("New:")), QLabel(tr("Simplify:"))]
        for label in labels:  # fields below each other begin below each other
            label.setMinimumWidth(max(each.sizeHint().width() for each in labels))
        choices = [_labelled(*pair) for pair in zip(labels, (self._classes, self._tolerance))]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(drawn)
        layout.addLayout(at_once)
        layout.addWidget(ReflowGrid(choices, across=(2, 1)))

    @staticmethod
    def _own_tools() -> list[tuple]:
        """Name, label, icon, default key, tip."""
        vertices = QgsApplication.getThemeIcon("/mActionVertexToolActiveLayer.svg")
        return [
            ("box", tr("Outline in a box"), icon("edit-box"), "B",
             tr("Draw a box around an object that was missed or is badly shaped: the engine draws its outline")),
            ("draw", tr("Draw an object"), icon("edit-draw"), "D",
             tr("Draw the outline of a new object, corner by corner; the right button ends it")),
            ("redraw", tr("Redraw"), icon("edit-redraw"), "E",
             tr("Draw the outline of the selected or current object anew")),
            ("split", tr("Split"), icon("edit-split"), "X",
             tr("Draw a line right across an object, which is cut in two along it")),
            ("hole", tr("Cut a hole"), icon("edit-hole"), "H", tr("Draw the outline of a hole inside of an object")),
            ("vertices", tr("Vertices"), vertices, "T", tr("QGIS's vertex tool, on this layer")),
        ]  # fmt: skip

    def _own_actions(self) -> list[tuple]:
        """Name, label, icon, default key, tip, what it does."""
        work = self.work
        return [
            ("merge", tr("Merge"), icon("edit-merge"), "M", tr("Make the selected objects one"), work.merge),
            ("fill", tr("Fill holes"), icon("edit-fill"), "F",
             tr("Close all holes of the selected or current objects"), work.fill_holes),
            ("simplify", tr("Simplify"), icon("edit-simplify"), "I",
             tr("Take points off the selected or current objects"), self._simplify),
            ("angles", tr("Right angles"), icon("edit-angles"), "O",
             tr("Give right angles to the selected or current objects, where they nearly have them"), work.straighten),
            ("revert", tr("Back to the raw shape"), icon("edit-revert"), "V",
             tr("Give the selected or current objects the shapes that the run found"), work.revert),
            ("duplicates", tr("Remove duplicates..."), icon("edit-duplicates"), "",
             tr("Find objects that are there twice, among the selected ones or in all of the layer, and ask"),
             work.remove_duplicates),
        ]  # fmt: skip

    def _add(
        self, line: QHBoxLayout, name: str, label: str, image: QIcon, default: str, tip: str, run: Callable
    ) -> None:
        button = QToolButton()
        button.setObjectName(f"edit_{name}")
        button.setIcon(image)
        button.setIconSize(QSize(_ICON_PX, _ICON_PX))
        button.setAutoRaise(True)
        button.setAccessibleName(label)
        button.setProperty("tip", f"<b>{label}</b>{{}}<br>{tip}")
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.clicked.connect(lambda _checked=False: self._run(run))
        line.addWidget(button)
        self._buttons[name] = button
        self._desk.keys.add(f"edit_{name}", label, default, partial(self._run, run))

    def _run(self, run: Callable) -> None:
        self.work.guarded(run)
        self._show_tool()

    def _keys_while_drawing(self) -> dict[str, Callable] | None:
        tool = self._canvas.mapTool()
        return {"undo": tool.back} if isinstance(tool, ShapeTool) and tool.drawing else None

    def _take_tool(self, name: str) -> None:
        self._iface.setActiveLayer(self._desk.reviewed.layer)
        if name == "vertices":
            self.work.start_editing()
            self._iface.actionVertexToolActiveLayer().trigger()
            self._canvas.setFocus()
        elif self._canvas.mapTool() is self._tools[name]:
            self._tools[name].stop()
        else:
            self._tools[name].start()

    def _box_drawn(self, box: QgsRectangle) -> None:
        self.work.guarded(self.work.outline, box)
        if self.work.editor is not None:
            self._tools["box"].start()  # for the next one

    def _redrawn(self, points: list) -> None:
        # The next object has another outline: it is done with this one.
        self._tools["redraw"].stop()
        self.work.guarded(self.work.redraw, points)

    def _simplify(self) -> None:
        settings.set_last(_LAST_TOLERANCE, self._tolerance.value())
        self.work.simplify(self._tolerance.value())

    def _class_chosen(self, _place: int) -> None:
        self.work.class_name = self._classes.currentData()

    def _show(self, *_) -> None:
        """Which buttons apply, and the classes that there are."""
        there = self.work.editor is not None
        if not there:
            for tool in self._tools.values():
                tool.stop()
        layer = self._desk.reviewed.layer if there else None
        ids = self._desk.selection() if there else []
        many = len(ids) > _LOOKED_AT
        request = QgsFeatureRequest().setFilterFids([] if many else ids)
        features = list(layer.getFeatures(request)) if there and ids and not many else []
        idle = not self.work.engine.busy
        applies = dict.fromkeys(self._buttons, there)
        applies.update(
            box=there and idle,
            redraw=len(ids) == 1,
            merge=there and layer.selectedFeatureCount() > 1,
            fill=many or any(shapes.has_holes(feature.geometry()) for feature in features),
            simplify=bool(ids),
            angles=bool(ids) and idle,
            revert=many or any(feature["edited"] for feature in features),
        )
        for name, button in self._buttons.items():
            button.setEnabled(applies[name])
        self._classes.setEnabled(there)
        self._tolerance.setEnabled(there)
        self._show_classes()

    def _show_classes(self) -> None:
        names = self._desk.classes
        if self._classes.count() and [self._classes.itemData(n) for n in range(1, self._classes.count())] == names:
            return
        chosen = self._classes.currentData()
        self._classes.blockSignals(True)
        self._classes.clear()
        self._classes.addItem(tr("as suggested"), None)
        for name in names:
            self._classes.addItem(class_label(name), name)
        self._classes.setCurrentIndex(0 if chosen is None else max(self._classes.findData(chosen), 0))
        self._classes.blockSignals(False)
        self._class_chosen(self._classes.currentIndex())

    def _show_tool(self) -> None:
        for name, tool in self._tools.items():
            self._buttons[name].setChecked(self._canvas.mapTool() is tool)

    def _show_keys(self) -> None:
        there = {action.name for action in self._desk.keys.actions}
        for name, button in self._buttons.items():
            key = self._desk.keys.shown(f"edit_{name}") if f"edit_{name}" in there else ""
            button.setToolTip(button.property("tip").format(f" [{key}]" if key else ""))


def _labelled(label: QLabel, field: QWidget) -> QWidget:
    pair = QWidget()
    line = QHBoxLayout(pair)
    line.setContentsMargins(0, 0, 0, 0)
    line.addWidget(label)
    line.addWidget(field, 1)
    return pair
