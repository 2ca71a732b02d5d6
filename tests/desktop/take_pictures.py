"""Takes the README's pictures of QGIS anew: `.venv/bin/python tests/desktop/take_pictures.py`, on a Debian with QGIS.

The scene is a generated one.
"""

import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from qgis_desktop import ENGINE_PYTHON, HERE, ROOT, play

NAMES = {"running": "qgis-running", "result": "qgis-result", "reviewed": "qgis-review"}
_GENERATE = """
import sys
from pathlib import Path
from rs4d_core.datasets.synthetic import generate_scene, write_scene
write_scene(generate_scene(seed=2_000_000_003, width=1400, height=1000, resolution_m=0.4), Path(sys.argv[1]))
"""


def take(pictures: Path) -> None:
    """Play the scenario `pictures`, and keep what it has taken as JPEGs in the folder `pictures`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "suburb.tif"
        subprocess.run([ENGINE_PYTHON, "-c", _GENERATE, scene], check=True)
        play(folder, HERE / "dock_scenarios.py", "pictures", SCENE=str(scene))
        for taken, kept in NAMES.items():
            with Image.open(folder / f"{taken}.png") as image:
                image.convert("RGB").save(pictures / f"{kept}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    take(ROOT / "resources" / "pictures")
