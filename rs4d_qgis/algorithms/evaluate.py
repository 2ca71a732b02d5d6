"""`rs4d:evaluate`: how well predicted polygons agree with a reference."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
)

from rs4d_qgis.algorithms.engine_algorithm import EngineAlgorithm
from rs4d_qgis.algorithms.report import html_report
from rs4d_qgis.algorithms.vector_input import write_input
from rs4d_qgis.compat import NUMBER_DOUBLE, SOURCE_POLYGON
from rs4d_qgis.translation import tr

# Outputs, and the engine's names of them.
FIGURES = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "PRECISION": "precision",
    "RECALL": "recall",
    "F1": "f1",
    "MEAN_IOU": "mean_iou",
}
COUNTS = {"PREDICTED_COUNT": "predicted", "REFERENCE_COUNT": "reference", "MATCHED_COUNT": "matched"}


class EvaluateAlgorithm(EngineAlgorithm):
    """Compares a layer of predictions with a reference layer."""

    PREDICTED = "PREDICTED"
    REFERENCE = "REFERENCE"
    IOU = "IOU"
    CLASS_FIELD = "CLASS_FIELD"
    REPORT = "REPORT"

    def name(self) -> str:
        return "evaluate"

    def displayName(self) -> str:
        return tr("Evaluate against a reference layer")

    def tags(self) -> list[str]:
        return tr("accuracy,validation,average precision,ap50,precision,recall,f1,iou,ground truth,compare").split(",")

    def shortDescription(self) -> str:
        return tr("Tells how good a result is: average precision, precision, recall, F1 and IoU against a reference.")

    def shortHelpString(self) -> str:
        return tr(
            "Compares predicted polygons with reference polygons, one to one, best score first, and tells how well "
            "they agree: average precision (AP: mean over IoU 0.50 to 0.95; AP50; AP75), precision, recall, F1, and "
            "the mean IoU of the matched pairs; in all, and for each class.\n\nBoth layers should cover the same "
            "ground: what is predicted where nobody has drawn a reference counts as false. Select features, or filter "
            "the layers, to compare a part.\n\nClasses are compared where both layers have a field of them. "
            "Predictions that a review has rejected do not count."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.add(
            QgsProcessingParameterFeatureSource(self.PREDICTED, tr("Predicted polygons"), [SOURCE_POLYGON]),
            tr("A result of RS4D, or any other polygons. A field score, where there is one, ranks them."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(self.REFERENCE, tr("Reference polygons"), [SOURCE_POLYGON]),
            tr("What should have been found, in any CRS."),
        )
        self.add(
            QgsProcessingParameterNumber(
                self.IOU, tr("IoU that a match needs"), NUMBER_DOUBLE, defaultValue=0.5, minValue=0.01, maxValue=1.0
            ),
            tr("The common area of two polygons, divided by that of both together. It decides on precision, recall, F1 "
               "and mean IoU; average precisions have IoUs of their own."),
        )  # fmt: skip
        self.add(
            QgsProcessingParameterField(
                self.CLASS_FIELD,
                tr("Class field of the reference"),
                parentLayerParameterName=self.REFERENCE,
                optional=True,
            ),
            tr("Where its name is not class. Without such a field, classes are not compared."),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.REPORT, tr("Report"), tr("Web page (*.html);;JSON (*.json)"), optional=True
            ),
            tr("A page with all figures, or the figures as JSON if the file's name ends in .json."),
        )
        for name, title in (
            ("AP", tr("Average precision, IoU 0.50 to 0.95")),
            ("AP50", tr("Average precision at IoU 0.50")),
            ("AP75", tr("Average precision at IoU 0.75")),
            ("PRECISION", tr("Precision")),
            ("RECALL", tr("Recall")),
            ("F1", tr("F1")),
            ("MEAN_IOU", tr("Mean IoU of matched pairs")),
            ("PREDICTED_COUNT", tr("Number of predictions")),
            ("REFERENCE_COUNT", tr("Number of reference polygons")),
            ("MATCHED_COUNT", tr("Number of matched pairs")),
        ):
            self.addOutput(QgsProcessingOutputNumber(name, title))

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        ok, reason = super().checkParameterValues(parameters, context)
        if ok and parameters[self.PREDICTED] == parameters[self.REFERENCE]:
            # What the dialog offers first, where the project has one layer of polygons.
            return False, tr("Predicted and reference polygons are the same layer: choose another reference")
        return ok, reason

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        sources = {}
        for name in (self.PREDICTED, self.REFERENCE):
            sources[name] = self.parameterAsSource(parameters, name, context)
            if sources[name] is None:
                raise QgsProcessingException(self.invalidSourceError(parameters, name))
        with tempfile.TemporaryDirectory(prefix="rs4d-") as folder:
            paths = {}
            for name, source in sources.items():
                paths[name] = Path(folder) / f"{name.lower()}.gpkg"
                self.call_it(paths[name], source.sourceName())
                write_input(source, paths[name], [], context, feedback)
            request = {
                "predicted": str(paths[self.PREDICTED]),
                "reference": str(paths[self.REFERENCE]),
                "iou": self.parameterAsDouble(parameters, self.IOU, context),
                "class_field": self.parameterAsString(parameters, self.CLASS_FIELD, context) or None,
            }
            metrics = None if feedback.isCanceled() else self.ask("evaluate", request, feedback)
        if metrics is None:
            return {}
        metrics["notes"] = self.tell(metrics["notes"], feedback)
        for figure in FIGURES.values():
            value = metrics[figure]
            feedback.pushInfo(f"{figure}: {tr('not defined') if value is None else f'{value:.3f}'}")
        results = {output: metrics[name] for output, name in {**FIGURES, **COUNTS}.items()}
        report = self.parameterAsFileOutput(parameters, self.REPORT, context)
        if report:
            names = [source.sourceName() for source in sources.values()]
            _write_report(Path(report), metrics, *names)
            results[self.REPORT] = report
        return results


def _write_report(path: Path, metrics: dict[str, Any], predicted: str, reference: str) -> None:
    if path.suffix.lower() == ".json":
        text = json.dumps({"predicted_layer": predicted, "reference_layer": reference, **metrics}, indent=2)
    else:
        text = html_report(metrics, predicted, reference)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise QgsProcessingException(tr("The report cannot be written: {}").format(error)) from error
