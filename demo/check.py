#!/usr/bin/env python3
"""Print the top-1 accuracy of each output of the demo network.

Needs numpy, Pillow and onnxruntime.  Without --cifar it runs the 1,000 pictures
of test_images.png; with it, all 10,000 test pictures of the unpacked npm
package that train.py explains:

    python3 demo/check.py
    python3 demo/check.py --cifar package
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import cifar

HERE = Path(__file__).resolve().parent
OUTPUTS = ("logits", "exit1", "exit2")


def load_sheet(folder):
    """(pictures, labels) of the committed sheet; prepare.py says its layout."""
    side = cifar.SIDE
    with Image.open(folder / "test_images.png") as image:
        sheet = np.array(image.convert("RGB"))
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    tiles = sheet.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
    labels = np.array((folder / "test_labels.txt").read_text().split(), np.int64)
    return tiles.reshape(-1, side, side, 3), labels


def run(path, pictures, threads=1):
    """{output: float32 [n, 10]} of an ONNX file on uint8 pictures."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    parts = [
        session.run(OUTPUTS, {"x": cifar.normalise(pictures[i : i + 250])})
        for i in range(0, len(pictures), 250)
    ]
    return {name: np.concatenate(part) for name, part in zip(OUTPUTS, zip(*parts))}


def print_accuracy(outputs, labels):
    for name, y in outputs.items():
        right = int((y.argmax(1) == labels).sum())
        share = right / len(labels)
        print(f"top-1 {name}: {right} of {len(labels)}, {share:.2%}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default=HERE / "network.onnx")
    parser.add_argument("--cifar", help="folder of the unpacked package")
    args = parser.parse_args()
    if args.cifar:
        pictures, labels = cifar.load(args.cifar, "test")
    else:
        pictures, labels = load_sheet(HERE)
    print_accuracy(run(args.network, pictures), labels)


if __name__ == "__main__":
    main()
