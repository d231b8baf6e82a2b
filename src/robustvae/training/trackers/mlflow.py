"""MLflow: a run per training, on the server that MLFLOW_TRACKING_URI names, or in a folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustvae.training.schedule import Row


@contextmanager
def tracked(folder: Path, run: str, settings: dict[str, Any]) -> Iterator[Callable[[Row], None]]:
    """A metric per column of the history; a training that fails is a failed run."""
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more packages
        mlflow.set_tracking_uri(folder.resolve().as_uri())
    mlflow.set_experiment("robustvae")
    with mlflow.start_run(run_name=run):
        mlflow.log_params(settings)

        def see(row: Row) -> None:
            values = {n: float(v) for n, v in row.items() if n != "epoch" and v is not None}
            mlflow.log_metrics(values, step=int(row["epoch"] or 0))

        yield see
