"""How OpenMP's idle threads wait for the next operation; to be settled before torch is imported."""

import os

# By default they spin for milliseconds: with other work on the cores two threads are then ten
# times slower than one. Asleep at once they cost some 5 % where the cores are free; at 3000 spins
# nothing, but two trainings of two threads on two cores then take 20 to 30 % longer.
SPINS = "1000"


def settle() -> None:
    """Let them spin some microseconds, then sleep; what the user has set stands."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # of GNU's library, where it has precedence
