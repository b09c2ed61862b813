"""What can be chosen about a training run."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, Sequence

from .._errors import InvalidInput

PRESETS = ("none", "small", "default")


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How a bottleneck is trained. The defaults suit some hundred to some thousand pictures.

    **Networks**

    * ``preset``: ``"none"`` trains matrices, steps and gains alone; ``"small"`` has one branch at each end, of half the
      budgets; ``"default"`` as many as do well (1 or 2 on the device, 2 or 3 on the server).
    * ``macs_budget``: multiply-accumulates of the analysis network, as a share of the head's.
    * ``synthesis_budget``: those of the synthesis network, as a share of head and tail together.
    * ``analysis``, ``synthesis``: widths of the branches, in place of preset and budgets.

    **Length**

    * ``steps``: training steps. The learning rate falls to zero towards the last one.
    * ``minutes``: ends the run after this time; the learning rate then follows whichever of time and steps is further.
    * ``evaluate_every``: steps between two looks at the held-out samples. The best weights are kept.
    * ``patience``: evaluations without an improvement after which training ends; 0: never.

    **Samples**

    * ``batch``: samples of a step.
    * ``held_out``: share of the samples that validates and is not trained on.
    * ``cache_bytes``: what heads and tails make of the samples is kept if it takes less memory than this. With an
      augmentation nothing is.

    **Loss**

    * ``qualities``: lowest and highest quality in octaves of the step scale; each sample draws one, so that one profile
      serves all of them.
    * ``rate_weight``: loss of a byte at quality 0; ``rate_slope``: octaves by which it grows with an octave of the step.
      ``None``: the exchange rates of the profile that training starts from, so that qualities keep their meaning.
    * ``feature_weight``: weight of the distance between the activations before the tail's last linear layer, relative to
      their energy; without such a layer there is none.
    * ``tail_weights``: weights of several tails; ``None``: 1 each.

    **Steps of the optimiser (Adam)**

    * ``learning_rate``: of the networks; ``linear_rate``: factor for matrices, steps and gains, which begin at good
      values; ``tail_rate``: of tails that are trained.
    * ``clip``: largest norm of a gradient; ``ema``: largest factor of the running mean of the weights, which is what is
      evaluated and exported.

    ``seed`` makes runs repeat; on one thread to the bit. ``device`` is PyTorch's name for where training runs.
    """

    preset: str = "default"
    macs_budget: float = 0.1
    synthesis_budget: float = 0.1
    analysis: Optional[Sequence[int]] = None
    synthesis: Optional[Sequence[int]] = None
    steps: int = 10_000
    minutes: Optional[float] = None
    evaluate_every: int = 500
    patience: int = 6
    batch: int = 16
    held_out: float = 0.1
    cache_bytes: int = 4 << 30
    qualities: tuple[float, float] = (-0.8, 1.2)
    rate_weight: Optional[float] = None
    rate_slope: Optional[float] = None
    feature_weight: float = 0.5
    tail_weights: Optional[Sequence[float]] = None
    learning_rate: float = 1e-3
    linear_rate: float = 0.3
    tail_rate: float = 1e-5
    clip: float = 5.0
    ema: float = 0.999
    seed: int = 0
    device: str = "cpu"

    def check(self) -> None:
        """Raises :class:`narrows.InvalidInput` for what makes no sense."""

        def want(good: bool, message: str) -> None:
            if not good:
                raise InvalidInput(message)

        want(self.preset in PRESETS, f'preset is "none", "small" or "default", not {self.preset!r}')
        for name in ("macs_budget", "synthesis_budget", "feature_weight", "linear_rate", "tail_rate"):
            want(getattr(self, name) >= 0, f"{name} is not negative")
        for name in ("learning_rate", "clip"):
            want(getattr(self, name) > 0, f"{name} is positive")
        for name in ("analysis", "synthesis"):
            widths = getattr(self, name)
            want(widths is None or all(width >= 1 for width in widths), f"{name} is a list of widths, each at least 1")
        want(self.steps >= 0 and self.patience >= 0, "steps and patience are not negative")
        want(self.evaluate_every >= 1 and self.batch >= 1, "evaluate_every and batch are at least 1")
        want(self.minutes is None or self.minutes > 0, "minutes is positive")
        want(0 < self.held_out < 1, "held_out is a share between 0 and 1")
        want(0 <= self.ema < 1, "ema is at least 0 and below 1")
        low, high = self.qualities
        want(-4 <= low < high <= 4, "qualities are two numbers of octaves from -4 to 4, the lower one first")
        want(self.rate_weight is None or self.rate_weight > 0, "rate_weight is positive")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> TrainOptions:
        """The options that :meth:`to_dict` gave."""
        return TrainOptions(**{**values, "qualities": tuple(values["qualities"])})
