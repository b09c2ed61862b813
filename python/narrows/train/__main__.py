"""Trains a bottleneck for an ONNX network from a folder of pictures.

    pip install torch onnx onnx2torch pillow
    python -m narrows.train --model net.onnx --cut NAME --images photos --labels labels.csv \\
        --rows 1-400 --normalize imagenet --start net.profile.safetensors -o trained.safetensors --minutes 30

Images, rows and normalisation mean what they mean to `narrows fit`.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import sys
from typing import Any, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from .. import Error, Profile
from . import TrainOptions, augment_pictures, cut_onnx, train

NORMALIZE: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    # name: (scale, mean, deviation), as on the command line of `narrows`
    "imagenet": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": (1 / 255, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "lite": (1.0, (127.0,) * 3, (128.0,) * 3),
    "unit": (1 / 255, (0.0,) * 3, (1.0,) * 3),
    "none": (1.0, (0.0,) * 3, (1.0,) * 3),
}


class Pictures:
    """Pictures of a folder, by row of a label file with a column ``file``."""

    def __init__(self, folder: str, labels: str, rows: Optional[str], normalize: str, side: Optional[tuple[int, int]]) -> None:
        with open(labels, newline="") as handle:
            names = [row["file"] for row in csv.DictReader(handle)]
        try:
            first, last = (int(x) for x in rows.split("-")) if rows else (1, len(names))
        except ValueError:
            raise SystemExit(f"error: rows are given as 1-400, not as {rows}") from None
        if not 1 <= first <= last <= len(names):
            raise SystemExit(f"error: rows {rows}: {labels} has rows 1 to {len(names)}")
        self.paths = [os.path.join(folder, name) for name in names[first - 1 : last]]
        self.normalize, self.side = NORMALIZE[normalize], side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        Image: Any = importlib.import_module("PIL.Image")
        scale, mean, deviation = self.normalize
        image = Image.open(self.paths[number]).convert("RGB")
        if self.side and image.size != self.side:
            (width, height), (wanted, high) = image.size, self.side
            raise SystemExit(f"error: {self.paths[number]} is {width}x{height}, the network takes {wanted}x{high}: resize it first")
        pixels = torch.from_numpy(np.asarray(image, np.float32).copy()).permute(2, 0, 1) * scale
        middle, spread = (torch.tensor(values).reshape(3, 1, 1) for values in (mean, deviation))
        return (pixels - middle) / spread


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m narrows.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = TrainOptions()
    made.add_argument("--model", required=True, help="ONNX file")
    made.add_argument("--cut", required=True, help="tensor at which the network is cut")
    made.add_argument("--output", help="output that is the answer (default: the first)")
    made.add_argument("--images", required=True, help="folder of pictures")
    made.add_argument("--labels", required=True, help="CSV with a column `file`")
    made.add_argument("--rows", help="rows of it, as 1-400 (default: all)")
    made.add_argument("--normalize", choices=sorted(NORMALIZE), required=True)
    made.add_argument("--start", help="profile to begin with (default: one is fitted, with gradients)")
    made.add_argument("-o", dest="out", required=True, help="where the trained profile goes")
    made.add_argument("--preset", choices=["none", "small", "default"], default=usual.preset)
    made.add_argument("--analysis", type=int, nargs="*", help="widths of the branches on the device, in place of the preset's")
    made.add_argument("--synthesis", type=int, nargs="*", help="widths of the branches on the server")
    made.add_argument("--macs-budget", type=float, default=usual.macs_budget, help="of the head's multiply-accumulates")
    made.add_argument("--synthesis-budget", type=float, default=usual.synthesis_budget, help="of the whole network's")
    made.add_argument("--steps", type=int, help=f"training steps (default {usual.steps}; with --minutes, no limit)")
    made.add_argument("--minutes", type=float, help="end after this time")
    made.add_argument("--evaluate-every", type=int, default=usual.evaluate_every, help="steps between evaluations")
    made.add_argument("--patience", type=int, default=usual.patience, help="evaluations without gain before the end; 0: all")
    made.add_argument("--batch", type=int, default=usual.batch)
    made.add_argument("--qualities", type=float, nargs=2, default=usual.qualities, metavar=("LOW", "HIGH"), help="octaves")
    made.add_argument("--rate-weight", type=float, help="loss of a byte (default: the starting profile's)")
    made.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    made.add_argument("--no-augment", action="store_true", help="train on the pictures as they are, and keep their features")
    made.add_argument("--finetune-tail", metavar="FILE", help="train the tail too, and write it to this ONNX file")
    made.add_argument("--checkpoint", metavar="FILE", help="where the state is kept (default: beside the profile)")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    made.add_argument("--seed", type=int, default=usual.seed)
    made.add_argument("--threads", type=int, help="threads of PyTorch")
    made.add_argument("--device", default=usual.device, help="PyTorch's name for where to train")
    return made


def report(record: dict[str, Any]) -> None:
    """One line for an evaluation."""
    points = "  ".join(f"{p['bytes']:.0f}:{p['distortion']:.4f}:{p['agreement']:.3f}" for p in record["points"])
    print(f"step {record['step']}  {record['seconds']:.0f} s  loss {record['loss']:.4f}  bytes:distortion:agreement {points}", flush=True)


class Stages:
    """A line for every stage of a fit."""

    def __init__(self) -> None:
        self.last = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.last:
            print(f"{stage} ({total})", flush=True)
        self.last = stage


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command."""
    args = parser().parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    steps = args.steps if args.steps is not None else (1_000_000 if args.minutes else TrainOptions().steps)
    names = ("preset", "analysis", "synthesis", "macs_budget", "synthesis_budget", "minutes", "evaluate_every", "patience",
             "batch", "rate_weight", "learning_rate", "seed", "device")  # fmt: skip
    options = TrainOptions(
        steps=steps, qualities=(args.qualities[0], args.qualities[1]), **{name: getattr(args, name) for name in names}
    )
    try:
        head, tail, shape = cut_onnx(args.model, args.cut, args.output)
        side = (shape[3], shape[2]) if len(shape) == 4 and shape[2] and shape[3] else None
        pictures = Pictures(args.images, args.labels, args.rows, args.normalize, side)
        result = train(
            head,
            tail,
            pictures,
            Profile.load(args.start) if args.start else None,
            options=options,
            augment=None if args.no_augment else augment_pictures,
            finetune_tail=args.finetune_tail is not None,
            checkpoint=args.checkpoint or args.out + ".checkpoint",
            resume=args.resume,
            progress=report,
        )
        profile = result.export(args.out, progress=Stages())
        if args.finetune_tail is not None:
            result.export_tail(args.finetune_tail)
    except (Error, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {profile!r}")
    print(f"analysis {profile.analysis}, synthesis {profile.synthesis}")
    assert result.verified is not None
    print(f"symbols as those of the integer model; {result.verified.float_equal:.4f} as those of the trained one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
