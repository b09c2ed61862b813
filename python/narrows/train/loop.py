"""Training: from a fitted profile to a bottleneck with networks."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from typing import Any, Callable, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from .._errors import InvalidInput
from .._narrows import Profile
from .blocks import widths
from .codec import Codec, Shape
from .cut import count_macs
from .data import Augment, Examples, Inputs, Samples, Tails, Teacher, listed
from .loss import Loss, Measured, exchange_rates, measure
from .options import TrainOptions
from .result import TrainResult
from .start import fit_profile

Progress = Callable[[dict[str, Any]], object]
_WARM_UP = 50
# Options that a run may go on with changed.
_MAY_CHANGE = {"steps", "minutes", "evaluate_every", "patience", "cache_bytes", "device"}


def train(
    head: nn.Module,
    tail: Union[nn.Module, Sequence[nn.Module]],
    samples: Samples,
    profile: Optional[Profile] = None,
    *,
    options: Optional[TrainOptions] = None,
    augment: Optional[Augment] = None,
    distortion: Optional[Callable[[Tensor, Tensor], Tensor]] = None,
    finetune_tail: bool = False,
    checkpoint: Optional[Union[str, os.PathLike[str]]] = None,
    resume: bool = False,
    progress: Optional[Progress] = None,
) -> TrainResult:
    """Trains the bottleneck of a network that is cut in two, beginning with a fitted profile.

    The head stays as it is, and the tail unless it is asked for. No labels are wanted: the network's own answers are the
    teacher. Modules are put into evaluation mode.

    :param head: gives one feature for each input of a batch, the batch on the first axis
    :param tail: gives logits for a batch of features; or several tails, whose losses are added
    :param samples: inputs of the head: a tensor, a data set, or anything that can be iterated over
    :param profile: where to begin, fitted to the head's features; ``None``: :func:`fit_profile` makes one
    :param options: everything else that can be chosen
    :param augment: called with a batch of inputs and a ``torch.Generator``, gives the inputs to train on
    :param distortion: called with what a tail makes of decoded features and what it made of the originals, gives a loss for
        each; ``None``: their KL divergence over axis 1, for logits
    :param finetune_tail: whether copies of the tails are trained too; :meth:`TrainResult.export_tail` writes them
    :param checkpoint: where the state is kept, at every evaluation
    :param resume: whether to go on from the checkpoint, if it is there; with a fixed number of steps and on one thread
        that makes the same weights as a run that was not interrupted
    :param progress: called after every evaluation with a dictionary: ``step``, ``steps``, ``seconds``, ``loss`` (of the
        held-out samples), ``best``, ``points`` (for some qualities: ``octaves``, ``bytes``, ``distortion``,
        ``agreement``), and, after the first, ``train_distortion`` and ``train_bytes``
    :raises narrows.InvalidInput: options, samples, profile and modules do not go together
    """
    options = options or TrainOptions()
    options.check()
    if resume and checkpoint is None:
        raise InvalidInput("resume wants a checkpoint")
    tails = listed(tail)
    if not isinstance(head, nn.Module):
        raise InvalidInput(f"the head is a torch.nn.Module, not {type(head).__name__}")
    if options.tail_weights is not None and len(options.tail_weights) != len(tails):
        raise InvalidInput(f"{len(options.tail_weights)} tail_weights for {len(tails)} tails")
    inputs = Inputs(samples)
    if len(inputs) < 2:
        raise InvalidInput("training wants at least 2 samples, better some hundreds")
    state = None
    if resume and checkpoint is not None and os.path.exists(checkpoint):
        state = _read(checkpoint)
        profile = Profile.from_bytes(bytes(state["profile"].tolist()))
        other = [name for name, value in options.to_dict().items() if state["options"].get(name) != value]
        if not _MAY_CHANGE.issuperset(other):
            raise InvalidInput(f"the checkpoint was made with other options: {', '.join(sorted({*other} - _MAY_CHANGE))}")
    device = torch.device(options.device)
    for module in (head, *tails):
        module.eval()
    if profile is None:
        profile = fit_profile(head, tails, samples=inputs.listed(), seed=options.seed)
    for module in (head, *tails):
        module.to(device)
    run = _Run(head, tails, inputs, profile, options, augment, distortion, finetune_tail, device)
    if state is not None:
        run.restore(state)
    return run.go(checkpoint, progress)


class _Student(nn.Module):
    """All that is trained."""

    def __init__(self, codec: Codec, tails: Sequence[nn.Module]) -> None:
        super().__init__()
        self.codec = codec
        self.tails = nn.ModuleList(tails)


class _Run:
    def __init__(
        self,
        head: nn.Module,
        tails: list[nn.Module],
        inputs: Inputs,
        profile: Profile,
        options: TrainOptions,
        augment: Optional[Augment],
        distortion: Optional[Callable[[Tensor, Tensor], Tensor]],
        finetune: bool,
        device: torch.device,
    ) -> None:
        self.options, self.inputs, self.profile, self.head, self.augment = options, inputs, profile, head, augment
        self.device = device
        teacher = Teacher(head, Tails(tails), device)
        # Before tails are asked for what they may not take.
        Shape(profile).planes(teacher.features(inputs.batch([0])))
        cpu = torch.Generator().manual_seed(options.seed)
        self.generator = cpu
        # What noise is drawn from.
        self.noise = cpu if device.type == "cpu" else torch.Generator(device).manual_seed(options.seed)
        order = torch.randperm(len(inputs), generator=cpu).tolist()
        held = min(max(round(len(order) * options.held_out), 1), len(order) - 1)
        self.validation = Examples(inputs, teacher, sorted(order[:held]), options.cache_bytes)
        kept = options.cache_bytes if augment is None else 0
        self.examples = Examples(inputs, teacher, sorted(order[held:]), kept)
        features = self.validation.batch([0])[0]
        analysis, synthesis = self._widths(head, tails, features)
        state = torch.random.get_rng_state()
        torch.manual_seed(options.seed)
        codec = Codec(profile, analysis, synthesis, options.qualities)
        torch.random.set_rng_state(state)
        some = [self.validation.batch([place])[0] for place in range(min(len(self.validation), 64))]
        codec.fit_spread(codec.shape.planes(torch.cat(some).cpu()))
        self.student = _Student(codec, [_trainable(tail) for tail in tails] if finetune else [])
        if not finetune:
            for tail in tails:
                tail.requires_grad_(False)
        self.finetune = finetune
        self.student.to(device)
        self.mean = copy.deepcopy(self.student)
        self.best = copy.deepcopy(self.student.state_dict())
        self.tails = tails
        energies = [
            None if before is None else float(before.square().sum(1).mean().clamp(min=1e-12))
            for _, before in self.validation.batch(range(min(len(self.validation), 64)))[1]
        ]
        weights = list(options.tail_weights or [1.0] * len(tails))
        self.loss = Loss(options.feature_weight, weights, energies, distortion)
        self.optimiser = torch.optim.Adam(self._groups(codec), betas=(0.9, 0.99))
        self.step = 0
        self.elapsed = 0.0
        self.order: list[int] = []
        self.history: list[dict[str, Any]] = []
        self.best_loss = math.inf
        self.stale = 0
        low, high = options.qualities
        self.octaves = [low + (high - low) * i / 4 for i in range(5)]
        if options.rate_weight is None or options.rate_slope is None:
            weight, slope = exchange_rates(self._measure(self.mean))
        self.rate_weight = weight if options.rate_weight is None else options.rate_weight
        self.rate_slope = slope if options.rate_slope is None else options.rate_slope

    def _widths(self, head: nn.Module, tails: list[nn.Module], feature: Tensor) -> tuple[list[int], list[int]]:
        options = self.options
        analysis, synthesis = options.analysis, options.synthesis
        if options.preset != "none" and (analysis is None or synthesis is None):
            share = 0.5 if options.preset == "small" else 1.0
            device = self.device
            own = count_macs(head, self.inputs.batch([0]).to(device))
            whole = own + sum(count_macs(tail, feature) for tail in tails)
            shape = Shape(self.profile)
            positions = shape.height * shape.width

            def best(macs: float, fewest: int, most: int) -> list[int]:
                deep = widths(macs, shape.channels, positions, most)
                deep_enough = deep and (deep[0] >= shape.channels or most == fewest)
                return deep if deep_enough else widths(macs, shape.channels, positions, fewest)

            small = options.preset == "small"
            if analysis is None:
                analysis = best(own * options.macs_budget * share, 1, 1 if small else 2)
            if synthesis is None:
                synthesis = best(whole * options.synthesis_budget * share, 1 if small else 2, 1 if small else 3)
        return list(analysis or ()), list(synthesis or ())

    def _groups(self, codec: Codec) -> list[dict[str, Any]]:
        options = self.options
        size = float(codec.forward_matrices.detach().square().mean().sqrt())
        size = (size + float(codec.inverse_matrices.detach().square().mean().sqrt())) / 2
        linear = options.linear_rate
        networks = [p for part in (codec.analysis, codec.synthesis) for p in part.parameters()]
        tails = list(self.student.tails.parameters())
        groups: list[tuple[list[Any], float]] = [
            (networks, options.learning_rate),
            ([codec.forward_matrices, codec.inverse_matrices], 2e-3 * size * linear),
            ([codec.log_steps, codec.gains], 4e-3 * linear),
            ([codec.means], 3e-3 * codec.scale * linear),
            ([codec.log_spread], 1e-2),
            (tails, options.tail_rate),
        ]
        # All in proportion to the learning rate of the networks, but for the tails'.
        factor = options.learning_rate / 1e-3
        rates = [rate if i in (0, 4, 5) else rate * factor for i, (_, rate) in enumerate(groups)]
        return [
            {"params": group, "lr": rate, "base": rate} for (group, _), rate in zip(groups, rates) if group and rate > 0
        ]

    def _student_tails(self, student: _Student) -> Tails:
        return Tails(list(student.tails) if self.finetune else self.tails)

    def _measure(self, student: _Student) -> list[Measured]:
        tails = self._student_tails(student)
        return measure(student.codec, tails, self.loss, self.validation, self.octaves, self.options.batch)

    def weight_of(self, t: float) -> float:
        """What a loss at a quality counts: coarse ones would else outweigh the others."""
        return float(2.0 ** (-self.rate_slope / 2 * t))

    def evaluate(self, seconds: float, trained: Optional[tuple[float, float]]) -> dict[str, Any]:
        """A record of how the running mean does on the held-out samples; it is kept if it is the best."""
        points = self._measure(self.mean)
        loss = 0.0
        for point in points:
            rate = self.rate_weight * 2.0 ** (self.rate_slope * point.octaves)
            loss += (point.loss + rate * point.bytes) * self.weight_of(point.octaves) / len(points)
        if not math.isfinite(loss):
            raise InvalidInput(f"training diverged at step {self.step}: a smaller learning_rate may help")
        if loss < self.best_loss:
            self.best_loss, self.stale = loss, 0
            self.best = copy.deepcopy(self.mean.state_dict())
        else:
            self.stale += 1
        record: dict[str, Any] = {"step": self.step, "steps": self.options.steps, "seconds": seconds, "loss": loss}
        record.update(best=self.best_loss, points=[point.to_dict() for point in points])
        if trained is not None:
            record.update(train_distortion=trained[0], train_bytes=trained[1])
        self.history.append(record)
        return record

    def go(self, checkpoint: Optional[Union[str, os.PathLike[str]]], progress: Optional[Progress]) -> TrainResult:
        options = self.options
        begun = time.monotonic() - self.elapsed
        trained: Optional[tuple[float, float]] = None

        def look() -> None:
            self.elapsed = time.monotonic() - begun
            record = self.evaluate(self.elapsed, trained)
            if checkpoint is not None:
                self.save(checkpoint)
            if progress is not None:
                progress(record)

        def done() -> float:
            share = self.step / options.steps if options.steps else 1.0
            return max(share, (time.monotonic() - begun) / 60 / options.minutes) if options.minutes else share

        if not self.history:
            look()
        while (share := done()) < 1 and not (options.patience and self.stale >= options.patience):
            kl, size = self.one_step(share)
            trained = (kl, size) if trained is None else (0.98 * trained[0] + 0.02 * kl, 0.98 * trained[1] + 0.02 * size)
            if self.step % options.evaluate_every == 0:
                look()
        if self.history[-1]["step"] != self.step:
            look()
        self.student.load_state_dict(self.best)
        tails = list(self.student.tails) if self.finetune else self.tails
        return TrainResult(
            codec=self.student.codec.cpu().eval(),
            profile=self.profile,
            head=self.head,
            tails=tails,
            finetuned=self.finetune,
            options=options,
            history=self.history,
            inputs=self.inputs,
        )

    def one_step(self, share: float) -> tuple[float, float]:
        """One step of the optimiser; gives mean distortion and mean bytes."""
        options = self.options
        factor = min(1.0, (self.step + 1) / _WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * factor
        batch = min(options.batch, len(self.examples))
        if len(self.order) < batch:
            self.order = torch.randperm(len(self.examples), generator=self.generator).tolist()
        places, self.order = self.order[:batch], self.order[batch:]
        features, answers = self.examples.batch(places, self.augment, self.generator)
        low, high = options.qualities
        t = (torch.rand(batch, generator=self.generator) * (high - low) + low).to(self.device)
        codec = self.student.codec
        decoded, bits = codec(codec.shape.planes(features), t, self.noise)
        tails = self._student_tails(self.student)
        distortion, distance = self.loss(tails(codec.shape.features(decoded)), answers)
        rate = self.rate_weight * torch.exp2(self.rate_slope * t) * bits / 8
        balance = torch.exp2(-self.rate_slope / 2 * t)
        loss = ((distortion + distance + rate) * balance).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, options.clip)
        self.optimiser.step()
        self.step += 1
        keep = min(options.ema, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.mean.parameters(), self.student.parameters()):
                mean.lerp_(value, 1 - keep)
        return float(distortion.detach().mean()), float(bits.detach().mean()) / 8

    def save(self, path: Union[str, os.PathLike[str]]) -> None:
        """Writes all that a run needs to go on."""
        optimiser = self.optimiser.state_dict()
        plain = {
            "format": 1,
            "options": self.options.to_dict(),
            "groups": optimiser["param_groups"],
            "order": self.order,
            "step": self.step,
            "elapsed": self.elapsed,
            "history": self.history,
            "best_loss": self.best_loss,
            "stale": self.stale,
            "rate": [self.rate_weight, self.rate_slope],
        }
        # Not all versions of PyTorch read numbers without running what a file may hold.
        state = {
            "plain": json.dumps(plain),
            "profile": torch.tensor(list(self.profile.to_bytes()), dtype=torch.uint8),
            "student": dict(self.student.state_dict()),
            "mean": dict(self.mean.state_dict()),
            "best": dict(self.best),
            "optimiser": optimiser["state"],
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
        }
        part = os.fspath(path) + ".part"
        torch.save(state, part)
        os.replace(part, path)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to what :meth:`save` wrote."""
        try:
            for name in ("student", "mean"):
                getattr(self, name).load_state_dict(state[name])
            self.optimiser.load_state_dict({"state": state["optimiser"], "param_groups": state["groups"]})
        except (RuntimeError, ValueError) as error:
            raise InvalidInput(f"the checkpoint is of another network: {error}") from error
        self.best = state["best"]
        self.generator.set_state(state["generator"])
        self.noise.set_state(state["noise"])
        self.order, self.step, self.elapsed = state["order"], state["step"], state["elapsed"]
        self.history, self.best_loss, self.stale = state["history"], state["best_loss"], state["stale"]
        self.rate_weight, self.rate_slope = state["rate"]


def _read(path: Union[str, os.PathLike[str]]) -> dict[str, Any]:
    """What :meth:`_Run.save` wrote; nothing in the file is run."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state.update(json.loads(state.pop("plain")))
    except OSError:
        raise
    except Exception as error:  # the reader of other bytes may stumble over anything
        raise InvalidInput(f"{os.fspath(path)} is no checkpoint") from error
    if state["format"] != 1:
        raise InvalidInput(f"{os.fspath(path)} is no checkpoint of this version")
    return state


def _trainable(tail: nn.Module) -> nn.Module:
    tail = copy.deepcopy(tail).eval()
    for parameter in tail.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return tail
