"""How idle threads wait: set for every process of ours before torch, unless the user did."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from robustvae.runtime import threads

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ("PASSIVE", threads.SPINS)),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
    ],
    ids=["nothing", "policy", "spins"],
)
@pytest.mark.parametrize("package", ["stages", "benchmarks"])
def test_what_the_user_has_not_set_is_settled_before_torch(
    package: str, given: dict[str, str], wanted: tuple[str, str | None]
) -> None:
    code = f"import os, sys, {package}; print('torch' in sys.modules, *map(os.getenv, {NAMES}))"
    environment = {k: v for k, v in os.environ.items() if k not in NAMES} | given
    shown = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True
    )
    assert shown.split() == ["False", *map(str, wanted)]
