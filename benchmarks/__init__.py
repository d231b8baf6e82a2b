"""What is fast and what is not, by measurement: `python -m benchmarks`."""

import os
import sys
from pathlib import Path

# As in stages: before torch is imported, and this copy's code.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
