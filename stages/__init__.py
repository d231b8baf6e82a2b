"""The scripts of the pipeline, `python -m stages.NAME`, and what must precede importing torch."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# An experiment runs in a copy of the project and must run that copy's code, whatever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from robustvae.runtime import threads

threads.settle()

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
CONTAMINATED = Path("data/contaminated")
CORRUPTED = Path("data/corrupted")
MODELS = Path("models")
REPORTS = Path("reports")
CACHE = Path(os.environ.get("DVC_ROOT", ".")) / ".cache"  # partial downloads and checkpoints


def run(main: Callable[[], None]) -> None:
    """Run a stage; a user's mistake is one message and exit code 2, not a traceback."""
    from robustvae.errors import UserError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: a checkpoint stays
    try:
        main()
    except UserError as error:
        sys.exit(_say(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; `dvc repro` goes on from here", 130))


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
