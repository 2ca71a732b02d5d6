"""The zip that QGIS installs: what the plugin repository asks of it, and that a fresh QGIS loads it."""

import ast
import configparser
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QGIS_PROCESS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
# Wheels that break QGIS's process, and bindings that belong to one Qt only.
FORBIDDEN = {"torch", "numpy", "pandas", "scipy", "rasterio", "shapely", "geopandas", "pyproj", "pyogrio", "numba"}
FORBIDDEN |= {"rs4d_core", "PyQt5", "PyQt6", "sip", "pickle"}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return runpy.run_path(str(ROOT / "package_plugin.py"))["build"](tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory) -> Path:
    """A folder of plugins with this one in it, as QGIS's plugin manager leaves it."""
    folder = tmp_path_factory.mktemp("plugins")
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(unpacked) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(unpacked / "rs4d_qgis" / "metadata.txt", encoding="utf-8")
    return parser["general"]


def test_it_is_small_whole_and_text_only(package, unpacked):
    assert package.stat().st_size < 2**20  # the repository allows 25 MB
    assert [path.name for path in unpacked.iterdir()] == ["rs4d_qgis"]
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    for path in files:
        path.read_text(encoding="utf-8")
    names = {path.relative_to(unpacked / "rs4d_qgis").as_posix() for path in files}
    assert {"metadata.txt", "LICENSE", "constraints.txt", "__init__.py", "resources/icons/rs4d.svg"} <= names
    for source in (ROOT / "rs4d_qgis").rglob("*.py"):
        assert source.relative_to(ROOT / "rs4d_qgis").as_posix() in names


def test_the_same_sources_give_the_same_bytes(package, tmp_path):
    done = subprocess.run([sys.executable, ROOT / "package_plugin.py", tmp_path], check=True, capture_output=True)
    assert str(tmp_path / package.name) in done.stdout.decode()
    assert (tmp_path / package.name).read_bytes() == package.read_bytes()


def test_the_metadata_is_complete(metadata, unpacked):
    needed = ["name", "version", "qgisMinimumVersion", "description", "about", "author", "email", "homepage", "tracker"]
    for key in [*needed, "repository", "category", "tags", "icon", "license", "changelog"]:
        assert metadata[key].strip(), key
    assert (metadata["qgisMinimumVersion"], metadata["qgisMaximumVersion"]) == ("3.22", "4.99")
    assert metadata.getboolean("hasProcessingProvider")
    assert "plugin" not in metadata["name"].lower()
    assert "engine" in metadata["about"]
    assert (unpacked / "rs4d_qgis" / metadata["icon"]).is_file()
    assert all(metadata[key].startswith("https://") for key in ("homepage", "tracker", "repository"))


def test_all_versions_agree(metadata):
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    engine = re.search(r'^__version__ = "(.+)"$', (ROOT / "rs4d_core" / "__init__.py").read_text(), re.MULTILINE)[1]
    assert metadata["version"] == project == engine
    assert metadata["changelog"].startswith(project)


def test_nothing_is_imported_that_does_not_belong_into_qgis(unpacked):
    for path in unpacked.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            assert not {module.partition(".")[0] for module in modules} & FORBIDDEN, path


def test_the_security_scan_of_the_repository_finds_nothing(unpacked):
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-r", "-ll", unpacked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(QGIS_PROCESS is None, reason="qgis_process is not installed: ./test.sh qgis installs it")
def test_a_fresh_qgis_loads_it_without_an_engine_and_without_a_complaint(unpacked, tmp_path):
    plugins = tmp_path / "profiles" / "default" / "python" / "plugins"
    shutil.copytree(unpacked, plugins)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PROJ_", "QT_", "QGIS_", "RS4D_"))
    }
    environment |= {
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": "/usr/bin:/bin",
    }

    def qgis_process(*arguments: str) -> str:
        done = subprocess.run(
            [QGIS_PROCESS, *arguments], env=environment, timeout=120, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    qgis_process("plugins", "enable", "rs4d_qgis")
    assert re.search(r"\*\s+rs4d_qgis", qgis_process("plugins"))
    assert "rs4d:segment" in qgis_process("list")
    assert "INPUT" in qgis_process("help", "rs4d:segment")
