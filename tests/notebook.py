"""What a notebook does with the library, every public name of it; checked by mypy --strict."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import robustvae as rv


class Net(nn.Module):
    """A colleague's autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(784, 8), nn.Linear(8, 784)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions."""
        found: Tensor = self.decoder(self.encoder(x.flatten(1))).sigmoid().view_as(x)
        return found


def main(out: Path) -> None:
    """The ten lines, then models of others."""
    x, y = rv.datasets.load("mnist-5k", limit=300)
    x_test, y_test = rv.datasets.load("mnist-5k", "test", limit=50)
    settings = {"loss.df": 3.0, "train.epochs": 2, "model.architecture.name": "mlp"}
    rows: list[object] = []
    vae: rv.VAE = rv.fit(x, settings, labels=y, seed=0, on_epoch=rows.append)
    assert vae.history is not None
    assert len(vae.history) == len(rows) == 2
    result: rv.Result = rv.evaluate(vae, x_test, labels=y_test, severities=[1, 3, 5])
    print(result.table.shape, result.headline["e_den"], result.warnings, result.reasons)
    result.plot("robustness").savefig(out / "robustness.png")
    result.report(out / "report.html")
    vae.save(out / "my-model")
    rv.load(out / "my-model").reconstruct(x_test)
    noisy: np.ndarray = rv.corrupt(x_test, "fog", severity=3, seed=0)
    tensor: Tensor = rv.corrupt(torch.from_numpy(x_test), "fog")
    assert noisy.shape == tuple(tensor.shape)
    rv.transforms.Corrupt("fog", severity=3)(tensor)
    pair = rv.adapters.Pair(nn.Flatten(), nn.Unflatten(1, (1, 28, 28)))
    both: rv.Comparison = rv.compare({"theirs": Net(), "pair": pair}, x_test, train=x)
    both.report(out / "both.html")
    pushed: rv.Attacked = rv.attack(vae, x_test[:10], radii=[1.0], steps=3)
    print(pushed.table, pushed.margin["median"])
    pushed.plot("strips")
    found: rv.Screening = rv.screen(x, epochs=1)
    print(found.order[:3])

    @rv.register.corruption("haze", group="photometric", severities=(20, 40, 60, 80, 100))
    def haze(images: Tensor, amount: int, rng: torch.Generator) -> Tensor:
        """Nothing is darker than so much."""
        return images.clamp(min=amount)

    rv.testing.check_corruption("haze")
    assert haze(tensor, 9, torch.Generator()).min() == 9
    try:
        rv.fit(x, {"loss.dff": 3.0})
    except rv.UserError as error:
        print(error)


if __name__ == "__main__":
    main(Path())
