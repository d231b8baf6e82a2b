"""Nets, latents, divergences and likelihoods, joined; the model folder."""
