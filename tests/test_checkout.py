"""A command that is started in a checkout runs what is installed, in its child processes too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vgbench
from vgbench.core.processes import child_environment


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always looks into the current folder first")
def test_children_import_what_their_parent_does(tmp_path: Path) -> None:
    """In a folder that holds another one named vgbench, as the root of a checkout does."""
    (tmp_path / "vgbench").mkdir()
    (tmp_path / "vgbench" / "__init__.py").write_text("")
    command = [sys.executable, "-c", "import vgbench; print(vgbench.__file__)"]
    done = subprocess.run(command, cwd=tmp_path, env=child_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == vgbench.__file__
    without = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    hidden = subprocess.run(command, cwd=tmp_path, env=without, capture_output=True, text=True, check=True)
    assert hidden.stdout.strip() == str(tmp_path / "vgbench" / "__init__.py")
