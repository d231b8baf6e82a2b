"""What a notebook calls; `robustvae` hands the names out.

Images go in as arrays or tensors (uint8, or float in [0, 1]; channels first or last), as Datasets
and folders; of a trained model also as "train", "val", "test" of the prepared data.
"""
