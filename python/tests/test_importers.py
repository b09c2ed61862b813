"""Proves that modules of CompressAI and sc2bench become profiles that code the same symbols in about the same bytes.

What CompressAI made is recorded in data/ (by data/record.py); with CompressAI there, it is asked too.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import narrows
from narrows import importers
from narrows.importers import networks
from narrows.importers.tables import frequencies, token_of

DATA = Path(__file__).parent / "data"


def recorded(name):
    return dict(np.load(DATA / f"{name}.npz"))


def model_of(data):
    """What the importers read of an entropy model."""
    return SimpleNamespace(
        _quantized_cdf=data["cdf"],
        _cdf_length=data["length"],
        _offset=data["offset"],
        quantiles=data.get("quantiles"),
    )


class Conv2d(SimpleNamespace):
    pass


class ConvTranspose2d(SimpleNamespace):
    pass


class GDN(SimpleNamespace):
    pass


class GDN1(GDN):
    pass


class ReLU(SimpleNamespace):
    pass


class LeakyReLU(SimpleNamespace):
    pass


class Sequential(list):
    pass


def convolution(weight, bias=None, *, stride=1, padding=0, transposed=False, output_padding=0, groups=1):
    inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        inputs, outputs = weight.shape[0], weight.shape[1] * groups
    return (ConvTranspose2d if transposed else Conv2d)(
        weight=weight,
        bias=bias,
        stride=(stride, stride),
        padding=(padding, padding),
        output_padding=(output_padding, output_padding),
        dilation=(1, 1),
        groups=groups,
        kernel_size=weight.shape[2:],
        in_channels=inputs,
        out_channels=outputs,
    )


def normalisation(kind, beta, gamma, inverse):
    def plain(value):
        # The reparametrisation of CompressAI's layers.
        return np.maximum(value, 2.0**-18) ** 2 - 2.0**-36

    return kind(beta=beta, gamma=gamma, beta_reparam=plain, gamma_reparam=plain, inverse=inverse)


def test_a_bottleneck_gives_the_same_symbols_in_as_many_bytes():
    data = recorded("entropy_bottleneck")
    latents = data["latents"]
    profile = importers.from_entropy_bottleneck(model_of(data), latents.shape[1:])
    encoder, decoder = narrows.Encoder(profile, lanes=1), narrows.Decoder(profile)
    streams = [encoder.encode(latent) for latent in latents]
    for stream, decoded in zip(streams, data["decoded"]):
        assert np.array_equal(decoder.decode(stream), decoded)
    # Besides the header of 12 bytes.
    assert sum(map(len, streams)) <= 1.01 * data["sizes"].sum() + 12 * len(streams)
    assert "6 channels on 6 tables" in profile.notes
    # A batch, and another size.
    assert np.array_equal(decoder.decode(encoder.encode(latents, channel_axis=1)), data["decoded"])
    assert np.array_equal(decoder.decode(encoder.encode(latents[0, :, 3:])), data["decoded"][0, :, 3:])


def test_symbols_beyond_a_table_come_back():
    data = recorded("entropy_bottleneck")
    profile = importers.from_entropy_bottleneck(model_of(data), data["latents"].shape[1:])
    medians = data["quantiles"][:, 0, 1, None, None]
    latents = np.float32([-32000, -517, -516, -60, 0, 60, 516, 517, 30000]) + np.zeros((6, 4, 1), np.float32) + medians
    decoded = narrows.decode(narrows.encode(latents, profile), profile)
    assert np.array_equal(decoded, latents)


def test_half_way_values_are_rounded_to_even():
    data = recorded("entropy_bottleneck")
    data["quantiles"][:, 0, 1] = 0
    profile = importers.from_entropy_bottleneck(model_of(data), (6, 1, 4))
    latents = np.zeros((6, 1, 4), np.float32) + np.float32([-1.5, -0.5, 0.5, 1.5])
    assert np.array_equal(narrows.decode(narrows.encode(latents, profile), profile), np.round(latents))


def test_a_conditional_codes_symbols_under_the_tables_of_their_indexes():
    data = recorded("gaussian_conditional")
    coder = importers.from_gaussian_conditional(model_of(data), lanes=1)
    written = coder.encode(data["symbols"], data["indexes"])
    assert np.array_equal(coder.decode(written, data["indexes"]), data["symbols"])
    assert len(written) <= 1.01 * data["sizes"].sum() + 5
    for wrong in (-1, 12, 400, -400):
        with pytest.raises((narrows.InvalidInput, IndexError)):
            coder.encode(data["symbols"][:1, :1, :1, :1], np.full((1, 1, 1, 1), wrong))
    with pytest.raises(narrows.Error):
        coder.decode(written[:-2], data["indexes"])


@pytest.mark.parametrize("name, kind", [("gdn", GDN), ("gdn1", GDN1)])
def test_networks_give_what_pytorch_gave(name, kind):
    data = recorded(name)

    def part(key):
        return data[key]

    encoder = Sequential(
        [
            convolution(part("encoder.0.weight"), part("encoder.0.bias"), stride=2, padding=2),
            normalisation(kind, part("encoder.1.beta"), part("encoder.1.gamma"), False),
            convolution(part("encoder.2.weight")),
        ]
    )
    decoder = Sequential(
        [
            convolution(part("decoder.0.weight"), part("decoder.0.bias"), padding=1),
            normalisation(kind, part("decoder.1.beta"), part("decoder.1.gamma"), True),
            convolution(
                part("decoder.2.weight"),
                part("decoder.2.bias"),
                stride=2,
                padding=2,
                transposed=True,
                output_padding=1,
            ),
        ]
    )
    image, bottleneck = data["image"], model_of(data)
    model = SimpleNamespace(g_a=encoder, entropy_bottleneck=bottleneck, g_s=decoder)
    profile = importers.from_factorized_prior(model, image.shape)
    assert not profile.is_exact
    symbols = profile.symbols(image)[0]
    assert np.array_equal(np.moveaxis(symbols, -1, 0), data["symbols"][0])
    decoded = narrows.decode(narrows.encode(image, profile), profile)
    assert decoded.shape == image.shape
    expected = data["decoded"][0, :, : image.shape[1], : image.shape[2]].clip(0, 1)
    assert np.abs(decoded - expected).max() < 1e-5


def test_a_student_encodes_images_and_decodes_features():
    data = recorded("gdn1")
    random = np.random.default_rng(5)
    wide = random.standard_normal((14, 4, 2, 2)).astype(np.float32)
    encoder = Sequential(
        [
            convolution(data["encoder.0.weight"], data["encoder.0.bias"], stride=2, padding=2),
            normalisation(GDN1, data["encoder.1.beta"], data["encoder.1.gamma"], False),
            convolution(data["encoder.2.weight"]),
        ]
    )
    layer = SimpleNamespace(
        encoder=encoder,
        entropy_bottleneck=model_of(data),
        decoder=Sequential([convolution(wide, padding=1)]),
    )
    image = data["image"]
    student = importers.from_entropic_student(layer, image.shape)
    assert (student.factor, student.channels, student.profile.shape) == (2, 14, (14, 8, 10))
    packed = student.pack(image)
    for channel in range(12):
        c, i, j = channel // 4, channel // 2 % 2, channel % 2
        assert np.array_equal(packed[channel], image[c, i::2, j::2])
    assert not packed[12:].any()
    assert np.array_equal(student.pack(np.stack([image, image]))[1], packed)
    symbols = student.profile.symbols(packed)[0]
    assert np.array_equal(np.moveaxis(symbols, -1, 0), data["symbols"][0])
    latent = symbols.transpose(2, 0, 1) + data["quantiles"][:, 0, 1, None, None]
    padded = np.pad(latent, ((0, 0), (1, 1), (1, 1)))
    places = [(i, j, padded[:, i : i + 8, j : j + 10]) for i in range(2) for j in range(2)]
    expected = sum(np.einsum("oi,ihw->ohw", wide[:, :, i, j], values) for i, j, values in places)
    decoded = narrows.decode(narrows.encode(packed, student.profile), student.profile)
    assert np.abs(decoded - expected).max() < 1e-4
    with pytest.raises(ValueError, match="multiples of 2"):
        student.pack(image[:, 1:])


def test_activations_groups_and_what_cannot_be_imported():
    random = np.random.default_rng(3)
    weight = random.standard_normal((4, 2, 1, 1)).astype(np.float32)
    network = networks.Network(4)
    network.append(Sequential([convolution(weight, groups=2), LeakyReLU(negative_slope=0.25), ReLU()]))
    dense = network.numbers[0][0][:, 0, 0]
    assert np.array_equal(dense[:2, :2], weight[:2, :, 0, 0]) and np.array_equal(dense[2:, 2:], weight[2:, :, 0, 0])
    assert not dense[:2, 2:].any() and not dense[2:, :2].any()
    assert network.nodes[0]["slope"] and np.array_equal(network.numbers[0][2], np.full(4, 0.25))
    assert network.nodes[1]["bounds"] == [0.0, None]
    with pytest.raises(ValueError, match="kind Attention"):
        network.append(type("Attention", (), {})())
    strange = convolution(weight, groups=2)
    strange.dilation = (2, 2)
    with pytest.raises(ValueError, match="dilation"):
        network.append(strange)
    with pytest.raises(ValueError, match="update"):
        empty = np.zeros((0, 0), np.int32)
        importers.from_entropy_bottleneck(
            SimpleNamespace(_quantized_cdf=empty, _cdf_length=empty, _offset=empty, quantiles=None), (6, 4, 4)
        )


def logistic(scale, centre=0.0):
    """A quantised cumulative table of 16 bits, its first symbol and its length, as CompressAI has them."""
    reach = int(np.ceil(20 * scale)) + 1
    edges = np.arange(-reach, reach + 2) - 0.5
    mass = np.diff(1 / (1 + np.exp(-np.clip((edges - centre) / scale, -60, 60))))
    counts = np.maximum(1, np.round(mass * 65000)).astype(np.int64)
    counts[len(counts) // 2] += 65536 - 1 - counts.sum()
    return np.concatenate([[0], np.cumsum(np.append(counts, 1))]), -reach


def test_hundreds_of_channels_share_tables_at_little_cost():
    random = np.random.default_rng(0)
    made = [logistic(np.exp(random.uniform(-3, 1.5)), random.uniform(-0.4, 0.4)) for _ in range(300)]
    longest = max(len(cdf) for cdf, _ in made)
    cdfs = np.stack([np.pad(cdf, (0, longest - len(cdf))) for cdf, _ in made])
    lengths, offsets = np.array([len(cdf) for cdf, _ in made]), np.array([offset for _, offset in made])
    tables = importers.convert_tables(cdfs, lengths, offsets)
    assert tables.bank.shape == (104, 32) and (tables.bank.sum(1) == 4096).all()
    assert (tables.bank[:, 31] > 0).all() and (tables.bank < 4096).all()
    assert tables.level.min() >= 1 and len(np.unique(tables.level)) > 90
    assert 0 < tables.excess < 0.005
    # What is expected is what the coder takes.
    symbols = np.zeros((300, 400), np.int32)
    for row, (cdf, offset) in enumerate(made):
        symbols[row] = np.minimum(np.searchsorted(cdf, random.integers(0, 65536, 400), side="right") - 1, len(cdf) - 3)
        symbols[row] += offset
    coder = narrows.raw.SymbolCoder(tables.bank, lanes=1)
    level = np.repeat(tables.level[:, None], 400, 1)
    written = coder.encode(symbols, level)
    assert np.array_equal(coder.decode(written, level), symbols)
    assert abs(8 * len(written) / (400 * tables.bits.sum()) - 1) < 0.02
    # The weight of a table moves what is lost elsewhere.
    weights = np.where(np.arange(300) < 150, 1000, 1)
    weighted = importers.convert_tables(cdfs, lengths, offsets, weights)
    lost = [(t.bits / t.original_bits - 1)[:150].sum() for t in (tables, weighted)]
    assert lost[1] < lost[0]
    with pytest.raises(ValueError, match="rise"):
        importers.convert_tables(cdfs[:, ::-1], lengths, offsets)


def test_tokens_are_those_of_the_format():
    symbols = [0, 1, -1, 8, -8, 9, 12, -12, 13, 516, -516, 517, -9999]
    assert token_of(symbols).tolist() == [0, 1, 2, 15, 16, 17, 17, 18, 19, 29, 30, 31, 31]


def test_no_move_of_a_frequency_saves_more_than_a_trifle():
    random = np.random.default_rng(7)
    escape = np.full(32, 8.0)

    def bits(mass, row):
        classes = (np.arange(32) + 1) // 2
        alone = np.log2(4096 / np.maximum(row, 1)) + np.where(classes >= 9, classes - 7, 0)
        instead = np.log2(4096 / row[31]) + escape
        return (mass * np.where((row > 0) & (np.arange(32) < 31), alone, instead)).sum()

    for _ in range(20):
        mass = random.dirichlet(np.full(32, 0.15)) * (random.random(32) < 0.6)
        mass /= mass.sum()
        row = frequencies(mass, escape)
        assert row.sum() == 4096 and row[31] > 0
        best = bits(mass, row)
        for a in range(32):
            for b in range(32):
                if a != b and row[a] > (1 if a == 31 else 0) and (row[b] > 0):
                    moved = row.copy()
                    moved[a], moved[b] = moved[a] - 1, moved[b] + 1
                    assert bits(mass, moved) >= best * (1 - 1e-4)


@pytest.mark.filterwarnings("ignore")
def test_compressai_itself_agrees():
    torch = pytest.importorskip("torch")
    try:
        from compressai.models.google import FactorizedPrior
    except ImportError:
        pytest.skip("CompressAI is not there")

    torch.manual_seed(0)
    model = FactorizedPrior(8, 12).eval()
    with torch.no_grad():
        model.g_a[6].weight *= 30
    model.update()
    image = torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        latents = model.g_a(image)
        theirs = model.compress(image)
        expected = model.decompress(theirs["strings"], theirs["shape"])["x_hat"].numpy()
        reached = model.entropy_bottleneck.decompress(theirs["strings"][0], theirs["shape"]).numpy()
    bottleneck = importers.from_entropy_bottleneck(model.entropy_bottleneck, latents.shape)
    stream = narrows.encode(latents, bottleneck)
    assert np.array_equal(narrows.decode(stream, bottleneck), reached)
    profile = importers.from_factorized_prior(model, image.shape)
    decoded = narrows.decode(narrows.encode(image, profile), profile)
    assert np.abs(decoded - expected).mean() < 1e-4


def test_a_symbol_coder_takes_any_symbol_and_refuses_what_does_not_fit():
    random = np.random.default_rng(4)
    symbols = random.integers(-(2**31), 2**31, (5, 7), dtype=np.int32) >> random.integers(0, 32, (5, 7), dtype=np.int32)
    tables = random.integers(0, 104, (5, 7)).astype(np.uint8)
    written = {
        narrows.raw.SymbolCoder(lanes=lanes, backend=backend).encode(symbols.T, tables.T)
        for lanes in (1, 8)
        for backend in narrows.backends()
        if backend != "gpu"
    }
    assert len(written) == 2
    for data in written:
        assert np.array_equal(narrows.raw.SymbolCoder().decode(data, tables.T), symbols.T)
    coder = narrows.raw.SymbolCoder()
    assert coder.encode(symbols[:0], tables[:0]) == b""
    with pytest.raises(narrows.InvalidInput, match="shape"):
        coder.encode(symbols, tables[:3])
    with pytest.raises(narrows.InvalidInput, match="table"):
        coder.encode(symbols, np.full((5, 7), 104, np.uint8))
    with pytest.raises(narrows.InvalidInput, match="lanes"):
        narrows.raw.SymbolCoder(lanes=3)
    with pytest.raises(narrows.Corrupt):
        narrows.raw.SymbolCoder(np.zeros((104, 32), np.uint16))
    with pytest.raises(narrows.InvalidInput, match="32"):
        narrows.raw.SymbolCoder(np.zeros((104, 31), np.uint16))
