"""What comes of a review, played in QGIS by `driver.py`: exported, reported, and compared with a reference."""

import os
import sys
from pathlib import Path

from qgis.core import QgsVectorLayer
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtTest import QTest

sys.path.insert(0, str(Path(__file__).parent))
from review_scenarios import key, load_result, open_review, settled, widget


def hands_over(desk):
    """Some decisions; then chips to train on, a report, and a walk through the errors."""
    desk.load(os.environ["SCENE"], "scene")
    truth = QgsVectorLayer(os.environ["TRUTH"], "truth", "ogr")
    truth.setCustomProperty("skipMemoryLayersCheck", 1)
    desk.project.addMapLayer(truth, False)
    layer = load_result(desk)
    yield from open_review(desk, layer)
    key(desk, "aaaraaraaa")
    report, review, folder = desk.report, desk.review, Path(os.environ["OUT"])
    report["accepted"] = sorted(
        (feature["class"], feature.geometry().area()) for feature in layer.getFeatures("status = 'accepted'")
    )
    report["counts"] = {name: dict(count) for name, count in review.session.counts().items()}

    review.tabs.setCurrentIndex([review.tabs.tabText(tab) for tab in range(review.tabs.count())].index("Export"))
    export = review.export
    export.format.setCurrentIndex([export.format.itemData(row).name for row in range(6)].index("chips"))
    export.objects.setCurrentIndex(export.objects.findData("accepted"))
    export.chip_px.setValue(256)
    export.file.setFilePath(str(folder / "chips"))
    yield from settled(desk)
    QTest.mouseClick(widget(desk, "export_run"), Qt.MouseButton.LeftButton)
    yield lambda: not export.work.busy
    report["exported"] = export.work.told
    report["scene"] = export.scene.currentText()
    yield from settled(desk)
    desk.shot("exported")
    export.write_summary(str(folder / "summary.csv"))
    export.write_report(str(folder / "report.pdf"))
    yield lambda: "report.pdf" in export.work.told
    report["reported"] = export.work.told

    review.tabs.setCurrentIndex(review.tabs.currentIndex() + 1)
    evaluation = review.evaluation
    evaluation.reference.setLayer(truth)
    QTest.mouseClick(widget(desk, "evaluate_run"), Qt.MouseButton.LeftButton)
    yield lambda: not evaluation.work.busy
    report["walk"] = []
    for _ in range(3):
        QTest.mouseClick(evaluation.next_button, Qt.MouseButton.LeftButton)
        report["walk"].append(evaluation.error.text())
    yield from settled(desk)
    desk.shot("errors")
    # What QGIS would ask about before it closes.
    report["kept"] = [
        each.name()
        for each in desk.project.mapLayers().values()
        if each.isTemporary() and not int(each.customProperty("skipMemoryLayersCheck", 0))
    ]
    report["figures"] = [evaluation.table.topLevelItem(0).text(column) for column in range(7)]
