"""Records what CompressAI makes, for tests that run without it: `python record.py`, in this folder, with CompressAI."""

from pathlib import Path

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import GDN, GDN1
from torch import nn

FOLDER = Path(__file__).parent


def bottleneck(channels, spread):
    """A bottleneck whose channels have spread-out distributions, with its quantiles and tables."""
    model = EntropyBottleneck(channels).eval()
    with torch.no_grad():
        scale = spread[0] * (spread[1] / spread[0]) ** torch.rand(channels, 1, 1)
        first = nn.functional.softplus(model.matrices[0]) * 10 / scale
        model.matrices[0].copy_(torch.log(torch.expm1(first)) + 0.3 * torch.randn_like(first))
        for part in (*model.factors, *model.biases):
            part.copy_(0.5 * torch.randn_like(part))
        low = torch.full((channels, 1, 3), -1e5)
        high = -low
        for _ in range(60):
            middle = (low + high) / 2
            above = model._logits_cumulative(middle, stop_gradient=True) > model.target.view(1, 1, 3)
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        model.quantiles.copy_((low + high) / 2)
    model.update(force=True)
    return model


def draw(model, items, size):
    """Latents as the bottleneck expects them."""
    cdf, length, offset = (part.numpy() for part in (model._quantized_cdf, model._cdf_length, model._offset))
    random = np.random.default_rng(1)
    symbols = np.stack(
        [
            np.searchsorted(cdf[c, : length[c]], random.integers(0, 65536, (items, *size)), side="right") - 1 + offset[c]
            for c in range(len(cdf))
        ],
        1,
    )
    noise = random.uniform(-0.45, 0.45, symbols.shape)
    return torch.tensor(symbols + noise, dtype=torch.float32) + model._get_medians().detach().view(-1, 1, 1)


def tables(model):
    return {
        "cdf": model._quantized_cdf.numpy().astype(np.int32),
        "length": model._cdf_length.numpy(),
        "offset": model._offset.numpy(),
    }


def record_bottleneck():
    model = bottleneck(6, (0.2, 5))
    latents = draw(model, 2, (12, 10))
    strings = model.compress(latents)
    decoded = model.decompress(strings, latents.shape[2:])
    np.savez_compressed(
        FOLDER / "entropy_bottleneck.npz",
        quantiles=model.quantiles.detach().numpy(),
        latents=latents.numpy(),
        decoded=decoded.detach().numpy(),
        sizes=np.array([len(string) for string in strings]),
        **tables(model),
    )


def record_conditional():
    scales = np.geomspace(0.11, 20, 12).tolist()
    model = GaussianConditional(scales)
    model.update()
    random = np.random.default_rng(2)
    scale = torch.tensor(random.choice(scales, (1, 4, 16, 16)), dtype=torch.float32)
    indexes = model.build_indexes(scale)
    symbols = torch.round(torch.tensor(random.standard_normal(scale.shape), dtype=torch.float32) * scale)
    strings = model.compress(symbols, indexes)
    np.savez_compressed(
        FOLDER / "gaussian_conditional.npz",
        indexes=indexes.numpy().astype(np.int32),
        symbols=symbols.numpy().astype(np.int32),
        sizes=np.array([len(string) for string in strings]),
        **tables(model),
    )


def record_networks():
    for name, kind in [("gdn", GDN), ("gdn1", GDN1)]:
        encoder = nn.Sequential(nn.Conv2d(3, 5, 5, 2, 2), kind(5), nn.Conv2d(5, 4, 2, 1, 0, bias=False))
        decoder = nn.Sequential(
            nn.Conv2d(4, 5, 2, 1, 1), kind(5, inverse=True), nn.ConvTranspose2d(5, 3, 5, 2, 2, output_padding=1)
        )
        with torch.no_grad():
            for part in (encoder[1], decoder[1]):
                part.gamma += 0.3 * torch.rand_like(part.gamma)
            encoder[2].weight *= 12
            model = bottleneck(4, (0.5, 4))
            image = torch.rand(3, 16, 20)
            latent = encoder(image[None])
            symbols = model.quantize(latent, "symbols", model._get_medians().view(1, -1, 1, 1))
            decoded = decoder(model.dequantize(symbols, model._get_medians().view(1, -1, 1, 1)))
        parts = {f"encoder.{key}": value.numpy() for key, value in encoder.state_dict().items()}
        parts |= {f"decoder.{key}": value.numpy() for key, value in decoder.state_dict().items()}
        np.savez_compressed(
            FOLDER / f"{name}.npz",
            quantiles=model.quantiles.detach().numpy(),
            image=image.numpy(),
            symbols=symbols.numpy().astype(np.int32),
            decoded=decoded.numpy(),
            **{key: value for key, value in parts.items() if "reparam" not in key},
            **tables(model),
        )


torch.manual_seed(0)
record_bottleneck()
record_conditional()
record_networks()
