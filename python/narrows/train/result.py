"""What training made, and how it becomes files."""

from __future__ import annotations

import dataclasses
import inspect
import os
from typing import Any, Callable, Optional, Union

import torch
from torch import Tensor, nn

from .._errors import InvalidInput
from .._narrows import Profile
from .codec import Codec
from .data import Inputs, Samples, Tails, Teacher
from .export import make_draft
from .options import TrainOptions
from .verify import Mismatch, Verified, verify


@dataclasses.dataclass
class TrainResult:
    """What :func:`train` made: ``codec``, the model in PyTorch with the best weights; ``tails``, the ones that it was
    trained with, or trained copies (``finetuned``); ``history``, the record of each evaluation; ``verified``, what the last
    :meth:`export` found.
    """

    codec: Codec
    profile: Profile
    head: nn.Module
    tails: list[nn.Module]
    finetuned: bool
    options: TrainOptions
    history: list[dict[str, Any]]
    inputs: Inputs
    verified: Optional[Verified] = None

    def features(self, samples: Optional[Samples] = None, limit: int = 400) -> Tensor:
        """The head's features of samples; ``None``: of those that were trained on."""
        inputs = self.inputs if samples is None else Inputs(samples)
        teacher = Teacher(self.head, Tails([]), torch.device(self.options.device))
        count, batch = min(len(inputs), limit), max(self.options.batch, 1)
        starts = range(0, count, batch)
        parts = [teacher.features(inputs.batch(range(i, min(i + batch, count)))).cpu() for i in starts]
        return torch.cat(parts)

    def export(
        self,
        path: Union[str, os.PathLike[str]],
        samples: Optional[Samples] = None,
        *,
        limit: int = 400,
        checked: int = 8,
        progress: Optional[Callable[[str, int, int], object]] = None,
    ) -> Profile:
        """Writes the profile: networks and matrices in integers, tables fitted to samples, all compared with PyTorch.

        :param samples: inputs that ranges and tables are fitted to; ``None``: those that were trained on
        :param limit: most of them
        :param checked: on how many the library's symbols are compared with those of the integer model
        :param progress: as for :func:`narrows.fit`
        :raises Mismatch: the library and the integer model differ
        """
        features = self.features(samples, limit)
        last = self.history[-1]
        points = ", ".join(f"{p['bytes']:.0f} bytes at distortion {p['distortion']:.4f}" for p in last["points"])
        notes = f"{self.profile.notes}\ntrained for {last['step']} steps; held-out samples: {points}"
        draft = Profile.assemble(make_draft(self.codec, self.profile, features, notes))
        profile = draft.refit(self.codec.shape.samples(features), progress)
        self.verified = verify(profile, features[: max(checked, 1)], codec=self.codec)
        if not self.verified.equal:
            found = f"{self.verified.different} of {self.verified.symbols}"
            raise Mismatch(f"{found} symbols of the library differ from those of the integer model")
        profile.save(path)
        return profile

    def export_tail(self, path: Union[str, os.PathLike[str]], number: int = 0, *, opset: int = 13) -> None:
        """Writes a tail as ONNX, with the input ``feature`` and the output ``logits``, for batches of any size.

        :param number: which of several
        """
        if not 0 <= number < len(self.tails):
            raise InvalidInput(f"there are {len(self.tails)} tails, none of number {number}")
        feature = self.features(limit=1)
        options: dict[str, Any] = {}
        if "dynamo" in inspect.signature(torch.onnx.export).parameters:
            # The other exporter wants a package more.
            options["dynamo"] = False
        torch.onnx.export(
            self.tails[number].cpu().eval(),
            (feature,),
            os.fspath(path),
            input_names=["feature"],
            output_names=["logits"],
            dynamic_axes={"feature": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=opset,
            **options,
        )
