"""What changes from epoch to epoch, as functions of the history, which a resume restores."""

import math

from robustvae.params import LossSettings, TrainSettings

# Of the history; None: infinite. train_total is what was minimised, val_total recon + beta *
# divergence, or the robust objective once that acts: the same, except under beta_warmup and
# capacity, which differ by the epoch.
Row = dict[str, float | int | None]

# Norms measured on digits and MNIST, in nats per image: with bernoulli 20 to 500 and 99 % below
# 1,700, so that outliers alone are clipped; with a small or learned variance up to 9,000, where
# most steps are, but Adam makes up for a common factor: 100, 1,000 and none ended alike.
GAMMA_CLIP = 1e3


def learning_rate(settings: TrainSettings, epoch: int, rows: list[Row]) -> float:
    """Rate of an epoch (from 0), given the finished ones.

    step: a tenth after each milestone, in finished epochs. plateau: a tenth whenever `patience`
    epochs in a row brought no new minimum. cosine: `warmup` epochs lead up to lr in equal steps,
    then it falls from lr and would reach 0 one epoch after the last.
    """
    schedule = settings.scheduler
    if schedule.name == "step":
        return settings.lr * 0.1 ** sum(epoch >= m for m in schedule.milestones)
    if schedule.name == "plateau":
        return settings.lr * 0.1 ** _plateaus(rows, schedule.monitor, schedule.patience)
    if schedule.name == "cosine":
        if epoch < schedule.warmup:
            return settings.lr * (epoch + 1) / (schedule.warmup + 1)
        done = (epoch - schedule.warmup) / (settings.epochs - schedule.warmup)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    return settings.lr


def best_epoch(rows: list[Row]) -> int:
    """Position in `rows` of the lowest validation total, the first of equals."""
    return min(range(len(rows)), key=lambda i: _number(rows[i]["val_total"]))


def stops_early(rows: list[Row], patience: int | None) -> bool:
    """Have `patience` epochs passed since the best one?"""
    return patience is not None and len(rows) > 0 and len(rows) - 1 - best_epoch(rows) >= patience


def clip_norm(settings: TrainSettings, loss: LossSettings) -> float | None:
    """Largest gradient norm; auto: on for gamma, whose latents have heavy tails."""
    if settings.grad_clip == "auto":
        return GAMMA_CLIP if loss.kind == "gamma" else None
    return settings.grad_clip


def _plateaus(rows: list[Row], monitor: str, patience: int) -> int:
    best, waited, found = math.inf, 0, 0
    for row in rows:
        value = _number(row[monitor])
        waited = 0 if value < best else waited + 1
        best = min(best, value)
        if waited == patience:
            waited, found = 0, found + 1
    return found


def _number(value: float | None) -> float:
    return math.inf if value is None else value
