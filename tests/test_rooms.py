"""The rooms of the package are those of docs/architecture.md, and import no upper one."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from imports import FILES, PACKAGE, ROOT, direct, room

ENTRY = {"__init__", "__main__"}  # what stands above all rooms: the public names and the command
TABLE = re.findall(
    r"^\| `([a-z]+)/?` \|[^|]*\|[^|]*\| ([^|]*) \|$",
    (ROOT / "docs" / "architecture.md").read_text(),
    re.M,
)
MAY = {name: set(re.findall(r"`([a-z]+)`", allowed)) for name, allowed in TABLE}
# Outside packages, each at home in few places.
HOMES = {
    "yaml": {"params/yaml12.py"},
    "pydantic": {"params", "models/folder.py"},  # the folder: to check its settings
    "torchvision": {"runtime/torchvision_shim.py", "api/transforms.py"},
    "torchmetrics": {"robustness/metrics.py"},
    "matplotlib": {"reporting/figures", "reporting/sheet.py", "api/result.py", "api/attack.py"},
    "jinja2": {"reporting/page.py", "reporting/sheet.py", "reporting/screen.py"},
    "dvc": {"experiments/compare.py"},
    "dask": {"experiments/sweep.py"},
    "distributed": {"experiments/sweep.py"},
    "mlflow": {"training/trackers/mlflow.py"},
    "onnx": {"api/export.py"},
    "onnxruntime": {"api/export.py"},
    "sklearn": {
        "data/sources/digits.py", "robustness/metrics.py", "robustness/outliers.py",
        "robustness/samples.py",
    },
}  # fmt: skip
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]


def forbidden(file: Path, imported: Path) -> bool:
    """Does the table forbid this import?"""
    above, below = room(file), room(imported)
    return above not in ENTRY and below != above and below not in MAY[above]


def test_every_room_has_a_line_and_every_line_a_room() -> None:
    there = {room(path) for path in FILES} - ENTRY
    assert set(MAY) - {"stages"} == there
    assert len([p for p in PACKAGE.iterdir() if p.name not in ("__pycache__", "py.typed")]) <= 14


def test_the_table_has_no_circle_between_rooms() -> None:
    order = list(MAY)
    assert all(order.index(low) < order.index(name) for name, lows in MAY.items() for low in lows)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_imports_upwards(name: str) -> None:
    file = PACKAGE / name
    assert not [str(i.relative_to(PACKAGE)) for i in direct(file) if forbidden(file, i)]


def body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code, without signature and docstring."""
    said = ast.get_docstring(function) is not None and len(function.body) > 1
    end = function.end_lineno
    assert end is not None
    return end - function.body[said].lineno + 1


def test_files_and_functions_are_short() -> None:
    long = [str(path) for path in FILES if len(path.read_text().splitlines()) > 350]
    for path in [*FILES, *(ROOT / "stages").glob("*.py")]:
        nodes = ast.walk(ast.parse(path.read_text()))
        functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        long += [f"{path.stem}.{one.name}: {body(one)}" for one in functions if body(one) >= 40]
    assert not long


@pytest.mark.parametrize("stage", sorted((ROOT / "stages").glob("*.py")), ids=lambda p: p.stem)
def test_no_stage_imports_what_is_above_it(stage: Path) -> None:
    assert {room(path) for path in direct(stage)} <= MAY["stages"]


def test_a_forbidden_import_is_found() -> None:
    assert forbidden(PACKAGE / "runtime/device.py", PACKAGE / "params/__init__.py")
    assert forbidden(PACKAGE / "models/nets.py", PACKAGE / "data/prepared.py")
    assert not forbidden(PACKAGE / "models/nets.py", PACKAGE / "params/geometry.py")


def test_no_files_import_each_other_in_a_circle() -> None:
    done: set[Path] = set()

    def visit(file: Path, way: tuple[Path, ...]) -> None:
        assert file not in way, [p.relative_to(PACKAGE).as_posix() for p in (*way, file)]
        if file not in done:
            for imported in direct(file):
                visit(imported, (*way, file))
            done.add(file)

    for file in FILES:
        visit(file, ())


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("__init__.py")])
def test_an_init_is_short(name: str) -> None:
    assert len((PACKAGE / name).read_text().splitlines()) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_outside_packages_have_one_home(name: str) -> None:
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found = [node.module or ""]
        for package in found:
            homes = HOMES.get(package.partition(".")[0], {name})
            assert any(name == h or name.startswith(f"{h}/") for h in homes), package


def test_importing_the_package_is_light() -> None:
    code = "import sys, robustvae; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", check=True)
    assert time.perf_counter() - start < 2  # 0.05 s when nothing else runs


@pytest.mark.parametrize("stage", ["download", "preprocess", "contaminate", "report"])
def test_stages_that_compute_nothing_start_without_torch(stage: str) -> None:
    code = f"import sys, stages.{stage}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_torchvision_imports_in_a_fresh_interpreter() -> None:
    code = (
        "from robustvae.runtime import torchvision_shim as vision\n"
        "vision.prepare(); vision.prepare()\n"
        "import torch, torchvision, torchmetrics\n"
        "from torchvision.utils import make_grid\n"
        "from torchmetrics.functional.image import structural_similarity_index_measure as ssim\n"
        "x = torch.rand(2, 1, 16, 16)\n"
        "assert make_grid(x).shape[0] == 3 and abs(float(ssim(x, x, data_range=1.0)) - 1) < 1e-6\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_vision_does_nothing_where_the_library_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import torch\n"
        "torch.ops.load_library = lambda path: None\n"
        "from robustvae.runtime import torchvision_shim as vision\n"
        "assert vision.prepare() is None\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", check=True)
