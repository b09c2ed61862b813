#!/usr/bin/env python3
"""Measures coders that come as Python packages: the rANS coder of CompressAI and the DeepCABAC coder of NNCodec.

usage: peers.py DUMP [--only NAME] [--data NAME] [--seconds 0.3]

DUMP is a folder written by the Rust program with --dump. Every answer is checked before anything is timed. A package
that is not installed is named and left out (pip install compressai nncodec; only their compiled modules are used, so
`pip install --no-deps` will do).

CompressAI takes Python lists, made outside the timing; that its binding converts them to vectors and back is part of
what a caller pays, and part of the time. Its tables are known in advance (16 bits; made from all dumped messages of the
file, where the Rust program uses other symbols): one table, and for features also one table per channel, as its
entropy bottleneck has. NNCodec adapts and needs no table; it gets the signed symbols of a feature, or the unsigned ones
of a made-up source, as one matrix of a row per channel (per 4096 symbols).
"""
import argparse
import importlib.metadata
import importlib.util
import pathlib
import statistics
import sys
import time

import numpy as np


def compiled(package, module):
    """Loads a compiled module without running its package, whose other dependencies are not needed here."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"{package} is not installed")
    root = pathlib.Path(spec.submodule_search_locations[0])
    files = sorted(root.glob(module.replace(".", "/") + ".*.so"))
    if not files:
        raise ImportError(f"{package} has no compiled {module}")
    spec = importlib.util.spec_from_file_location(module.rsplit(".", 1)[-1], files[0])
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def version(package):
    """The installed version."""
    return f"{package} {importlib.metadata.version(package)}"


class CompressAi:
    """`compressai.ans`: one state, 64 bits, words of 32, tables of 16 bits, escape by Exp-Golomb nibbles."""

    def __init__(self, per_channel):
        self.ans = compiled("compressai", "ans")
        self.per_channel = per_channel
        self.name = "CompressAI rANS, known table" + (" per channel" if per_channel else "")

    def fits(self, messages):
        return messages.ndim == 4 or not self.per_channel

    def prepare(self, messages):
        """One cumulative table for each channel or for all, with the escape as last entry."""
        channels = messages.shape[3] if self.per_channel else 1
        flat = messages.reshape(-1, channels)
        self.cdfs = []
        for channel in range(channels):
            counts = np.bincount(flat[:, channel], minlength=int(flat[:, channel].max()) + 1)
            weights = np.append(counts + 0.01, 0.01)
            scaled = 1 + np.floor(weights / weights.sum() * (65536 - len(weights))).astype(int)
            scaled[scaled.argmax()] += 65536 - scaled.sum()
            self.cdfs.append([0] + [int(v) for v in np.cumsum(scaled)])
        self.sizes = [len(c) for c in self.cdfs]
        self.offsets = [0] * channels
        length = messages[0].size
        self.indexes = [int(i) for i in np.tile(np.arange(channels), length // channels)]

    def convert(self, message):
        return message.reshape(-1).tolist()

    def encode(self, symbols):
        return self.ans.RansEncoder().encode_with_indexes(symbols, self.indexes, self.cdfs, self.sizes, self.offsets)

    def decode(self, stream):
        return self.ans.RansDecoder().decode_with_indexes(stream, self.indexes, self.cdfs, self.sizes, self.offsets)

    def same(self, decoded, symbols):
        return decoded == symbols


class NnCodec:
    """`nncodec.extensions.deepCABAC`: adaptive binary arithmetic coding with NNCodec's default unary length."""

    def __init__(self, optimise):
        self.cabac = compiled("nncodec", "extensions.deepCABAC")
        self.optimise = optimise
        self.name = "NNCodec DeepCABAC" + (", contexts optimised" if optimise else "")

    def fits(self, messages):
        return True

    def prepare(self, messages):
        self.signed = messages.ndim == 4
        self.shape = (messages.shape[3], messages[0].size // messages.shape[3]) if self.signed else None

    def convert(self, message):
        values = message.astype(np.int32)
        if not self.signed:
            return values.reshape(-1, 4096).copy()
        values = (values >> 1) ^ -(values & 1)
        return np.ascontiguousarray(values.transpose(2, 0, 1).reshape(self.shape))

    def encode(self, matrix):
        self.shape = matrix.shape
        encoder = self.cabac.Encoder()
        encoder.initCtxModels(10, self.optimise)
        skip = np.zeros(matrix.shape[0], dtype=np.int32)
        off = (self.cabac.HdspMode.AlwaysOff, np.zeros(2, dtype=np.int8))
        encoder.encodeLayer(matrix, 0, 0, 0, 0, 0, skip, *off, 0, 0)
        return encoder.finish()

    def decode(self, stream):
        decoder = self.cabac.Decoder()
        decoder.setStream(stream)
        decoder.initCtxModels(10)
        matrix = np.zeros(self.shape, dtype=np.int32)
        decoder.decodeLayer(matrix, 0, 0, 0, 0, self.cabac.HdspMode.AlwaysOff, np.zeros(2, dtype=np.int8), 0, 0)
        return matrix

    def same(self, decoded, matrix):
        return np.array_equal(decoded, matrix)


def entropy_bits(messages):
    """Bits of all messages at the order-0 entropy of each one's own histogram."""
    total = 0.0
    for message in messages:
        counts = np.bincount(message.reshape(-1), minlength=256)
        counts = counts[counts > 0]
        total += float((counts * np.log2(message.size / counts)).sum())
    return total


def speed(run, items, symbols, seconds, repeats=5):
    """Symbols per second: the median of the turns, each going on where the one before ended."""
    at, speeds = 0, []
    for _ in range(repeats):
        done, start = 0, time.perf_counter()
        while done < len(items) and time.perf_counter() - start < seconds:
            run(items[at])
            at = (at + 1) % len(items)
            done += 1
        speeds.append(done * symbols / (time.perf_counter() - start))
    return statistics.median(speeds)


def measure(coder, messages, seconds):
    """One row's figures: bits per symbol, excess over the entropy, speeds."""
    coder.prepare(messages)
    items = [coder.convert(m) for m in messages]
    streams = [coder.encode(i) for i in items]
    for item, stream in zip(items, streams):
        assert coder.same(coder.decode(stream), item), f"{coder.name} gave back other symbols"
    bits = 8 * sum(len(s) for s in streams)
    size = messages[0].size
    encode, decode = speed(coder.encode, items, size, seconds), speed(coder.decode, streams, size, seconds)
    return bits / messages.size, bits / entropy_bits(messages) - 1, encode, decode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--seconds", type=float, default=0.3)
    args = parser.parse_args()

    coders, versions = [], []
    for package, makers in (
        ("compressai", (lambda: CompressAi(False), lambda: CompressAi(True))),
        ("nncodec", (lambda: NnCodec(0), lambda: NnCodec(1))),
    ):
        try:
            coders += [make() for make in makers]
            versions.append(version(package))
        except (ImportError, OSError) as error:
            print(f"left out: {error}", file=sys.stderr)
    coders = [c for c in coders if args.only in c.name]
    date = time.strftime("%Y-%m-%d", time.gmtime())
    print(f"Peers: {', '.join(versions) or 'none'}; Python {sys.version.split()[0]}; {date}.\n")
    print("| data | message | coder | bits/symbol | over entropy | encode M/s | decode M/s |")
    print("|---|---|---|---:|---:|---:|---:|")
    for path in sorted(args.dump.glob("*.npy")):
        if args.data not in path.stem:
            continue
        data, size = path.stem.rsplit(", ", 1)
        messages = np.load(path)
        for coder in coders:
            if coder.fits(messages):
                bits, over, encode, decode = measure(coder, messages, args.seconds)
                print(
                    f"| {data} | {size} | {coder.name} | {bits:.3f} | {100 * over:+.2f} % | {encode / 1e6:.1f} | "
                    f"{decode / 1e6:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
