#!/usr/bin/env bash
# Finds the instances in a scene. Sets up what it needs the first time.
#
#   ./run.sh                    a generated scene: out/demo.gpkg and out/demo.png
#   ./run.sh --qgis             opens QGIS, with a profile of its own in out/qgis, on that scene with the panel beside it
#   ./run.sh SCENE [options]    your scene, a file, a folder of tiles or an address: out/<name>.gpkg and out/<name>.png;
#                               the options are those of `rs4d segment`.
#                               A result of an earlier run in its place is replaced, and kept as out/<name>-earlier.gpkg.
#                               With -o OUT the result goes there (a GeoPackage that exists is added to), and no picture
#                               is drawn unless --picture asks for one.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
source "$root/.ci/environment.sh"

alone engine_environment
rs4d=("$root/.venv/bin/python" -m rs4d_core.cli)
mkdir -p "$root/out"
demo=$root/out/demo

generate_demo() {
  say "Generating a scene ..."
  # A suburb. Scenes with a seed below 2^32 are never trained on.
  "$root/.venv/bin/python" - "$demo.tif" <<'PYTHON'
import sys
from pathlib import Path

from rs4d_core.datasets.synthetic import generate_scene, write_scene

write_scene(generate_scene(seed=2_000_000_003, width=1400, height=1000, resolution_m=0.4), Path(sys.argv[1]))
PYTHON
}

# set_aside RESULT.gpkg: makes room for a new one. What SQLite keeps beside a file that QGIS has open belongs to it, and
# would spoil the new file.
set_aside() {
  [ -e "$1" ] || return 0
  local earlier=${1%.gpkg}-earlier.gpkg part
  rm -f "$earlier"-wal "$earlier"-shm
  for part in "" -wal -shm; do
    [ ! -e "$1$part" ] || mv -f "$1$part" "$earlier$part"
  done
  say "$1 will be replaced: what it held is now in $earlier"
}

if [ $# -eq 0 ]; then
  generate_demo
  say "Finding its instances ..."
  set_aside "$demo.gpkg"
  "${rs4d[@]}" segment "$demo.tif" -o "$demo.gpkg" --picture "$demo.png"
  say "Open $demo.gpkg over $demo.tif in QGIS, or look at the picture: $demo.png"
  exit
fi

if [ "$1" = --qgis ]; then
  [ $# -eq 1 ] || give_up "--qgis takes nothing else: open your scene in the QGIS that starts"
  [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || give_up "There is no display to open QGIS on: start this from a desktop"
  alone need_packages qgis python3-qgis
  [ -f "$demo.tif" ] || generate_demo
  profile=$root/out/qgis/profiles/default
  mkdir -p "$profile/python/plugins" "$profile/QGIS"
  ln -sfn "$root/rs4d_qgis" "$profile/python/plugins/rs4d_qgis"
  [ -f "$profile/QGIS/QGIS3.ini" ] || printf '[PythonPlugins]\nrs4d_qgis=true\n' >"$profile/QGIS/QGIS3.ini"
  export RS4D_ENGINE_PYTHON=$root/.venv/bin/python RS4D_DEMO_SCENE=$demo.tif
  exec qgis --nologo --noversioncheck --profiles-path "$root/out/qgis" --profile default --code "$root/.ci/show_demo.py"
fi

defaults=()
if [ "${1#-}" = "$1" ]; then
  place=${1%%\?*} # of an address, without what signs it
  place=${place%/} # of a folder
  name=${place##*/}
  [ -n "$name" ] || give_up "'$1' names no scene: ./run.sh SCENE takes the file of one, or a folder of tiles"
  result=$root/out/${name%.*}
  defaults=(-o "$result.gpkg" --picture "$result.png")
  for argument in "$@"; do
    case $argument in
      -o* | --output | --output=*) defaults=() ;;
    esac
  done
fi
[ ${#defaults[@]} -eq 0 ] || set_aside "$result.gpkg"
# Options that the user gives come later, and so override these.
exec "${rs4d[@]}" segment "${defaults[@]}" "$@"
