#!/usr/bin/env python3
"""Writes gradient samples of a network's tail, for `narrows fit --gradients`.

    pip install torch onnx onnx2torch pillow numpy
    python3 tools/gradients.py --model net.onnx --cut NAME --images photos --labels labels.csv \\
        --rows 1-400 --normalize imagenet -k 4 -o gradients.npy

The file holds k gradient samples a picture, [n * k, C, H, W] float32, in the order of the labels. Each
is g = J' A' r, where J is the Jacobian of the logits at the cut, A A' = diag(p) - p p' with the
network's answer p, and r is random +-1; so the mean of g g' is the Gauss-Newton matrix of the KL
divergence, which needs no labels: a small error e at the cut moves the answer by about e' E[g g'] e / 2.

Images, rows and normalisation mean what they mean to `narrows fit`, and must be the same there.
"""

import argparse
import csv
import os
import tempfile

import numpy as np
import onnx
import torch
from onnx2torch import convert
from PIL import Image

NORMALIZE = {  # name: (scale, mean, std), as in the command line
    "imagenet": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": (1 / 255, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "lite": (1.0, (127.0,) * 3, (128.0,) * 3),
    "unit": (1 / 255, (0.0,) * 3, (1.0,) * 3),
    "none": (1.0, (0.0,) * 3, (1.0,) * 3),
}


def files(labels, rows):
    """File names of the rows (1-based, inclusive) of a label file with a column `file`."""
    with open(labels, newline="") as handle:
        names = [row["file"] for row in csv.DictReader(handle)]
    first, last = (int(x) for x in rows.split("-")) if rows else (1, len(names))
    if not 1 <= first <= last <= len(names):
        raise SystemExit(f"error: rows {rows}: {labels} has rows 1 to {len(names)}")
    return names[first - 1 : last]


def picture(path, normalize, side):
    """One picture as [3, H, W] float32, normalised."""
    scale, mean, std = NORMALIZE[normalize]
    image = Image.open(path).convert("RGB")
    if side and image.size != side:
        raise SystemExit(f"error: {path} is {image.size[0]}x{image.size[1]}, the network takes {side[0]}x{side[1]}: resize it first")
    pixels = np.asarray(image, np.float32) * np.float32(scale)
    return ((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)


def halves(model, cut, output):
    """Head and tail of an ONNX file as torch modules."""
    graph = onnx.load(model).graph
    output = output or graph.output[0].name
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for name, start, end in (("head", graph.input[0].name, cut), ("tail", cut, output)):
            path = os.path.join(folder, name + ".onnx")
            onnx.utils.extract_model(model, path, [start], [end], check_model=False)
            parts.append(convert(path).eval().requires_grad_(False))
    dims = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    side = (dims[3], dims[2]) if len(dims) == 4 and dims[2] and dims[3] else None
    return parts[0], parts[1], side


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="ONNX file")
    parser.add_argument("--cut", required=True, help="tensor at which the network is cut")
    parser.add_argument("--output", help="output that is the answer (default: the first)")
    parser.add_argument("--images", required=True, help="folder of pictures")
    parser.add_argument("--labels", required=True, help="CSV with a column `file`")
    parser.add_argument("--rows", help="rows of it, as 1-400 (default: all)")
    parser.add_argument("--normalize", choices=sorted(NORMALIZE), required=True)
    parser.add_argument("-k", type=int, default=4, help="samples a picture (default 4)")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="out", required=True, help="where the .npy file goes")
    args = parser.parse_args()

    head, tail, side = halves(args.model, args.cut, args.output)
    names = files(args.labels, args.rows)
    random = torch.Generator().manual_seed(args.seed)
    out = None
    for start in range(0, len(names), args.batch):
        paths = [os.path.join(args.images, name) for name in names[start : start + args.batch]]
        x = torch.from_numpy(np.stack([picture(path, args.normalize, side) for path in paths]))
        with torch.no_grad():
            feature = head(x)
        feature.requires_grad_(True)
        logits = tail(feature)
        p = logits.detach().softmax(1)
        root = p.sqrt()
        if out is None:
            shape = (len(names), args.k) + tuple(feature.shape[1:])
            flat = (shape[0] * shape[1],) + shape[2:]
            out = np.lib.format.open_memmap(args.out, "w+", np.float32, flat).reshape(shape)
        for sample in range(args.k):
            r = torch.randint(0, 2, p.shape, generator=random).float() * 2 - 1
            direction = root * r - p * (root * r).sum(1, keepdim=True)
            (gradient,) = torch.autograd.grad(logits, feature, direction, retain_graph=True)
            out[start : start + len(paths), sample] = gradient.numpy()
        print(f"\r{start + len(paths)} of {len(names)}", end="", flush=True)
    print(f"\n{args.out}: {len(names)} x {args.k} gradient samples")


if __name__ == "__main__":
    main()
