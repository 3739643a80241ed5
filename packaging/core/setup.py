"""The distribution vgbench-core: the same packages as vgbench, with the dependencies that need no PyTorch.

Everything is read from the pyproject.toml of the repository, so that nothing is said twice.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup
from setuptools_scm import get_version

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

UP = "../.."
HERE = Path(__file__).resolve().parent
whole = tomllib.loads((HERE / UP / "pyproject.toml").read_text("utf-8"))
project, tools = whole["project"], whole["tool"]
light = set(tools["vgbench"]["core-dependencies"])
points = {"console_scripts": project["scripts"], **project["entry-points"]}

setup(
    name="vgbench-core",
    version=get_version(str(HERE / UP), **tools["setuptools_scm"]),
    description=f"{project['description']}: reading data, scoring and comparing, without PyTorch",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    python_requires=project["requires-python"],
    license_expression=project["license"],
    install_requires=[need for need in project["dependencies"] if re.split(r"[<>=!~;\[ ]", need)[0] in light],
    packages=tools["setuptools"]["packages"],
    package_dir={name: f"{UP}/{folder}" for name, folder in tools["setuptools"]["package-dir"].items()},
    package_data={"" if name == "*" else name: data for name, data in tools["setuptools"]["package-data"].items()},
    include_package_data=False,
    entry_points={group: [f"{name} = {value}" for name, value in names.items()] for group, names in points.items()},
)
