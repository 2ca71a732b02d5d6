#!/usr/bin/env bash
# Finds the instances in a scene. Sets up what it needs the first time.
#
#   ./run.sh                    a generated scene: out/demo.gpkg and out/demo.png
#   ./run.sh SCENE [options]    your scene: out/<name>.gpkg and out/<name>.png; the options are those of `rs4d segment`.
#                               With -o OUT the result goes there, and no picture is drawn unless --picture asks for one.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
source "$root/.ci/environment.sh"

alone engine_environment
rs4d=("$root/.venv/bin/python" -m rs4d_core.cli)
mkdir -p "$root/out"

if [ $# -eq 0 ]; then
  demo=$root/out/demo
  say "Generating a scene ..."
  # A port. Scenes with a seed below 2^32 are never trained on.
  "$root/.venv/bin/python" - "$demo.tif" <<'PYTHON'
import sys
from pathlib import Path

from rs4d_core.datasets.synthetic import generate_scene, write_scene

write_scene(generate_scene(seed=2_000_000_002, width=1400, height=1000, resolution_m=0.5), Path(sys.argv[1]))
PYTHON
  say "Finding its instances ..."
  rm -f "$demo.gpkg"
  "${rs4d[@]}" segment "$demo.tif" -o "$demo.gpkg" --picture "$demo.png"
  say "Open $demo.gpkg over $demo.tif in QGIS, or look at the picture: $demo.png"
  exit
fi

defaults=()
if [ "${1#-}" = "$1" ]; then
  name=${1##*/}
  defaults=(-o "$root/out/${name%.*}.gpkg" --picture "$root/out/${name%.*}.png")
  for argument in "$@"; do
    case $argument in
      -o* | --output | --output=*) defaults=() ;;
    esac
  done
fi
# Options that the user gives come later, and so override these.
exec "${rs4d[@]}" segment "${defaults[@]}" "$@"
