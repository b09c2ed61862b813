#!/usr/bin/env python3
"""Turns float features into symbol files for the table against peers.

usage: make_symbols.py FOLDER OUT [--name feat_test.npy] [--bits 1 2 3]

Every FOLDER/CUT/NAME is an array [features, channels, rows, columns]. For each wanted rate one uniform step for all
channels is found by bisection, so that the symbols of the first 32 features have that order-0 entropy together, and
OUT/CUT_<bits>bit.npy gets round(x / step) as [features, rows, columns, channels], int8 where it fits, else int16.

OUT/path_mosaic.npy gets float features of 64x112x112 for the whole path: planes of 56x56 of the first cut that has
them, four photos to a plane (a stand-in: the statistics are real, the seams are not).
"""
import argparse
import pathlib

import numpy as np


def entropy(symbols):
    """Order-0 entropy in bits per symbol."""
    counts = np.unique(symbols, return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def quantise(features, step):
    """Rounds to the nearest multiple of the step."""
    return np.rint(features.astype(np.float32) / np.float32(step)).astype(np.int16)


def find_step(sample, bits):
    """The step at which the sample has this entropy."""
    low, high = 1e-4 * float(np.abs(sample).max()), float(np.abs(sample).max())
    for _ in range(25):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if entropy(quantise(sample, middle)) > bits else (low, middle)
    return high


def mosaic(features, count=8):
    """Planes of 112x112 from 2x2 planes of 56x56, 64 of them to a feature."""
    _, channels, rows, columns = features.shape
    groups = -(-64 // channels)
    count = min(count, len(features) // (4 * groups))
    used = np.asarray(features[: count * groups * 4]).reshape(count, groups, 2, 2, channels, rows, columns)
    tiled = used.transpose(0, 1, 4, 2, 5, 3, 6).reshape(count, groups * channels, 2 * rows, 2 * columns)
    return np.ascontiguousarray(tiled[:, :64], dtype=np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--name", default="feat_test.npy")
    parser.add_argument("--bits", type=float, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    have_mosaic = False
    for path in sorted(args.folder.glob(f"*/{args.name}")):
        features = np.load(path, mmap_mode="r")
        for bits in args.bits:
            step = find_step(np.asarray(features[:32]), bits)
            symbols = np.ascontiguousarray(quantise(features, step).transpose(0, 2, 3, 1))
            if np.abs(symbols).max() < 128:
                symbols = symbols.astype(np.int8)
            out = args.out / f"{path.parent.name}_{bits:g}bit.npy"
            np.save(out, symbols)
            cut = ((symbols > 127) | (symbols < -128)).mean()
            rate = entropy(symbols)
            print(f"{out.name}: {symbols.shape} {symbols.dtype}, step {step:.4g}, {rate:.3f} bits, cut {cut:.1e}")
        if features.shape[2:] == (56, 56) and not have_mosaic:
            planes = mosaic(features)
            np.save(args.out / "path_mosaic.npy", planes)
            print(f"path_mosaic.npy: {planes.shape} from {path.parent.name}")
            have_mosaic = True


if __name__ == "__main__":
    main()
