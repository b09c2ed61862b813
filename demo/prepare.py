#!/usr/bin/env python3
"""Write the demo's test pictures, and folders of pictures to fit and test on.

Needs numpy and Pillow.  Downloads nothing: `--cifar` is the unpacked npm
package that train.py explains.  Each option writes one thing:

    python3 demo/prepare.py --cifar package --sheet demo
    python3 demo/prepare.py --cifar package --export-fit fit_images --count 2000
    python3 demo/prepare.py --cifar package --export-test test_images
    python3 demo/prepare.py --cifar package --export-validation validation_images

--sheet DIR writes the committed pair: `test_images.png`, 1,000 test pictures as
one lossless RGB sheet of 40 x 25 tiles, and `test_labels.txt`, one label a
line.  Tiles are 32 x 32 pixels without a border, in row-major order: picture i
has its top left corner at x = 32 * (i % 40), y = 32 * (i / 40, rounded down).
The pictures are the first 100 of each class, in the order of the test set.

--export-fit DIR writes training pictures, the first of each class, as single
PNG files with `labels.csv` (`file,label`), in the order of the training set;
--export-test DIR does so with all 10,000 test pictures, and
--export-validation DIR with the 400 of each class that follow those of the
sheet: pictures that neither trained the network nor are on the sheet, which is
what exits are to be fitted on.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import cifar

COLUMNS, ROWS = 40, 25


def first_of_each_class(labels, each):
    """Sorted indices of the first `each` pictures of every class."""
    firsts = []
    for label in range(len(cifar.CLASSES)):
        found = np.flatnonzero(labels == label)[:each]
        if len(found) < each:
            raise ValueError(f"class {label} has only {len(found)} pictures")
        firsts.append(found)
    return np.sort(np.concatenate(firsts))


def write_sheet(folder, pictures, labels):
    chosen = first_of_each_class(labels, ROWS * COLUMNS // len(cifar.CLASSES))
    side = cifar.SIDE
    tiles = pictures[chosen].reshape(ROWS, COLUMNS, side, side, 3)
    sheet = tiles.transpose(0, 2, 1, 3, 4).reshape(ROWS * side, COLUMNS * side, 3)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(folder / "test_images.png", optimize=True)
    (folder / "test_labels.txt").write_text(
        "".join(f"{label}\n" for label in labels[chosen])
    )


def write_folder(folder, prefix, pictures, labels, chosen):
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,label\n"]
    for index in chosen:
        name = f"{prefix}_{index:05}.png"
        Image.fromarray(pictures[index]).save(folder / name, optimize=True)
        lines.append(f"{name},{labels[index]}\n")
    (folder / "labels.csv").write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", required=True, help="folder of the unpacked package")
    parser.add_argument("--sheet", type=Path, metavar="DIR")
    parser.add_argument("--export-fit", type=Path, metavar="DIR")
    parser.add_argument("--count", type=int, default=2000, help="for --export-fit")
    parser.add_argument("--export-test", type=Path, metavar="DIR")
    parser.add_argument("--export-validation", type=Path, metavar="DIR")
    args = parser.parse_args()

    if args.count < 1 or args.count % len(cifar.CLASSES):
        parser.error(f"--count must be a multiple of {len(cifar.CLASSES)}")
    if not (args.sheet or args.export_fit or args.export_test or args.export_validation):
        parser.error("nothing to do: give --sheet or one of --export-...")
    if args.sheet or args.export_test or args.export_validation:
        pictures, labels = cifar.load(args.cifar, "test")
        if args.sheet:
            write_sheet(args.sheet, pictures, labels)
        if args.export_test:
            everything = range(len(labels))
            write_folder(args.export_test, "test", pictures, labels, everything)
        if args.export_validation:
            on_sheet = first_of_each_class(labels, ROWS * COLUMNS // len(cifar.CLASSES))
            more = first_of_each_class(labels, 500)
            chosen = np.setdiff1d(more, on_sheet)
            write_folder(args.export_validation, "test", pictures, labels, chosen)
    if args.export_fit:
        pictures, labels = cifar.load(args.cifar, "train")
        chosen = first_of_each_class(labels, args.count // len(cifar.CLASSES))
        write_folder(args.export_fit, "train", pictures, labels, chosen)


if __name__ == "__main__":
    main()
