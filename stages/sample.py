"""Judge what the model generates -> reports/samples.csv, .json and .npz."""

import torch

from robustvae import params
from robustvae.data import prepared
from robustvae.models import folder as model_folder
from robustvae.params import RunSettings
from robustvae.robustness import batches, measure, samples
from robustvae.runtime import device
from robustvae.runtime.progress import say
from stages import MODELS, PREPARED, REPORTS, run


def main() -> None:
    """Samples of the prior, and of a mixture fitted to codes, against test images."""
    settings = params.load().evaluate.samples
    data, model = prepared.load(PREPARED), model_folder.load(MODELS)
    running = RunSettings.model_validate(model.config["run"])
    where = device.setup(**running.model_dump())
    model.to(where, memory_format=torch.channels_last)
    chosen = measure.of_training(len(data.train), running.seed)
    images = {"train": data.train[chosen], "test": data.test}
    seen = {s: measure.binarized(x, s, data.info, running.seed) for s, x in images.items()}
    train, test = (batches.on(where, seen[s], slice(None)) for s in ("train", "test"))

    @torch.inference_mode()
    def back(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([model.reconstruct(part) for part in x.split(batches.BUSY)])

    found = samples.find(
        test, train, data.labels["train"][chosen],
        samples.ours(model, seen["train"], settings, batches.BUSY, running.seed),
        back, settings.images, running.seed, data.info["name"], data.labels["test"],
    )  # fmt: skip
    found.save(REPORTS / "samples")
    for line in found.lines:
        say(line)


if __name__ == "__main__":
    run(main)
