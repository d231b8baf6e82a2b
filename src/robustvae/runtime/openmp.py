"""How OpenMP's idle threads wait for the next operation; to be settled before torch is imported."""

import os

# By default they spin for milliseconds: with other work on the cores two threads are then ten
# times slower than one. At 1000 spins a step takes 4 to 8 % more than at 3000 where the cores are
# free; where two trainings share them, as in a queue, 10 to 45 % less.
SPINS = "1000"


def settle() -> None:
    """Let them spin some microseconds, then sleep; what the user has set stands."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # of GNU's library, where it has precedence
