"""A wheel and an sdist are built, and the wheel works in a folder where nothing of this repository is."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = (
    "import sys; from setuptools import build_meta;"
    "print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))"
)


def build(kind: str, out: Path) -> Path:
    """Build "wheel" or "sdist" from a copy of what git knows, so that no build folder is left here."""
    source = out / "source"
    files = subprocess.run(
        ["git", "ls-files", "stlite", "sample_data/tiny", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in files:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Unpack a fresh wheel into an empty folder, as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build("wheel", folder)) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run(site: Path, *arguments: str) -> str:
    """Run Python in a folder of its own with the unpacked package in front, and nothing of the repository."""
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=site.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_page_and_the_tiny_model(installed):
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stlite").rglob("*.py")}
    ours |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "stlite").rglob("*.[jc]s*")}
    there = {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    assert ours <= there
    assert {"stlite/py.typed", "stlite/tiny/model.safetensors"} <= there


def test_the_installed_package_imports_without_torch(installed):
    code = "import sys, stlite; stlite.read_rows; print(stlite.__file__, 'torch' in sys.modules)"
    place, torch = run(installed, "-c", code).split()
    assert Path(place).is_relative_to(installed) and torch == "False"


def test_the_installed_package_finds_the_tiny_model(installed):
    code = "from stlite.train.presets import settings; print(settings('tiny')['source'])"
    source = Path(run(installed, "-c", code).strip())
    assert source.is_relative_to(installed) and (source / "config.json").exists()


def test_the_installed_command_answers(installed):
    assert "8 GB" in run(installed, "-m", "stlite", "plan")


def test_the_sdist_holds_what_the_wheel_is_made_of(tmp_path):
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "stlite/__main__.py", "sample_data/tiny/model.safetensors"} <= names
