#!/usr/bin/env bash
# Runs the checks and tests, and sets up what they need the first time.
#
#   ./test.sh            all of them
#   ./test.sh core       style, and the engine's tests
#   ./test.sh qgis       tests with real QGIS objects
#   ./test.sh desktop    tests with a real QGIS desktop on a virtual screen
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
source "$root/.ci/environment.sh"

# More threads than this do not make such small work faster, and the machine may be shared.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} MKL_NUM_THREADS=${MKL_NUM_THREADS:-2}

core() {
  "$root/.venv/bin/python" -m ruff check "$root"
  "$root/.venv/bin/python" -m ruff format --check "$root"
  "$root/.venv/bin/python" -m pytest "$root/tests/core"
}

qgis() {
  alone qgis_environment
  # Unbuffered: QGIS crashes at exit over layers that the traceback of a failed test holds, and the report must be out.
  PYTHONUNBUFFERED=1 QT_QPA_PLATFORM=offscreen "$root/.venv-qgis/bin/python" -m pytest "$root/tests/qgis"
}

desktop() {
  alone qgis_environment
  "$root/.venv/bin/python" -m pytest "$root/tests/desktop"
}

case ${1:-all} in
  all) tiers=(core qgis desktop) ;;
  core | qgis | desktop) tiers=("$1") ;;
  *) give_up "usage: ./test.sh [core|qgis|desktop]" ;;
esac

alone engine_environment test
cd "$root"
for tier in "${tiers[@]}"; do
  "$tier"
done
