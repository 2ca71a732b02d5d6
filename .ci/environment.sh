# The environments of run.sh and test.sh: made where missing, mended where broken, left alone where they are up to date.
# To be sourced, with $root set to the folder of the checkout. Every version comes from constraints.txt.

# Whatever another Python, GDAL or PROJ of this machine needs would mislead ours.
unset PYTHONPATH PYTHONHOME LD_LIBRARY_PATH PROJ_LIB PROJ_DATA GDAL_DATA GDAL_DRIVER_PATH VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1

say() { printf '%s\n' "$*" >&2; }

give_up() {
  say "$*"
  exit 1
}

# have_packages NAME...: are these Debian packages installed?
have_packages() {
  local name
  for name in "$@"; do
    [ "$(dpkg-query -W -f '${Status}' "$name" 2>/dev/null)" = "install ok installed" ] || return 1
  done
}

# need_packages NAME...: installs what is missing of these Debian packages.
need_packages() {
  have_packages "$@" && return
  command -v apt-get >/dev/null || give_up "These packages are needed, under their Debian names: $*. Install them, then start this again."
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || give_up "As root, run: apt-get update && apt-get install $* - then start this again."
    as_root=(sudo)
  fi
  say "Installing Debian packages: $*"
  "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 update -qq >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install \
    -y -qq --no-install-recommends "$@" >/dev/null
}

# usable_python PROGRAM: is it Python 3.10 or newer, and can it make environments?
usable_python() {
  "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

# find_python: prints the first usable interpreter.
find_python() {
  local name path
  for name in python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3; do
    path=$(command -v "$name") || continue
    if usable_python "$path"; then
      printf '%s\n' "$path"
      return
    fi
  done
  return 1
}

# up_to_date FOLDER CONTENTS STAMP...: does the environment work, and was it made for one of these stamps?
up_to_date() {
  local folder=$1 stamp
  shift
  [ -f "$folder/rs4d-stamp" ] && "$folder/bin/python" -c '' 2>/dev/null || return 1
  for stamp in "$@"; do
    [ "$(cat "$folder/rs4d-stamp")" = "$stamp" ] && return
  done
  return 1
}

# stamp CONTENTS: what an environment with these contents is made from. The folder counts: scripts in an environment name it.
stamp() {
  local files=("$root/constraints.txt" "$root/pyproject.toml" "$root/setup.py" "$root/.ci/environment.sh")
  printf '%s %s\n' "$(printf '%s\n' "$root" | cat - "${files[@]}" | sha256sum | cut -d ' ' -f 1)" "$1"
}

# make_environment FOLDER PYTHON STAMP COMMAND: runs COMMAND, a function that installs, in a working environment.
make_environment() {
  local folder=$1 python=$2 stamp=$3 install=$4
  shift 4
  # Killed while it installed, or without a working pip: half-made, so start afresh. pip's cache keeps that short.
  if [ -e "$folder/rs4d-unfinished" ] || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$folder"
    "$python" -m venv "$@" "$folder"
  fi
  rm -f "$folder/rs4d-stamp"
  touch "$folder/rs4d-unfinished"
  "$install" "$folder/bin/python" || give_up "The set-up of $folder failed; the lines above say why. Start this again to resume."
  rm "$folder/rs4d-unfinished"
  printf '%s\n' "$stamp" >"$folder/rs4d-stamp"
}

install_engine() { install_package "$1" "$root"; }
install_engine_and_tests() { install_package "$1" "$root[test]"; }

# pip_install PYTHON ARGUMENT...: in the pinned versions. Who looks on sees how far it is; a log gets what goes wrong.
pip_install() {
  local python=$1 voice=--quiet
  shift
  if [ -t 2 ]; then
    voice=--progress-bar=on
  fi
  "$python" -m pip install "$voice" -c "$root/constraints.txt" "$@" >&2
}

install_package() {
  # The build tool first, so that its version is ours too and not the newest.
  pip_install "$1" setuptools && pip_install "$1" --no-build-isolation -e "$2"
}

install_qgis_tests() {
  pip_install "$1" pytest pytest-qt pytest-qgis bandit || return
  # Beside, and not in the environment: there the test tools would take it in the stead of QGIS's PyQt5.
  local beside=${1%/bin/python}/pyqt6
  [ -d "$beside" ] || pip_install "$1" --target "$beside" PyQt6
}

# engine_environment [test]: .venv with the engine, and with the tools of the tests where asked for.
engine_environment() {
  local contents=${1:-engine} plain tested python
  plain=$(stamp engine)
  tested=$(stamp test)
  if [ "$contents" = test ]; then
    up_to_date "$root/.venv" "$tested" && return
  else
    up_to_date "$root/.venv" "$plain" "$tested" && return
  fi
  python=$(find_python) || {
    need_packages python3 python3-venv
    python=$(find_python) || give_up "Python 3.10 or newer is needed, with its venv module. Install one, then start this again."
  }
  say "Setting up the engine in .venv: 2 GB, up to 7 GB where PyTorch comes with CUDA. Some minutes, this one time."
  if [ "$contents" = test ]; then
    make_environment "$root/.venv" "$python" "$tested" install_engine_and_tests
  else
    make_environment "$root/.venv" "$python" "$plain" install_engine
  fi
}

# qgis_environment: QGIS and a virtual screen from Debian, and .venv-qgis over the system's Python with the test tools.
qgis_environment() {
  need_packages qgis python3-qgis python3-venv xvfb xauth xdotool
  local wanted
  wanted=$(stamp qgis)
  up_to_date "$root/.venv-qgis" "$wanted" && return
  say "Setting up the QGIS tests in .venv-qgis."
  make_environment "$root/.venv-qgis" /usr/bin/python3 "$wanted" install_qgis_tests --system-site-packages
}

# alone COMMAND...: one set-up at a time in this checkout.
alone() {
  exec 9<"$root"
  flock 9
  "$@"
  exec 9<&-
}
