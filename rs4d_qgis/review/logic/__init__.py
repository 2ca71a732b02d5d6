"""What the desk knows and does without Qt and QGIS: the queue, its order and filters, numbers, curves."""
