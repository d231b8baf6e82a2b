"""The wheel: what it names, what it holds, and that the library works from it alone."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

import robustvae

pytestmark = pytest.mark.slow
APART = {"site", "tensorboard", "mlflow"}  # extras that `make` does not install for everyone


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, of a copy of the tree."""
    folder, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in kept.stdout.splitlines():
        if name.startswith(("src/", "pyproject", "README", "LICENSE")) and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def test_both_distributions_hold_the_package_and_what_it_reads(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    with tarfile.open(next(built.glob("*.tar.gz"))) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    package = ROOT / "src" / "robustvae"
    needed = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.suffix in (".py", ".html", ".yaml", ".typed")
    }
    assert needed <= names
    assert {f"src/{name}" for name in needed} <= inside
    assert not [name for name in names if name.startswith(("tests", "stages"))]


def test_the_metadata_names_what_is_needed_and_this_environment_has_it(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        place = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        facts = email.message_from_bytes(wheel.read(place))
    assert facts["Version"] == robustvae.__version__
    extras = {"pipeline", "export", "sweep", "dev"}
    assert set(facts.get_all("Provides-Extra", [])) == extras | APART
    needed = [Requirement(text) for text in facts.get_all("Requires-Dist", [])]
    names = {need.name for need in needed if need.marker is None}
    assert {"torch", "torchvision", "pydantic", "pandas", "matplotlib", "mlxtend"} <= names
    for need in needed:
        assert need.specifier, need
        try:
            assert need.specifier.contains(version(need.name)), need
        except PackageNotFoundError:
            marker = need.marker
            if marker is None or not any(marker.evaluate({"extra": extra}) for extra in APART):
                pytest.fail(f"{need} is not in requirements.txt")


def test_the_wheel_is_small_and_holds_no_weights(built: Path) -> None:
    wheel = next(built.glob("*.whl"))
    assert wheel.stat().st_size < 3e6
    assert not [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".safetensors")]


def test_the_version_is_one(built: Path) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == robustvae.__version__
    assert f"## [{robustvae.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_library_works_from_the_wheel_alone(built: Path, tmp_path: Path) -> None:
    place, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(place), *map(str, built.glob("*.whl"))], check=True)
    code = (
        f"import robustvae, runpy; assert robustvae.__file__.startswith({str(place)!r}); "
        f"runpy.run_path({str(ROOT / 'tests' / 'notebook.py')!r}, run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": str(place)}
    subprocess.run([sys.executable, "-c", code], cwd=empty, env=environment, check=True)
    written = {path.name for path in empty.iterdir()}
    assert written == {"robustness.png", "report.html", "my-model", "both.html"}


def test_the_script_that_mypy_checks_uses_every_public_name() -> None:
    script = (ROOT / "tests" / "notebook.py").read_text()
    uses = {name for name in robustvae.__all__ if f"rv.{name}" in script}
    assert uses == set(robustvae.__all__) - {"__version__"}
