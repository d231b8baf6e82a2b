"""Nothing that a user may do mixes tensors of two devices: see far.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch cannot be told of a device from Python", allow_module_level=True)

import far


@pytest.fixture(scope="module")
def wrong() -> dict[str, str]:
    """What went wrong with each case, on a device apart."""
    script = Path(far.__file__)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=script.parent,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # several add up in another order
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("case", far.CASES)
def test_another_device_gives_the_same(case: str, wrong: dict[str, str]) -> None:
    assert not wrong[case], wrong[case]
