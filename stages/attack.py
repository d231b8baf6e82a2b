"""Attack the model -> reports/attack.csv, .json and .npz."""

import torch

from robustvae import params
from robustvae.data import prepared
from robustvae.models import folder as model_folder
from robustvae.params import RunSettings
from robustvae.robustness import attacked, batches, measure
from robustvae.runtime import device
from robustvae.runtime.progress import say
from stages import MODELS, PREPARED, REPORTS, run


def main() -> None:
    """How far an adversary pushes it, on the first test images."""
    settings = params.load().evaluate.attacks
    data, model = prepared.load(PREPARED), model_folder.load(MODELS)
    running = RunSettings.model_validate(model.config["run"])
    model.to(device.setup(**running.model_dump()), memory_format=torch.channels_last)
    images = measure.binarized(data.test, "test", data.info, running.seed)
    images = images[batches.spread(len(images), settings.images)]
    x, score = batches.pixels(model, images, slice(None)), attacked.likelihood(model, running.seed)
    found = attacked.find(model, x, settings, running.seed, score)
    found.save(REPORTS / "attack")
    for line in found.lines:
        say(line)


if __name__ == "__main__":
    run(main)
