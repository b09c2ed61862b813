"""Proves that what is encoded comes back: shape and element type always, values within what the mode promises."""

import numpy as np
import pytest

import narrows

DTYPES = ["float32", "float16", "int8", "uint8", "bfloat16"]
ORDERS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "reversed": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "strided": lambda a: np.repeat(np.repeat(a, 3, 3), 2, 1)[:, ::2, :, ::3],
    "transposed": lambda a: np.ascontiguousarray(a.transpose(3, 1, 0, 2)).transpose(2, 1, 3, 0),
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a.copy(), writeable=False),
}


def typed(array, dtype):
    if dtype == "bfloat16":
        return array.astype(pytest.importorskip("ml_dtypes").bfloat16)
    if dtype == "uint8":
        return np.abs(array * 40).astype(dtype)
    return (array * 40).astype(dtype) if dtype == "int8" else array.astype(dtype)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lossless_keeps_every_bit(make, dtype, order):
    array = ORDERS[order](typed(make(shape=(2, 6, 8, 9)), dtype))
    decoded = narrows.decode(narrows.Encoder(mode="lossless").encode(array))
    assert decoded.dtype == array.dtype and decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["profile", "plain", "packed"])
def test_modes_keep_shape_type_and_values(make, waves, distance, mode, dtype, order):
    options = {"profile": {"profile": waves}, "plain": {}, "packed": {"bits": 8}}[mode]
    plain = typed(make(shape=(2, 6, 8, 8)), dtype)
    encoder = narrows.Encoder(mode=mode, **options)
    # Steps that are too fine for bytes make lossless streams, which are shorter.
    scale = 1.0 if mode == "profile" and "int" in dtype else 0.1
    stream = encoder.encode(ORDERS[order](plain), scale=scale)
    assert narrows.info(stream)["mode"] == mode == encoder.mode
    assert stream == encoder.encode(plain, scale=scale), "the memory order shows"
    decoded = narrows.Decoder(encoder.profile).decode(stream)
    assert decoded.dtype == plain.dtype and decoded.shape == plain.shape
    if mode != "profile" or "int" not in dtype:
        assert distance(plain, decoded) < 0.1


@pytest.mark.parametrize("rank", range(1, 9))
def test_every_rank(rank):
    array = np.random.default_rng(rank).standard_normal([2, 3, 2, 3, 2, 3, 2, 3][:rank]).astype(np.float32)
    assert narrows.decode(narrows.encode(array)).shape == array.shape
    assert np.array_equal(narrows.decode(narrows.encode(array, mode="lossless")), array)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), (0, 3, 4, 4)])
@pytest.mark.parametrize("mode", ["plain", "lossless"])
def test_features_without_elements(shape, mode):
    decoded = narrows.decode(narrows.encode(np.zeros(shape, np.float16), mode=mode))
    assert decoded.shape == shape and decoded.dtype == np.float16


def test_qualities(make, waves, distance):
    array, encoder, decoder = make(), narrows.Encoder(waves), narrows.Decoder([waves])
    assert encoder.encode(array) == encoder.encode(array, scale=1.0)
    fine, coarse = encoder.encode(array, scale=0.25), encoder.encode(array, scale=4.0)
    assert len(fine) > len(coarse)
    assert distance(array, decoder.decode(fine)) < distance(array, decoder.decode(coarse))
    assert len(encoder.encode(array, bytes=40)) <= 40 < len(fine)
    assert distance(array, decoder.decode(encoder.encode(array, sqnr=20.0))) <= 0.1


def test_options_are_in_the_stream(make):
    array = make(shape=(1, 6, 32, 8)) ** 3
    info = narrows.info(narrows.Encoder(chunks=3, lanes=4, checksums=True).encode(array))
    assert (info["chunks"], info["lanes"], info["checksums"]) == (3, 4, True)
    info = narrows.info(narrows.Encoder().encode(array))
    assert (info["chunks"], info["checksums"]) == (1, False)
    # Of 3 bits each, and six bytes for the range.
    for clip in ["aciq", "minmax"]:
        packed = narrows.Encoder(mode="packed", bits=3, clip=clip).encode(array)
        assert narrows.info(packed)["payload_bytes"] == array.size * 3 // 8 + 6
    streams = [narrows.Encoder(mode="packed", bits=3, clip=clip).encode(array) for clip in ["aciq", "minmax"]]
    assert streams[0] != streams[1]


def test_rdo_can_be_turned_off(make):
    samples = [make(seed, (6, 8, 8)) for seed in range(16)]
    profiles = [narrows.fit(samples, target=target) for target in [0.01, 0.05, 0.2, 0.4]]
    used = [profile for profile in profiles if "RDO" in profile.notes.splitlines()[-1]]
    for profile in used:
        streams = [narrows.Encoder(profile, rdo=rdo).encode(samples[0]) for rdo in [True, False]]
        assert streams[0] != streams[1]
    # Without it in the profile the option changes nothing.
    for profile in [profile for profile in profiles if profile not in used]:
        streams = [narrows.Encoder(profile, rdo=rdo).encode(samples[0]) for rdo in [True, False]]
        assert streams[0] == streams[1]


def test_axes(make, profiles):
    array = make(shape=(8, 8, 6))
    for axis in [2, -1]:
        assert narrows.info(narrows.encode(array, channel_axis=axis))["channel_axis"] == 2
    info = narrows.info(narrows.encode(array, channel_axis=2, batch_axis=-3))
    assert (info["channel_axis"], info["batch_axis"]) == (2, 0)
    four = make(shape=(2, 6, 8, 8))
    assert narrows.info(narrows.encode(four))["batch_axis"] == 0
    assert narrows.info(narrows.encode(four, batch_axis=None))["batch_axis"] is None
    assert narrows.info(narrows.encode(four, channel_axis=0))["batch_axis"] is None
    # Those of the profile are the default.
    bursts = profiles["bursts"]
    assert (bursts.channel_axis, bursts.shape) == (3, (1, 9, 10, 40))
    stream = narrows.encode(make(shape=bursts.shape), bursts)
    assert narrows.info(stream)["shape"] is None
    assert narrows.info(stream, bursts)["channel_axis"] == 3
    for options in [{"channel_axis": 3}, {"channel_axis": -4}, {"batch_axis": 3}, {"channel_axis": 1, "batch_axis": 1}]:
        with pytest.raises(narrows.InvalidInput, match="out of place"):
            narrows.encode(array, **options)
    with pytest.raises(TypeError, match="auto"):
        narrows.encode(array, batch_axis="none")


def test_streams_are_anything_with_bytes(make):
    stream = narrows.encode(make())
    wanted = narrows.decode(stream)
    for other in [bytearray(stream), memoryview(stream), np.frombuffer(stream, np.uint8)]:
        assert np.array_equal(narrows.decode(other), wanted)
    with pytest.raises(TypeError):
        narrows.decode(7)
    with pytest.raises(TypeError):
        narrows.decode("stream")


def test_decode_into(make):
    array = make()
    stream = narrows.encode(array)
    decoder = narrows.Decoder()
    wanted = decoder.decode(stream)
    wide = np.full((1, 6, 8, 16), 7, np.float32)
    decoder.decode_into(stream, wide[..., ::2])
    assert np.array_equal(wide[..., ::2], wanted) and (wide[..., 1::2] == 7).all()
    backwards = np.zeros_like(array)[..., ::-1]
    decoder.decode_into(stream, backwards)
    assert np.array_equal(backwards, wanted)
    # A feature of another shape, and the first one again.
    other = narrows.encode(make(shape=(3, 4, 4)))
    out = np.zeros((3, 4, 4), np.float32)
    decoder.decode_into(other, out)
    assert np.array_equal(out, narrows.decode(other))
    decoder.decode_into(stream, backwards)
    assert np.array_equal(backwards, wanted)


def test_decode_into_leaves_what_it_cannot_fill(make):
    stream = narrows.encode(make())
    decoder = narrows.Decoder()
    read_only = np.zeros((1, 6, 8, 8), np.float32)
    read_only.flags.writeable = False
    several = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 6, 8, 8), (0, 0, 0, 0))
    swapped = np.zeros((1, 6, 8, 8), np.dtype(np.float32).newbyteorder())
    bad = [np.zeros((6, 8, 8), np.float32), np.zeros((1, 6, 8, 8), np.float64), read_only, several, swapped]
    for out in bad:
        with pytest.raises(narrows.InvalidInput):
            decoder.decode_into(stream, out)
        assert not out.any()
    with pytest.raises(TypeError, match="not list"):
        decoder.decode_into(stream, [0.0])
    kept = np.full((1, 6, 8, 8), 5, np.float32)
    with pytest.raises(narrows.Error):
        decoder.decode_into(stream[: len(stream) // 2], kept)
    assert (kept == 5).all()
