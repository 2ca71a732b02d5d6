"""Measures the review on a layer of 50 000 objects: `.venv/bin/python tests/desktop/measure_review.py`.

On a Debian with QGIS; in the real desktop on a virtual screen. With `kills`, it kills QGIS ten times while an analyst
decides instead, and counts what is lost.
"""

import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qgis_desktop import HERE, ROOT, play, play_and_kill

OBJECTS = 50_000
KILLS = 10
_ENGINE = ROOT / ".venv" / "bin" / "python"
# Rectangles of 12 x 8 m on a grid of 20 m, in three classes, with scores from 0.2 to 1, over a raster of 2 m a pixel.
_MAKE = """
import random, sys
import geopandas, numpy, rasterio
from affine import Affine
from shapely import box
folder, number = sys.argv[1], int(sys.argv[2])
draw = random.Random(5)
across = 250
down = -(-number // across)
west, north = 440_000.0, 4_640_000.0
rows = []
for item in range(number):
    x, y = west + 20 * (item % across), north - 20 * (item // across)
    rows.append({
        "class": draw.choice(["building", "ship", "vehicle"]), "score": round(draw.uniform(0.2, 1.0), 4),
        "status": "pending", "edited": False, "area_m2": 96.0, "run": "made", "geometry": box(x, y - 8, x + 12, y),
    })
frame = geopandas.GeoDataFrame(rows, crs="EPSG:32631")
frame.to_file(f"{folder}/large.gpkg", layer="instances", VERSION="1.2", promote_to_multi=True, engine="pyogrio")
pixels = numpy.random.default_rng(1).integers(60, 90, (3, 10 * down, 10 * across), dtype="uint8")
with rasterio.open(
    f"{folder}/scene.tif", "w", driver="GTiff", count=3, dtype="uint8", width=10 * across, height=10 * down,
    crs="EPSG:32631", transform=Affine(2, 0, west, 0, -2, north), tiled=True,
) as file:
    file.write(pixels)
"""


def make_layer(folder: Path, objects: int) -> tuple[Path, Path]:
    """A layer with so many objects, and the raster under it."""
    subprocess.run([_ENGINE, "-c", _MAKE, str(folder), str(objects)], check=True)
    return folder / "large.gpkg", folder / "scene.tif"


def _spread(seconds: list[float]) -> str:
    ms = [1000 * value for value in seconds]
    return f"median {statistics.median(ms):.0f} ms, worst {max(ms):.0f} ms of {len(ms)}"


def measure_times(folder: Path) -> None:
    layer, scene = make_layer(folder, OBJECTS)
    told = play(folder, HERE / "review_scenarios.py", "times_of_a_large_layer", LAYER=str(layer), SCENE=str(scene))
    print(f"{OBJECTS} objects, a map of {told['map'][0]} x {told['map'][1]} pixels")
    print("each: until the panel has answered and the highlight is moved / until the map is drawn and on the screen")
    print("opening: {:.2f} s / {:.2f} s".format(*told["opened_s"]))
    rows = {"next, zooming": told["next_s"], "next, same scale": told["next_without_zoom_s"]}
    rows |= {f"cut, {name}": values for name, values in told["cut_s"].items()}
    for name, values in rows.items():
        answered, drawn = zip(*values, strict=True)
        print(f"{name}: {_spread(answered)} / {_spread(drawn)}")
    for name, seconds in told["full_look_s"].items():
        print(f"map {name}, from the last move to the full look: {seconds:.2f} s")
    print("rejecting {} at once: {:.2f} s".format(*told["reject_all_s"]))


def measure_kills(folder: Path) -> None:
    """Each time at a random moment, up to 8 s after the first decision."""
    layer, _ = make_layer(folder, 2000)
    log, draw = folder / "decisions.txt", random.Random()
    print(f"{KILLS} kills: decisions made, those not in the file, and how long before the kill the last of these was")
    for _ in range(KILLS):
        log.write_text("")
        wait, began = draw.uniform(0.5, 8.0), []

        def due(wait=wait, began=began) -> bool:
            if not began and log.read_text():
                began.append(time.monotonic())
            return bool(began) and time.monotonic() - began[0] > wait

        killed = play_and_kill(
            folder, HERE / "review_scenarios.py", "decides_until_killed", due, LAYER=str(layer), DECISIONS=str(log)
        )
        made = [line.split() for line in log.read_text().splitlines() if line.count(" ") == 1]
        with sqlite3.connect(layer) as file:
            whole = file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            accepted = {item for (item,) in file.execute("SELECT fid FROM instances WHERE status = 'accepted'")}
        lost = [float(when) for item, when in made if int(item) not in accepted]
        age = f", {killed - min(lost):.2f} s" if lost else ""
        print(f"{len(made)} made, {len(lost)} lost{age}; the file is {'whole' if whole else 'BROKEN'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        {"times": measure_times, "kills": measure_kills}[sys.argv[1] if sys.argv[1:] else "times"](Path(name))
