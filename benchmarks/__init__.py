"""What is fast and what is not, by measurement: `python -m benchmarks`."""

import sys
from pathlib import Path

# As in stages: this copy's code, and before torch is imported.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from robustvae.runtime import threads

threads.settle()
