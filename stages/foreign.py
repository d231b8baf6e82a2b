"""Show the model images from elsewhere -> reports/foreign.csv, .json and .npz."""

import numpy as np
import torch

from robustvae import params
from robustvae.data import binarize, elsewhere, prepared
from robustvae.data.downloads import Library
from robustvae.models import folder as model_folder
from robustvae.params import RunSettings
from robustvae.robustness import batches, foreign, measure
from robustvae.runtime import device, seeding
from robustvae.runtime.progress import say
from stages import CACHE, MODELS, PREPARED, REPORTS, run


def main() -> None:
    """Does any of the scores tell them from the model's own?"""
    settings = params.load()
    data, model = prepared.load(PREPARED), model_folder.load(MODELS)
    running = RunSettings.model_validate(model.config["run"])
    where = device.setup(**running.model_dump())
    model.to(where, memory_format=torch.channels_last)
    seed, size = running.seed, batches.size_on(where, settings.evaluate.batch_size)
    library = Library.of(CACHE / "downloads", settings.data.mirror)
    few = batches.spread(len(data.test), foreign.MOST)
    own = measure.binarized(data.test, "test", data.info, seed)[few]
    learnt = measure.binarized(data.train, "train", data.info, seed)
    grey = np.asarray(data.grey("test")[few])
    sets = {}
    for name in settings.evaluate.outliers:
        if name in foreign.FOREIGN:
            made = foreign.make(name, grey, seed)
        else:
            made = elsewhere.images(name, model.shape, foreign.MOST, library, seed)
        rng = seeding.generator(seed, "foreign", "binarize", name)
        mode, threshold = data.info["binarize"], data.info["threshold"]
        sets[name] = binarize.apply(torch.from_numpy(made), mode, threshold, rng).numpy()
    score = foreign.ours(model, size, seed, settings.evaluate.regret)
    train = learnt[measure.of_training(len(learnt), seed)[: foreign.MOST]]
    found = foreign.find(score, own, train, sets)
    found.save(REPORTS / "foreign")
    for line in found.lines:
        say(line)


if __name__ == "__main__":
    run(main)
