"""Layers of PyTorch and CompressAI as the nodes of a network in a profile."""

from __future__ import annotations

from typing import Any, Iterable, Optional

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float32]


def array(tensor: Any, dtype: Any = np.float32) -> NDArray[Any]:
    """A copy of a parameter, a buffer, or anything that NumPy takes."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
    return np.array(tensor, dtype)


def view(tensor: Any, dtype: Any) -> NDArray[Any]:
    """A tensor on the processor as an array, copied only if its elements are of another type."""
    return np.asarray(getattr(tensor, "detach", lambda: tensor)(), dtype)


def _pair(value: Any) -> list[int]:
    return [int(side) for side in value] if isinstance(value, (tuple, list)) else [int(value)] * 2


class Network:
    """Nodes, and the numbers of each, in the order of FORMAT.md; every node reads the one before."""

    def __init__(self, channels: int) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.numbers: list[list[_Array]] = []
        self.channels = channels

    def values(self) -> _Array:
        """All numbers, one after the other."""
        parts = [part.ravel() for node in self.numbers for part in node]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the result, from those of the input."""
        for node in self.nodes:
            if node["op"] == "shuffle":
                size = (size[0] * node["factor"], size[1] * node["factor"])
            if node["op"] == "convolution":
                size = (self._side(node, size[0], 0), self._side(node, size[1], 1))
        return size

    @staticmethod
    def _side(node: dict[str, Any], side: int, axis: int) -> int:
        kernel, around = int(node["kernel"][axis]), 2 * int(node["padding"][axis])
        if node["transposed"] is not None:
            return (side - 1) * int(node["stride"]) + kernel + int(node["transposed"]) - around
        return (side + around - kernel) // int(node["stride"]) + 1

    def _add(self, node: dict[str, Any], channels: int, numbers: list[_Array]) -> None:
        self.nodes.append({**node, "input": len(self.nodes), "add": None, "channels": channels})
        self.numbers.append(numbers)
        self.channels = channels

    def convolution(
        self,
        weights: _Array,
        bias: Optional[_Array] = None,
        *,
        stride: int = 1,
        padding: Iterable[int] = (0, 0),
        transposed: Optional[int] = None,
        depthwise: bool = False,
    ) -> None:
        """A convolution; ``weights`` are [output, row, column, input], without the last if it is depthwise."""
        if not depthwise and weights.shape[3] != self.channels:
            raise ValueError(f"a convolution of {weights.shape[3]} channels follows {self.channels}")
        node = {
            "op": "convolution",
            "kernel": list(weights.shape[1:3]),
            "stride": stride,
            "padding": list(padding),
            "depthwise": depthwise,
            "transposed": transposed,
            "quality": False,
            "slope": False,
            "bounds": [None, None],
        }
        outputs = weights.shape[0]
        self._add(node, outputs, [weights, np.zeros(outputs, np.float32) if bias is None else bias])

    def shift(self, by: _Array) -> None:
        """Adds a number to each channel."""
        self.convolution(np.ones((len(by), 1, 1), np.float32), by, depthwise=True)

    def shuffle(self, factor: int) -> None:
        """Channels to pixels."""
        self._add({"op": "shuffle", "factor": factor}, self.channels // factor**2, [])

    def normalisation(self, beta: _Array, gamma: _Array, *, inverse: bool, simple: bool) -> None:
        """Generalised divisive normalisation; ``simple`` is that without squares and root."""
        node = {"op": "normalisation", "inverse": inverse, "simple": simple}
        self._add(node, self.channels, [beta, gamma.clip(min=0)])

    def clamp(self, low: Optional[float], high: Optional[float]) -> None:
        """Limits the values."""
        own = self.nodes[-1] if self.nodes else None
        if own is None or own["op"] != "convolution" or own["slope"] or own["bounds"] != [None, None]:
            self.shift(np.zeros(self.channels, np.float32))
        self.nodes[-1]["bounds"] = [low, high]

    def slope(self, slope: _Array) -> None:
        """Multiplies negative values."""
        own = self.nodes[-1] if self.nodes else None
        if own is None or own["op"] != "convolution" or own["slope"] or own["bounds"] != [None, None]:
            self.shift(np.zeros(self.channels, np.float32))
        self.nodes[-1]["slope"] = True
        self.numbers[-1].append(slope)

    def append(self, module: Any) -> None:
        """A layer, or all layers of a sequence."""
        kind = type(module).__name__
        bases = [base.__name__ for base in type(module).__mro__]
        if kind == "Sequential" or "Sequential" in bases or kind == "ModuleList":
            for part in module:
                self.append(part)
        elif "ConvTranspose2d" in bases or "Conv2d" in bases:
            self._append_convolution(module, "ConvTranspose2d" in bases)
        elif "GDN" in bases:
            beta, gamma = module.beta_reparam(module.beta), module.gamma_reparam(module.gamma)
            simple = "GDN1" in bases
            self.normalisation(array(beta), array(gamma), inverse=bool(module.inverse), simple=simple)
        elif "BatchNorm2d" in bases:
            self._append_batch_norm(module)
        elif kind in ("ReLU", "ReLU6"):
            self.clamp(0.0, 6.0 if kind == "ReLU6" else None)
        elif kind == "LeakyReLU":
            self.slope(np.full(self.channels, module.negative_slope, np.float32))
        elif kind == "PReLU":
            self.slope(np.broadcast_to(array(module.weight), (self.channels,)))
        elif kind == "PixelShuffle":
            self.shuffle(int(module.upscale_factor))
        elif kind not in ("Identity", "Dropout", "Dropout2d"):
            raise ValueError(f"a layer of the kind {kind} cannot be imported")

    def _append_convolution(self, module: Any, transposed: bool) -> None:
        stride, padding = _pair(module.stride), module.padding
        if isinstance(padding, str):
            sides = {"valid": [0, 0], "same": [side // 2 for side in _pair(module.kernel_size)]}[padding]
        else:
            sides = _pair(padding)
        extra = _pair(module.output_padding)
        plain = stride[0] == stride[1] and extra[0] == extra[1] and _pair(module.dilation) == [1, 1]
        if isinstance(padding, str) and padding == "same":
            plain = plain and all(side % 2 for side in _pair(module.kernel_size))
        if not plain or getattr(module, "padding_mode", "zeros") != "zeros":
            raise ValueError(f"{module} cannot be imported: its stride, padding or dilation is of no kind that nodes have")
        # Masked convolutions apply their mask each time; here once.
        weight = array(module.weight) * (array(module.mask) if hasattr(module, "mask") else np.float32(1))
        groups, inputs, outputs = int(module.groups), int(module.in_channels), int(module.out_channels)
        depthwise = groups == inputs == outputs and groups > 1
        if depthwise:
            weights = weight[:, 0]
        else:
            # [group, output, input, row, column]
            apart = weight.reshape(groups, -1, *weight.shape[1:])
            apart = apart.transpose(0, 2, 1, 3, 4) if transposed else apart
            weights = np.zeros((outputs, inputs, *weight.shape[2:]), np.float32)
            for group, own in enumerate(apart):
                (o, i), at = own.shape[:2], group
                weights[at * o : (at + 1) * o, at * i : (at + 1) * i] = own
            weights = weights.transpose(0, 2, 3, 1)
        bias = None if module.bias is None else array(module.bias)
        self.convolution(
            weights,
            bias,
            stride=stride[0],
            padding=sides,
            transposed=extra[0] if transposed else None,
            depthwise=depthwise,
        )

    def _append_batch_norm(self, module: Any) -> None:
        mean, variance = array(module.running_mean), array(module.running_var)
        scale = 1 / np.sqrt(variance.astype(np.float64) + module.eps)
        shift = -mean * scale
        if module.affine:
            scale, shift = scale * array(module.weight), shift * array(module.weight) + array(module.bias)
        weights = scale.astype(np.float32)[:, None, None]
        self.convolution(weights, shift.astype(np.float32), depthwise=True)
