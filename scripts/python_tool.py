"""A tool that pip installs, in a virtual environment of its own in the cache."""

import os
import subprocess
import sys
import venv
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prodgy"


class CannotInstall(Exception):
    """Why a tool cannot be had, and what to do about it."""


def installed(name, version, requirements):
    """The folder of the tool's programs, installed when this version of it is not there yet."""
    folder = CACHE / name
    marker = folder / f"version-{version}"
    if not marker.exists():
        print(f"installing {name} {version} into {folder}", file=sys.stderr, flush=True)
        try:
            venv.create(folder, with_pip=True)
        except subprocess.CalledProcessError:
            raise CannotInstall("python3 cannot make a virtual environment: install the package python3-venv") from None
        pip = [folder / "bin" / "pip", "install", "--quiet", *requirements]
        if subprocess.run(pip).returncode != 0:
            raise CannotInstall(f"{name} cannot be installed: can pip reach its index?")
        marker.touch()
    return folder / "bin"
