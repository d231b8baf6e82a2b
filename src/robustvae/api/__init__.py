"""A trained model, ready to use: `vae = robustvae.load("models"); vae.reconstruct(images)`.

Images go in as arrays or tensors (uint8, or float in [0, 1]; channels first or last), as paths of
pictures, folders and .npy files, or as "train", "val", "test" of the prepared data. They come out
as float32 [..., C, H, W] in [0, 1].
"""

from robustvae.api.images import Images
from robustvae.api.vae import VAE, load

__all__ = ["VAE", "Images", "load"]
