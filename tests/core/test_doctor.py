"""What the doctor says of this installation, and the commands of its advice."""

import json
import sys
from importlib import metadata, util
from pathlib import Path
from types import SimpleNamespace

import pytest

from rs4d_core import doctor, installation

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_optional_and_absent_is_told_apart_and_works(monkeypatch):
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "transformers" else found(name))
    checks = {check["name"]: check for check in doctor.diagnose().to_json()["checks"]}
    check = checks["transformers"]
    assert (check["ok"], check["absent"], check["reinstall"]) == (True, True, False)
    assert check["mend"] == f"{sys.executable} -m pip install '{ROOT}[train]'"
    assert not checks["lightning-fabric"]["absent"]
    assert not checks["torch"]["absent"]


def test_advice_to_install_anew_is_marked_and_so_is_what_else_helps(monkeypatch):
    def broken():
        raise OSError("no  such\nfile")

    monkeypatch.setattr(doctor, "_NEEDED", (("model", broken, True, "name another"), ("folder", broken, False, "free")))
    model, folder = (check for check in doctor.diagnose().checks if not check.ok)
    assert model.value == "OSError: no such file"
    assert model.mend == f"install the engine anew: {installation.reinstall_command()}; or name another"
    assert (model.reinstall, model.hint) == (True, "name another")
    assert (folder.reinstall, folder.mend) == (False, "free")


def test_the_environment_of_a_checkout_is_made_again_by_what_made_it(monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))
    assert installation.reinstall_command() == f"rm -r {ROOT}/.venv && {ROOT}/run.sh"
    monkeypatch.setattr(sys, "prefix", "/opt/other")
    assert installation.reinstall_command() == f"{sys.executable} -m pip install --force-reinstall {ROOT}"


@pytest.mark.parametrize("there", [True, False], ids=["kept", "gone"])
def test_elsewhere_pips_record_tells_the_source(monkeypatch, tmp_path, there):
    source = tmp_path / "my source"
    if there:
        source.mkdir()
    record = json.dumps({"url": source.as_uri(), "dir_info": {}})
    monkeypatch.setattr(installation.rs4d_core, "__file__", str(tmp_path / "lib" / "rs4d_core" / "__init__.py"))
    monkeypatch.setattr(metadata, "distribution", lambda _name: SimpleNamespace(read_text=lambda _file: record))
    command = installation.add_command("cuda")
    assert (f"'{source}[cuda]'" in command) == there
    assert ("FOLDER-WITH-THE-SOURCE-OF-RS4D[cuda]" in command) != there
