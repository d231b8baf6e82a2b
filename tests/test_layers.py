"""The architecture: who may import whom, and where each outside package is at home."""

import ast
import subprocess
import sys
import time

import pytest
from imports import PACKAGE, ROOT, direct, files

LAYERS = [
    {
        "errors",
        "params",
        "architectures",
        "seeding",
        "progress",
        "vision",
        "device",
        "threads",
        "openmp",
        "distributed",
        "files",
        "prepared",
        "downloads",
        "binarize",
        "distributions",
        "layers",
        "corruptions",
        "metrics",
        "quantiles",
    },
    {"datasets", "divergences", "likelihoods", "nets"},
    {"latents"},
    {"model"},
    {
        "checkpoint",
        "training",
        "trial",
        "resume",
        "bounds",
        "robustness",
        "figures",
        "report",
        "compare",
        "sweep",
    },
    {"api", "cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
HOMES = {
    "yaml": {"params"},
    "pydantic": {"params", "checkpoint"},  # checkpoint: to check a folder's settings
    "torchvision": {"vision"},
    "torchmetrics": {"metrics"},
    "matplotlib": {"figures"},
    "jinja2": {"report", "compare", "sweep"},
    "dvc": {"compare"},
    "dask": {"sweep"},
    "distributed": {"sweep"},
    "onnx": {"api"},
    "onnxruntime": {"api"},
    "sklearn": {"datasets", "metrics"},
}
MODULES = sorted(
    {
        p.stem if p.is_file() else p.name
        for p in PACKAGE.iterdir()
        if (p.suffix == ".py" or (p / "__init__.py").exists()) and not p.stem.startswith("__")
    }
)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_lower_layers(module: str) -> None:
    for file in files(module):
        for other in direct(file) - {module, "__version__"}:
            assert LEVEL[other] <= LEVEL[module], f"{module} imports {other}"


@pytest.mark.parametrize("module", MODULES)
def test_outside_packages_have_one_home(module: str) -> None:
    for file in files(module):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                assert module in HOMES.get(name.split(".")[0], {module}), f"{file} imports {name}"


def test_importing_the_package_is_light() -> None:
    code = "import sys, robustvae; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", check=True)
    assert time.perf_counter() - start < 2  # 0.05 s when nothing else runs


def test_torchvision_imports_in_a_fresh_interpreter() -> None:
    code = (
        "from robustvae import vision; vision.prepare(); vision.prepare()\n"
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
        "from robustvae import vision\n"
        "assert vision.prepare() is None\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", check=True)
