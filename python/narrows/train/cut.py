"""Networks in two halves: from an ONNX file, and what they cost."""

from __future__ import annotations

import importlib
import os
import tempfile
from typing import Any, NamedTuple, Optional, Union

import torch
from torch import Tensor, nn

from .._errors import InvalidInput


class Cut(NamedTuple):
    """Two halves of a network, and the shape of its input (``None`` where the file leaves an axis open)."""

    head: nn.Module
    tail: nn.Module
    input_shape: tuple[Optional[int], ...]


def cut_onnx(model: Union[str, os.PathLike[str]], cut: str, output: Optional[str] = None) -> Cut:
    """Head and tail of an ONNX file as PyTorch modules, through the packages onnx and onnx2torch.

    :param cut: name of the tensor at which the network is cut
    :param output: the output that is the answer; ``None``: the first
    :raises ImportError: one of the packages is missing
    :raises narrows.InvalidInput: there is no such file or tensor
    """
    try:
        onnx: Any = importlib.import_module("onnx")
        importlib.import_module("onnx.utils")
        convert: Any = importlib.import_module("onnx2torch").convert
    except ImportError as error:
        raise ImportError("cut_onnx needs onnx and onnx2torch: pip install onnx onnx2torch") from error
    if not os.path.isfile(model):
        raise InvalidInput(f"there is no file {os.fspath(model)}")
    graph = onnx.load(os.fspath(model)).graph
    names = {name for node in graph.node for name in node.output}
    for name in [cut, *([output] if output else [])]:
        if name not in names:
            near = sorted(other for other in names if name.lower() in other.lower())[:8]
            hint = f"; names like it: {', '.join(near)}" if near else ""
            raise InvalidInput(f"the network has no tensor {name!r}{hint}")
    output = output or graph.output[0].name
    initial = {tensor.name for tensor in graph.initializer}
    source = next(value for value in graph.input if value.name not in initial)
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for part, (start, end) in {"head": (source.name, cut), "tail": (cut, output)}.items():
            path = os.path.join(folder, part + ".onnx")
            onnx.utils.extract_model(os.fspath(model), path, [start], [end], check_model=False)
            parts.append(convert(path).eval().requires_grad_(False))
    shape = tuple(size.dim_value or None for size in source.type.tensor_type.shape.dim)
    return Cut(parts[0], parts[1], shape)


def count_macs(module: nn.Module, sample: Tensor) -> int:
    """Multiply-accumulates of the convolutions and linear layers of a module, for one item of a batch."""
    total = 0

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor):
            return
        if isinstance(layer, nn.Linear):
            total += output.numel() * weight.shape[1]
        elif isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            total += inputs[0].numel() * weight[0].numel()
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            total += output.numel() * weight[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        with torch.no_grad():
            module(sample[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return total
