"""Size and speed beside CompressAI's own coder, for the same symbols, on one thread.

    python benches/beside_compressai.py [--train SECONDS]

wants CompressAI, PyTorch and the installed package. Bytes of narrows count its whole streams, headers included; those of
CompressAI its strings alone, which say neither shape nor model. Times are medians of the processor's time that several
runs took.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from compressai.entropy_models import EntropyBottleneck, GaussianConditional  # noqa: E402
from compressai.layers import GDN1  # noqa: E402
from compressai.models.google import FactorizedPrior, get_scale_table  # noqa: E402
from torch import nn  # noqa: E402

import narrows  # noqa: E402
from narrows import importers  # noqa: E402

RUNS = 15


def median_ms(*calls):
    """Milliseconds of each call."""

    def run(call):
        start = time.process_time()
        call()
        return 1e3 * (time.process_time() - start)

    return [float(np.median([run(call) for _ in range(RUNS + 2)][2:])) for call in calls]


@torch.no_grad()
def set_quantiles(model):
    """The quantiles that training would end at, by bisection."""
    low = torch.full((model.channels, 1, 3), -1e5)
    high = -low
    for _ in range(60):
        middle = (low + high) / 2
        above = model._logits_cumulative(middle, stop_gradient=True) > model.target.view(1, 1, 3)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    model.quantiles.copy_((low + high) / 2)


@torch.no_grad()
def random_bottleneck(channels, spread):
    """A bottleneck whose channels have scales between two, spread evenly over octaves, and shapes of many kinds."""
    model = EntropyBottleneck(channels).eval()
    scale = spread[0] * (spread[1] / spread[0]) ** torch.rand(channels, 1, 1)
    first = nn.functional.softplus(model.matrices[0]) * 10 / scale
    model.matrices[0].copy_(torch.log(torch.expm1(first)) + 0.3 * torch.randn_like(first))
    for part in (*model.factors, *model.biases):
        part.copy_(0.5 * torch.randn_like(part))
    set_quantiles(model)
    model.update(force=True)
    return model


def draw(model, items, size, random):
    """Latents as the bottleneck expects them."""
    cdf, length, offset = (part.numpy() for part in (model._quantized_cdf, model._cdf_length, model._offset))

    def channel(c):
        slots = random.integers(0, 65536, (items, *size))
        return np.searchsorted(cdf[c, : length[c]], slots, side="right") - 1 + offset[c]

    symbols = np.stack([channel(c) for c in range(len(cdf))], 1)
    noise = random.uniform(-0.45, 0.45, symbols.shape)
    return torch.tensor(symbols + noise, dtype=torch.float32) + model._get_medians().detach().view(-1, 1, 1)


def images(count, height, width, seed):
    """Noise with the spectrum of photographs."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1 / max(height, width)
    waves = np.fft.fft2(random.standard_normal((count, 3, height, width))) / frequency**1.2
    values = np.fft.ifft2(waves).real
    values = (values - values.mean((2, 3), keepdims=True)) / values.std((2, 3), keepdims=True)
    values[:, 1:] = 0.8 * values[:, :1] + 0.3 * values[:, 1:]
    return torch.tensor(np.clip(0.5 + 0.2 * values, 0, 1), dtype=torch.float32)


def row(name, symbols, theirs, ours, few, times):
    encode, decode = times[0] / times[1], times[2] / times[3]
    print(
        f"| {name} | {symbols:,} | {theirs:,} | {ours:,} ({100 * (ours / theirs - 1):+.2f} %) | {few:,} "
        f"({100 * (few / theirs - 1):+.2f} %) | {times[0]:.2f} / {times[1]:.2f} ({encode:.1f}x) | "
        f"{times[2]:.2f} / {times[3]:.2f} ({decode:.1f}x) |",
        flush=True,
    )


def head(title):
    print(f"\n{title}\n")
    print("| case | symbols | bytes, CompressAI | narrows | 4 lanes | encode, ms | decode, ms |")
    print("|---|---|---|---|---|---|---|")


def entropy_stage(name, model, latents):
    """A bottleneck alone: latents to bytes and back."""
    profile = importers.from_entropy_bottleneck(model, latents.shape[1:])
    decoder, arrays = narrows.Decoder(profile), latents.numpy()
    theirs = model.compress(latents)
    expected = model.decompress(theirs, latents.shape[2:]).numpy()
    sizes = []
    for lanes in (None, 4):
        encoder = narrows.Encoder(profile, lanes=lanes)
        streams = [encoder.encode(item) for item in arrays]
        assert np.array_equal(np.stack([decoder.decode(stream) for stream in streams]), expected), "other symbols"
        sizes.append(sum(map(len, streams)))
    encoder, one = narrows.Encoder(profile), latents[:1]
    stream, string, item = encoder.encode(arrays[0]), model.compress(one), arrays[0]
    times = median_ms(
        lambda: model.compress(one),
        lambda: encoder.encode(item),
        lambda: model.decompress(string, latents.shape[2:]),
        lambda: decoder.decode(stream),
    )
    row(name, latents[0].numel(), sum(map(len, theirs)), *sizes, times)


def conditional(name, random, scales, shape):
    """A Gaussian conditional: symbols with an index each."""
    model = GaussianConditional(get_scale_table().tolist())
    model.update()
    low, high = scales
    scale = torch.tensor(low * (high / low) ** random.random(shape), dtype=torch.float32)
    indexes = model.build_indexes(scale)
    latents = torch.tensor(random.standard_normal(shape), dtype=torch.float32) * scale
    symbols = model.quantize(latents, "symbols")
    strings = model.compress(latents, indexes)
    sizes = []
    for lanes in (None, 4):
        coder = importers.from_gaussian_conditional(model, lanes=lanes)
        written = coder.encode(symbols, indexes)
        assert np.array_equal(coder.decode(written, indexes), symbols.numpy()), "other symbols"
        sizes.append(len(written))
    coder = importers.from_gaussian_conditional(model)
    written = coder.encode(symbols, indexes)
    times = median_ms(
        lambda: model.compress(latents, indexes),
        lambda: coder.encode(model.quantize(latents, "symbols"), indexes),
        lambda: model.decompress(strings, indexes),
        lambda: coder.decode(written, indexes),
    )
    row(name, latents.numel(), sum(map(len, strings)), *sizes, times)


def whole(name, profile, inputs, compress, decompress):
    """A whole model: the input to bytes, bytes to what the decoder makes."""
    decoder = narrows.Decoder(profile)
    theirs = [compress(index) for index in range(len(inputs))]
    sizes, far = [], 0.0
    for lanes in (None, 4):
        encoder = narrows.Encoder(profile, lanes=lanes)
        streams = [encoder.encode(item) for item in inputs]
        sizes.append(sum(map(len, streams)))
        for stream, (string, shape) in zip(streams, theirs):
            expected = decompress(string, shape)
            error = np.sqrt(np.mean((decoder.decode(stream) - expected) ** 2) / np.mean(expected**2))
            far = max(far, float(error))
    encoder, (string, shape) = narrows.Encoder(profile), theirs[0]
    stream = encoder.encode(inputs[0])
    times = median_ms(
        lambda: compress(0),
        lambda: encoder.encode(inputs[0]),
        lambda: decompress(string, shape),
        lambda: decoder.decode(stream),
    )
    row(f"{name} (decoded within {far:.0e})", inputs[0].size, sum(len(string[0]) for string, _ in theirs), *sizes, times)


def train(model, seconds):
    """A few steps, so that the latents are of some use."""
    rest = [value for key, value in model.named_parameters() if not key.endswith("quantiles")]
    optimiser = torch.optim.Adam(rest, 1e-3)
    end, step = time.monotonic() + seconds, 0
    model.train()
    while time.monotonic() < end:
        x = images(2, 128, 128, step)
        made = model(x)
        bits = -torch.log2(made["likelihoods"]["y"]).sum() / (2 * 128 * 128)
        loss = bits + 650 * ((made["x_hat"] - x) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
    model.eval()
    set_quantiles(model.entropy_bottleneck)
    model.entropy_bottleneck.update(force=True)
    return step


class Student(nn.Module):
    """The layers of the Entropic Student's bottleneck."""

    def __init__(self, width=24, target=256):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width * 4, 5, 2, 2, bias=False),
            GDN1(width * 4),
            nn.Conv2d(width * 4, width * 2, 5, 2, 2, bias=False),
            GDN1(width * 2),
            nn.Conv2d(width * 2, width, 2, 1, 0, bias=False),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(width, target * 2, 2, 1, 1, bias=False),
            GDN1(target * 2, inverse=True),
            nn.Conv2d(target * 2, target, 2, 1, 0, bias=False),
            GDN1(target, inverse=True),
            nn.Conv2d(target, target, 2, 1, 1, bias=False),
        )
        self.entropy_bottleneck = random_bottleneck(width, (0.3, 6))


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=float, default=60, help="seconds of training (default 60)")
    seconds = parser.parse_args().train
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    print(f"narrows {narrows.__version__}, backend {narrows.backends()[-1]}, {Path(sys.executable).name}, one thread")

    model = FactorizedPrior(64, 96)
    with torch.enable_grad():
        steps = train(model, seconds)
    photos = images(4, 256, 256, 10**6)

    head("Entropy stage: a bottleneck")
    for channels, spread, size in [
        (24, (0.3, 6), (55, 55)),
        (192, (0.3, 3), (16, 16)),
        (192, (0.05, 10), (16, 16)),
        (320, (0.05, 10), (32, 48)),
    ]:
        own = random_bottleneck(channels, spread)
        name = f"random, {channels} channels of {size[0]}x{size[1]}, scales {spread[0]} to {spread[1]}"
        entropy_stage(name, own, draw(own, 4, size, random))
    entropy_stage(f"trained {steps} steps, 96 channels of 16x16", model.entropy_bottleneck, model.g_a(photos))

    head("Entropy stage: a Gaussian conditional of 64 scales")
    for scales in [(0.11, 2), (0.3, 20), (0.11, 256)]:
        conditional(f"scales {scales[0]} to {scales[1]}", random, scales, (1, 192, 32, 32))

    head("Whole models")
    profile = importers.from_factorized_prior(model, photos.shape[1:])

    def compress(index):
        made = model.compress(photos[index : index + 1])
        return made["strings"][0], made["shape"]

    def decompress(string, shape):
        return model.decompress([string], shape)["x_hat"][0].numpy()

    whole("factorised prior, 64 and 96 channels, 3x256x256", profile, list(photos.numpy()), compress, decompress)
    student = Student().eval()
    student.encoder[4].weight *= 12
    photos = images(2, 224, 224, 10**6)
    imported = importers.from_entropic_student(student, photos.shape[1:])

    def compress_student(index):
        latent = student.encoder(photos[index : index + 1])
        return student.entropy_bottleneck.compress(latent), latent.shape[2:]

    def decompress_student(string, shape):
        return student.decoder(student.entropy_bottleneck.decompress(string, shape))[0].numpy()

    packed = [imported.pack(photo) for photo in photos]
    whole("Entropic Student, 3x224x224", imported.profile, packed, compress_student, decompress_student)


main()
