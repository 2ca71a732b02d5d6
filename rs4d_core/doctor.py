"""Check an installation: what is there, whether it works, and how to mend what does not."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import rs4d_core
from rs4d_core.installation import add_command, reinstall_command

_LEAST_FREE_GIB = 1.0


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether it works. What is optional and absent is ok.
        value: what was found, or what went wrong.
        mend: what to do about it, None where nothing needs to be done.
        reinstall: whether `mend` begins with a new installation. Who made this one may have a way of their own.
        hint: the rest of `mend` then: what else may help.
        absent: whether it is optional and not installed.
    """

    name: str
    ok: bool
    value: str
    mend: str | None = None
    reinstall: bool = False
    hint: str | None = None
    absent: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that is needed works."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def diagnose() -> Diagnosis:
    """Run all checks. Never raises: whatever goes wrong is a finding."""
    return Diagnosis(
        (
            Check("rs4d", True, f"{rs4d_core.__version__} in {Path(rs4d_core.__file__).parent}"),
            Check("python", True, f"{platform.python_version()} ({sys.executable}), {platform.platform()}"),
            *(_needed(name, check, *mend) for name, check, *mend in _NEEDED),
            *(_optional(name, extra, what) for name, extra, what in _OPTIONAL),
        )
    )


def _needed(name: str, check: Callable[[], str], reinstall: bool, hint: str | None = None) -> Check:
    try:
        return Check(name, True, check())
    except Exception as error:  # a diagnosis reports whatever it meets: compilers and libraries raise all kinds
        steps = ([f"install the engine anew: {reinstall_command()}"] if reinstall else []) + ([hint] if hint else [])
        value = " ".join(f"{type(error).__name__}: {error}".split())
        return Check(name, False, value, "; or ".join(steps), reinstall, hint)


def _optional(module: str, extra: str, what: str) -> Check:
    name = module.replace("_", "-")
    if util.find_spec(module) is None:
        return Check(name, True, f"not installed; needed only for {what}", add_command(extra), absent=True)
    try:
        return Check(name, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name, True, "found, of an unknown version")


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"


def _device() -> str:
    from rs4d_core.device import choose_device

    device = choose_device("auto")
    return f"{device.name} ({device.reason})"


def _precision() -> str:
    from rs4d_core.device import choose_device, fast_dtype

    return f"{str(fast_dtype(choose_device('auto').name)).removeprefix('torch.')} is the fastest for matrix products"


def _numba() -> str:
    import numba
    import torch

    from rs4d_core.ops.selective_scan import selective_scan

    step = torch.ones(1, 3, 4)
    states = torch.ones(1, 3, 8)
    selective_scan(step, step, -torch.ones(4, 8), states, states, torch.ones(4), implementation="numba")
    return f"{numba.__version__}, compiles"


def _rasters() -> str:
    import numpy as np
    import rasterio
    from rasterio.io import MemoryFile

    with MemoryFile() as file, file.open(driver="GTiff", width=2, height=2, count=1, dtype="uint8") as raster:
        raster.write(np.ones((1, 2, 2), np.uint8))
    return f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}"


def _vectors() -> str:
    import geopandas
    import pyogrio
    import shapely

    if "w" not in pyogrio.list_drivers().get("GPKG", ""):
        raise ImportError("GDAL comes without the GeoPackage driver")
    return (
        f"pyogrio {pyogrio.__version__}, GDAL {pyogrio.__gdal_version_string__}, "
        f"geopandas {geopandas.__version__}, GEOS {shapely.geos_version_string}"
    )


def _projections() -> str:
    import pyproj
    from rasterio.crs import CRS

    # Both read PROJ's database, and a PROJ_DATA that belongs to another PROJ breaks either.
    CRS.from_epsg(32636)
    pyproj.CRS.from_epsg(32636)
    return f"pyproj {pyproj.__version__}, PROJ {pyproj.proj_version_str}"


def _default_model() -> str:
    from rs4d_core.models.card import default_model_path
    from rs4d_core.models.checkpoint import load_model

    path = default_model_path()
    model = load_model(path, "cpu")
    return f"{model.name}, {len(model.classes)} classes ({path})"


def _temporary_folder() -> str:
    with tempfile.NamedTemporaryFile(prefix="rs4d-") as file:
        file.write(b"x")
    free_gib = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    if free_gib < _LEAST_FREE_GIB:
        raise OSError(f"only {free_gib:.1f} GiB free in {tempfile.gettempdir()}")
    return f"{tempfile.gettempdir()}, {free_gib:.0f} GiB free"


# What is looked at, how, whether a new installation mends it, and what else may.
_NEEDED: tuple[tuple[Any, ...], ...] = (
    ("torch", _torch, True),
    ("device", _device, True),
    ("precision", _precision, True),
    ("numba", _numba, True, "set NUMBA_CACHE_DIR to a writable folder, if it cannot write its cache"),
    ("rasters", _rasters, True),
    ("vectors", _vectors, True),
    ("projections", _projections, False, "unset PROJ_LIB and PROJ_DATA: they point at the data of another PROJ"),
    ("default model", _default_model, True, "name a model file with --model"),
    ("temporary folder", _temporary_folder, False, "free some space, or set TMPDIR to a writable folder"),
)

_OPTIONAL = (
    ("mamba_ssm", "cuda", "more speed on NVIDIA GPUs"),
    ("distributed", "cluster", "sharing a scene out to several machines"),
    ("lightning_fabric", "train", "training"),
    ("transformers", "train", "counting the size of SAM"),
)
