"""Memory does not grow with the scene: 400 megapixels take what 16 take. Run as a program, it segments one scene."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

INSTANCES_A_WINDOW = 20


def segment(scene: str, output: str) -> None:
    """Segments with a model that costs no time, so that all memory and time is the pipeline's; prints KiB at peak."""
    from perfect import ColorPredictor, instances

    from rs4d_core.models.instances import MaskPatch
    from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene

    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    disc = torch.from_numpy(np.clip(1.4 - np.hypot(x, y), 0, 1).astype(np.float32))

    class Discs(ColorPredictor):
        def predict(self, images, least_scores):
            return [self._somewhere(*image.shape[1:]) for image in images]

        def _somewhere(self, height, width):
            x, y = rng.uniform(0, width - 60, INSTANCES_A_WINDOW), rng.uniform(0, height - 60, INSTANCES_A_WINDOW)
            boxes = np.stack([x, y, x + 60, y + 60], axis=1).tolist()
            return instances([MaskPatch(disc, tuple(box)) for box in boxes], [0] * len(boxes), rng.uniform(0.5, 1, 20))

    result = segment_scene(scene, Path(output), Discs(window_px=1024, overlap_px=64), SegmentOptions())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, result.instances)


def peak_and_instances(side: int, folder: Path) -> tuple[int, int]:
    scene = folder / f"{side}.tif"
    # No block of it is stored, but each is read, cached and decoded as any other.
    options = {"tiled": True, "sparse_ok": True, "photometric": "RGB"}
    transform = Affine(0.5, 0, 450_000, 0, -0.5, 40_000)
    with rasterio.open(scene, "w", "GTiff", side, side, 3, "EPSG:32636", transform, "uint8", **options):
        pass
    command = [sys.executable, __file__, str(scene), str(folder / f"{side}.gpkg")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, count = run.stdout.split()
    return int(peak), int(count)


def test_memory_does_not_grow_with_the_scene(tmp_path):
    small, few = peak_and_instances(4_000, tmp_path)
    large, many = peak_and_instances(20_000, tmp_path)
    assert many > 10 * few
    assert large < 1.1 * small


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    segment(*sys.argv[1:])
