"""What pyproject.toml cannot say: the top-level folder `resources/` is installed as `rs4d_core/resources`.

The model file then travels in the wheel, while a checkout keeps one `resources/` folder for engine and plugin.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rs4d_core", "rs4d_core.*"]), "rs4d_core.resources"],
    package_dir={"rs4d_core.resources": "resources"},
    package_data={"rs4d_core.resources": ["models/*.safetensors"]},
)
