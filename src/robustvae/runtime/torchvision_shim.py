"""torchvision, importable beside any build of torch.

The torchvision wheel of the Python package index is built for CUDA. Beside a CPU-only torch its
compiled library does not load, the operators that it would have registered are missing, and the
import fails with "operator torchvision::nms does not exist". Declaring the missing schemas first
lets everything that is written in Python work (data sets, transforms, models, and torchmetrics,
which imports torchvision). Where the library loads, nothing is done.
"""

import functools
import importlib.util
import re
from pathlib import Path

import torch

SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache  # declaring a schema twice is an error, and the library object must stay alive
def prepare() -> torch.library.Library | None:
    """Make `import torchvision` work; to be called before it or torchmetrics is imported."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    if any(_loads(path) for path in sorted(root.glob("_C*"))):
        return None
    text = (root / "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in re.findall(r'register_fake\("torchvision::(\w+)"\)', text):
        library.define(SCHEMA.format(name))  # type: ignore[no-untyped-call]
    return library


def _loads(path: Path) -> bool:
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
