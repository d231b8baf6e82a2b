"""The table of figures: where each stands in the report, how it is drawn, how it is read."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from matplotlib.figure import Figure

from robustvae.reporting.figures import gallery as draws
from robustvae.reporting.figures import threats
from robustvae.reporting.figures.run import Run


class Entry(NamedTuple):
    """A figure of the report; the caption says how to read it, charts are written as vectors."""

    section: str
    kind: Literal["chart", "picture"]
    title: str
    draw: Callable[[Run, str], Figure | None]
    caption: str


GALLERY: dict[str, Entry] = {
    "robustness": Entry("Robustness", "chart", "What comes back of the clean image",
        partial(draws.bars, ["e_den", "skill"]),
        "Left: squared error per pixel between the reconstruction of the corrupted image and the "
        "clean one; shorter is better. A bar that ends left of the upright mark beats doing "
        "nothing, left of the cross it beats a constant. Right: skill, 1 for a perfect repair, 0 "
        "for the better of both; orange is worse, and values below -1 are written on the bar."),
    "structure": Entry("Robustness", "chart", "Structure, detection, usefulness",
        partial(draws.bars, ["ssim_den", "auroc", "probe"]),
        "SSIM of the reconstruction to the clean image (1: identical). AUROC of the negative ELBO "
        "as a detector of the corruption (dotted: chance). Accuracy of a linear probe that learnt "
        "the classes from clean posterior means. Marks are the baselines."),
    "severity": Entry("Robustness", "chart", "Error as the corruption grows", draws.severities,
        "Severity 0 is the clean image; a flat line is a robust model. Spatter is not monotone in "
        "MNIST-C itself: its severity 3 is stronger than 4."),
    "heatmap": Entry("Robustness", "chart", "Skill by corruption and severity", draws.heat_map,
        "Purple: better than doing nothing. Orange: worse. Colours end at -1 and 1."),
    "corrupted": Entry("Robustness", "picture", "What the model sees and what comes back",
        draws.corrupted,
        "Rows: the clean image, the corrupted one that the model is given, its deterministic "
        "reconstruction. A robust model's third row looks like the first."),
    "worst": Entry("Robustness", "picture", "Where it fails most", draws.worst,
        "The test images with the largest error of each corruption, the worst at the left."),
    "roc": Entry("Robustness", "chart", "Does the ELBO notice?", draws.roc,
        "Each curve sorts clean and corrupted images by their score. Along the upper left "
        "edge: told apart. Along the diagonal: chance. Below: corrupted images look likelier."),
    "corruptions": Entry("Robustness", "picture", "The corruptions", draws.contact_sheet,
        "Test images as the model is given them; the number is the severity."),
    "reconstructions": Entry("Reconstruction", "picture", "Clean images and their reconstructions",
        draws.reconstructions,
        "Top: test images. Middle: decoder mean at the posterior mean. Bottom: one draw from the "
        "model, every pixel from the likelihood; its grain is the noise that the model expects."),
    "interpolations": Entry("Reconstruction", "picture", "Between two images", draws.interpolations,
        "Outer columns: two test images. Between them, what the decoder makes of the straight "
        "line from one code to the other. Plausible steps: the space between codes is used."),
    "qq": Entry("Latent space", "chart", "Does the aggregate posterior follow the prior?",
        draws.qq_grid,
        "One panel per latent, largest Kolmogorov-Smirnov distance D first. Points on the line: "
        "codes of test images are distributed as new latents are drawn. Blue: where all points "
        "of all latents stay together in 95 of 100 samples of that law (order statistics at equal "
        "local levels); D is orange where one leaves it. An inactive latent agrees trivially. "
        "For heavy tails both axes shrink outwards."),
    "qq-pooled": Entry("Latent space", "chart", "All latent dimensions together", draws.qq_pooled,
        "The same for all dimensions at once. Values of one image depend on each other, so the "
        "band is somewhat too narrow; read the shape and the tails."),
    "kl": Entry("Latent space", "chart", "Where the information sits", draws.kl,
        "KL divergence of each latent's posterior from its prior. Inactive latents, whose mean "
        "hardly varies over images, carry nothing; all of them inactive is a collapsed model."),
    "latents": Entry("Latent space", "chart", "Where images land in latent space", draws.scatter,
        "Posterior means in the two latents that vary most, coloured by class, the same images in "
        "every panel. What moves or shrinks the cloud changes what is reconstructed."),
    "codes": Entry("Latent space", "chart", "Use of the codebook", draws.codes,
        "Share of positions that choose each code; the nearer to the dashed line the better."),
    "samples": Entry("Generation", "picture", "Samples from the prior", draws.samples,
        "Images of latents drawn from the prior. Shapes that resemble no training image come from "
        "places that no training image reached."),
    "plane": Entry("Generation", "picture", "The latent plane", draws.plane,
        "The decoder's mean at each point between the 2 % and 98 % quantiles of the prior."),
    "traversals": Entry("Generation", "picture", "One latent at a time", draws.traversals,
        "Each row moves one latent through the prior's quantiles and leaves the others at the code "
        "of one test image, most active first. What changes is what the latent means."),
    "outliers": Entry("Outliers", "chart", "Which score finds the outliers?", draws.outlier_curves,
        "Left: ROC, right: precision and recall; above for training images, which the model has "
        "seen, below for test images. Along the upper edges: told apart. The last three scores "
        "need no model of this kind."),
    "outlier-scores": Entry("Outliers", "chart", "How unlikely the training images are",
        draws.outlier_scores,
        "Where both colours lie apart, a threshold finds the outliers; a model that has learnt its "
        "outliers finds them as likely as the rest."),
    "outlier-weights": Entry("Outliers", "chart", "What the images counted for",
        draws.outlier_weights,
        "Mean weight that the robust objective gave to inliers and outliers, which it was not told "
        "apart. Before it acts, all have 1."),
    "thrown-out": Entry("Outliers", "picture", "What the model would throw out first",
        draws.thrown_out,
        "Training images by falling negative ELBO, row by row. Red frame: an outlier; blue frame: "
        "an image of the data set."),
    "attack-output": Entry("Attacks", "picture", "Images before and after the output attack",
        partial(threats.strips, "output"),
        "Rows: test images; the same changed so that their reconstructions move the most; the "
        "change, five times as strong; what comes back of the first row and of the second."),
    "attack-latent": Entry("Attacks", "picture", "Images before and after the latent attack",
        partial(threats.strips, "latent"),
        "The same for changes that move the posterior the most."),
    "damage-output": Entry("Attacks", "chart", "Damage of the output attack by radius",
        partial(threats.damage, "output"),
        "Squared distance per pixel between the reconstructions with and without the attack. Where "
        "the line crosses the dashed one, an attack does as much as the model's own error; the "
        "grey line is the worst of as many random directions."),
    "damage-latent": Entry("Attacks", "chart", "Damage of the latent attack by radius",
        partial(threats.damage, "latent"),
        "The same distance between reconstructions, for changes that move the posterior."),
    "foreign": Entry("Foreign images", "chart", "Which score notices images from elsewhere?",
        threats.roc,
        "One panel per foreign set. Along the upper left edge: told apart. Below the diagonal: the "
        "model finds foreign images likelier than its own."),
    "sorted-samples": Entry("Samples", "picture", "Samples by the certainty of a classifier",
        threats.samples,
        "Samples of the prior and of a mixture fitted to the codes, row by row from those that a "
        "classifier of the training images is surest of to those that it is least sure of."),
    "losses": Entry("Training", "chart", "Loss while training", draws.losses,
        "Validation rising while training falls is overfitting. Dotted: the epoch that was kept."),
    "strip": Entry("Training", "picture", "Reconstructions while training", draws.strip,
        "The same validation images, as the model gave them back at some epochs; the averaged "
        "weights, where there is an average. Last row: the first image once more with every pixel "
        "drawn from the likelihood, by the same random numbers at each epoch."),
}  # fmt: skip
