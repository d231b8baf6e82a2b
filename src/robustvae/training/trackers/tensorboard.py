"""TensorBoard: `tensorboard --logdir FOLDER`, a run per training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustvae.training.schedule import Row


@contextmanager
def tracked(folder: Path, run: str, settings: dict[str, Any]) -> Iterator[Callable[[Row], None]]:
    """A scalar per column of the history; the settings are a text."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / run)) as writer:
        lines = [f"    {name}: {value}" for name, value in settings.items()]
        writer.add_text("settings", "\n".join(lines))

        def see(row: Row) -> None:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, row["epoch"])
            writer.flush()

        yield see
