"""Every name of Qt that the plugin uses exists in PyQt5 and in PyQt6: in the latter, enums have their scope.

Only `compat.py` may ask which of the two there is. The names are read from the sources, so that those inside of
functions count too, and looked up in the real bindings.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Not in the environment itself, where the test tools would take it in the stead of QGIS's PyQt5.
PYQT6 = Path(sys.prefix) / "pyqt6"
PLUGIN = ROOT / "rs4d_qgis"

needs_pyqt6 = pytest.mark.skipif(not PYQT6.is_dir(), reason="PyQt6 is not installed: ./test.sh qgis installs it")

# Prints which of [module, name, attribute, ...] do not exist. The first part is that behind `qgis.PyQt`.
_LOOK_UP = """
import importlib, json, sys
sys.path.insert(0, sys.argv[2])
missing = []
for module, *names in json.load(sys.stdin):
    found = importlib.import_module(f"{sys.argv[1]}.{module}")
    for name in names:
        if not hasattr(found, name):
            missing.append(".".join([module, *names]))
            break
        found = getattr(found, name)
print(json.dumps(missing))
"""
# Imports every module with qgis.PyQt mapped to PyQt6, as QGIS 4 does, and QGIS's own classes stood in for: there is no
# QGIS 4 here. What is proved is that no import, class body or default value needs Qt 5.
_IMPORT_ALL = """
import importlib, pkgutil, sys, types
sys.path[:0] = sys.argv[1:]

class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {"__init__": lambda self, *args, **kwargs: None})
    def __or__(cls, other):
        return cls

def stand_in(name):
    module = types.ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(Anything(name, (), {}), attribute)
    sys.modules[name] = module
    return module

qgis = types.ModuleType("qgis")
qgis.__path__ = []
sys.modules["qgis"] = qgis
for name in ("core", "gui", "utils", "processing"):
    setattr(qgis, name, stand_in(f"qgis.{name}"))
qgis.PyQt = importlib.import_module("PyQt6")
sys.modules["qgis.PyQt"] = qgis.PyQt
for name in ("QtCore", "QtGui", "QtWidgets", "QtNetwork", "QtXml"):
    sys.modules[f"qgis.PyQt.{name}"] = importlib.import_module(f"PyQt6.{name}")
import rs4d_qgis
names = [module.name for module in pkgutil.walk_packages(rs4d_qgis.__path__, "rs4d_qgis.")]
for name in names:
    importlib.import_module(name)
from rs4d_qgis import compat
assert compat.QAction.__module__ == "PyQt6.QtGui"
assert compat.FIELD_TEXT.__class__.__name__ == "Type"
assert not any(name.startswith("PyQt5") for name in sys.modules)
print(len(names))
"""


def chains(path: Path) -> set[tuple[str, ...]]:
    """All (module, name, attribute, ...) of Qt in a file. A chain ends where something is called or indexed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    origins = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qgis.PyQt"):
            module = node.module.removeprefix("qgis.PyQt").strip(".")
            for alias in node.names:
                origins[alias.asname or alias.name] = (module, alias.name) if module else (alias.name,)
    found = set(origins.values())
    for node in ast.walk(tree):
        names = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if names and isinstance(node, ast.Name) and node.id in origins:
            found.add((*origins[node.id], *names))
    return found


@pytest.mark.parametrize(
    ("binding", "folder"), [("PyQt5", ""), pytest.param("PyQt6", str(PYQT6), marks=needs_pyqt6)], ids=["5", "6"]
)
def test_all_names_of_qt_exist(binding, folder):
    used = sorted({chain for path in PLUGIN.rglob("*.py") if path.name != "compat.py" for chain in chains(path)})
    assert any(len(chain) > 3 for chain in used)
    done = subprocess.run(
        [sys.executable, "-c", _LOOK_UP, binding, folder],
        input=json.dumps(used),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []


@needs_pyqt6
def test_every_module_can_be_imported_with_pyqt6():
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, str(PYQT6), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_the_search_sees_what_pyqt6_has_not(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "from qgis.PyQt.QtCore import Qt as Q\n\ndef f(x):\n    return x[Q.UserRole].data(Q.ItemDataRole.UserRole)\n"
    )
    assert {("QtCore", "Qt", "UserRole"), ("QtCore", "Qt", "ItemDataRole", "UserRole")} <= chains(source)
