"""Several processes at one stage: the rows that each computes, sums over all, and their start.

Process 0 alone writes results. What is drawn for a batch is drawn whole by every process, and sums
over a batch go over all of them, so that their number changes results by rounding only.
"""

import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from robustvae.errors import UserError

T = TypeVar("T")
LOST = 3  # exit status of a process that others have left
NPROC = "ROBUSTVAE_NPROC"  # environment: processes on this machine
NODES = "PET_NNODES"  # environment: machines; torchrun reads it, as PET_NODE_RANK, PET_MASTER_ADDR


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def first(function: Callable[[], T]) -> T:
    """What `function` returns in process 0, in all of them."""
    box = [function() if rank() == 0 else None]
    if size() > 1:
        distributed.broadcast_object_list(box)
    return cast(T, box[0])


def mine(items: Sequence[T]) -> list[T]:
    """What falls to this process where all take turns."""
    return list(items[rank() :: size()])


def everyones(results: list[T]) -> list[T]:
    """The results of all processes, in all of them, in the order of the items they took."""
    if size() == 1:
        return results
    boxes: list[list[T]] = [[] for _ in range(size())]
    distributed.all_gather_object(boxes, results)
    return [box[turn] for turn in range(len(boxes[0])) for box in boxes if turn < len(box)]


# --- rows


@dataclass(frozen=True)
class Share:
    """This process's rows of `total`: equal parts in the order of ranks, or one more or less."""

    total: int

    @property
    def rows(self) -> slice:
        """Which they are; perhaps none."""
        return slice(*(self.total * r // size() for r in (rank(), rank() + 1)))

    def padded(self, x: Tensor) -> Tensor:
        """The rows `x` at their places among zeros, [total, ...]."""
        rest = (0, 0) * (x.dim() - 1)
        return F.pad(x, (*rest, self.rows.start, self.total - self.rows.stop))

    def whole(self, x: Tensor) -> Tensor:
        """The rows of all processes, [total, ...], of which `x` are this one's."""
        return _total(self.padded(x)) if size() > 1 else x


_share: ContextVar[Share | None] = ContextVar("share", default=None)


def share() -> Share | None:
    """This process's share of the batch under way; None: it has all rows to itself."""
    return _share.get()


@contextlib.contextmanager
def shared(total: int) -> Iterator[Share | None]:
    """Inside, the processes share a batch; one with too few rows is computed whole by each."""
    token = _share.set(Share(total) if total >= size() > 1 else None)
    try:
        yield share()
    finally:
        _share.reset(token)


def summed(x: Tensor) -> Tensor:
    """Sum of `x` over the processes that share the batch under way; `x` where none do."""
    return x if share() is None else _total(x)


def _total(x: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(x))  # type: ignore[no-untyped-call]


class _Sum(torch.autograd.Function):
    """Sum over the processes. What is differentiated is the sum of the losses of all of them."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.forward(_ctx, grad)


# --- processes


def refuse(device: torch.device) -> None:
    """UserError where this machine's processes cannot compute on `device` together."""
    if size() == 1 or device.type == "cpu":
        return
    local, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device.type == "mps":
        raise UserError(f"run.device: mps is for one process, {NPROC} asks for more; use cpu")
    if local > there:
        raise UserError(
            f"{NPROC}: {local} processes need a GPU each, here are {there}; lower it, or use "
            "run.device: cpu"
        )


def spread(main: Callable[[], None]) -> None:
    """Run a stage's `main` here, or in all the processes that the environment asks for."""
    if distributed.is_torchelastic_launched():
        _work(main)
    elif (count := _asked()) > 1 or os.environ.get(NODES, "1") != "1":
        _launch(count)
    else:
        main()


def _asked() -> int:
    text = os.environ.get(NPROC, "1")
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(f"{NPROC}: must be a number of processes, 1 or more, got {text!r}")
    return int(text)


def _work(main: Callable[[], None]) -> None:
    """Take part; what goes wrong is left to the launcher, which says it once for all."""
    for number in (signal.SIGINT, signal.SIGTERM):  # ends it also while it waits for another one
        signal.signal(number, signal.SIG_DFL)
    with contextlib.ExitStack() as stack:
        if int(os.environ["RANK"]) > 0:
            null = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(null))
            stack.enter_context(contextlib.redirect_stderr(null))
        try:
            _join()
            main()
        except Exception as error:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
            sys.exit(2 if isinstance(error, UserError) else LOST if _lost(error) else 1)
        distributed.destroy_process_group()


def _lost(error: Exception) -> bool:
    """Has another process gone while this one waited for it?"""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _join() -> None:
    backend = "gloo"
    if torch.cuda.is_available() and distributed.is_nccl_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend)


def _launch(count: int) -> None:
    """torchrun with `count` processes of this very stage; their first error becomes this one's."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable()  # a page of torchrun's for what is said below in a line
    stage = sys.modules["__main__"].__spec__
    assert stage is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # end the wait for other machines
        signal.signal(number, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--nproc-per-node={count}", f"--log-dir={folder}"]
        try:
            run.main([*options, "--module", stage.name, *sys.argv[1:]])
        except SignalException:
            raise KeyboardInterrupt from None
        except (distributed.DistError, ValueError) as error:
            given = " ".join(f"{k}={v}" for k, v in os.environ.items() if k.startswith("PET_"))
            reason = str(error).partition("\n")[0]
            raise UserError(f"{given}: the machines did not find each other ({reason})") from None
        except ChildFailedError as error:
            _blame(error.failures)


def _blame(failures: Mapping[int, Any]) -> None:
    """End with the error of the process that failed first; others are lost or ended after it."""

    def order(number: int) -> tuple[int, float]:
        code, file = failures[number].exitcode, Path(failures[number].error_file)
        when = file.stat().st_mtime if file.exists() else 0.0
        return {LOST: 1, -signal.SIGTERM: 2}.get(code, 0), when

    number = min(failures, key=order)
    failure = failures[number]
    if failure.exitcode == LOST:
        raise UserError(f"process {number} lost another one, whose machine says why")
    if failure.exitcode == 2:
        raise UserError(failure.message["message"].removeprefix("UserError: "))
    if isinstance(failure.message, dict):
        sys.exit(f"process {number}: {failure.message['extraInfo']['py_callstack']}")
    how = failure.signal_name() if failure.exitcode < 0 else f"exit status {failure.exitcode}"
    raise UserError(f"process {number} died ({how}); `dvc repro` goes on from the last checkpoint")
