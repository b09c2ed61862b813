"""Proves that every error of the library is an exception of its kind, with its words and its fields."""

import pickle

import numpy as np
import pytest

import narrows


def caught(kind, call):
    with pytest.raises(narrows.Error) as info:
        call()
    assert type(info.value) is kind
    return info.value


def test_kinds():
    for kind in [narrows.InvalidInput, narrows.Corrupt]:
        assert issubclass(kind, ValueError)
    kinds = ["InvalidInput", "Corrupt", "Truncated", "Unsupported", "LimitExceeded", "ProfileMismatch", "BackendError"]
    for kind in (getattr(narrows, name) for name in kinds):
        assert issubclass(kind, narrows.Error) and kind.__module__ == "narrows"


def test_invalid_input(make, waves):
    error = caught(narrows.InvalidInput, lambda: narrows.encode(make(shape=(1, 5, 8, 8)), waves))
    assert str(error) == f"invalid input: the feature has 5 channels, profile {waves.hash} was fitted on 6"


def test_corrupt(make, waves, vectors):
    error = caught(narrows.Corrupt, lambda: narrows.decode(b"no stream at all"))
    assert str(error) == f"corrupt: {error.what} (at byte {error.offset})" and error.offset == 0
    stream = bytearray(narrows.Encoder(checksums=True).encode(make()))
    stream[-20] ^= 1
    error = caught(narrows.Corrupt, lambda: narrows.decode(stream))
    assert isinstance(error.what, str) and error.offset > 0
    assert caught(narrows.Corrupt, lambda: narrows.Profile.from_bytes(b"\x08" + bytes(7) + b"no json!")).what


def test_truncated(make):
    stream = narrows.encode(make())
    error = caught(narrows.Truncated, lambda: narrows.decode(stream[:5]))
    assert str(error) == f"truncated: the bytes end at {error.offset}, within {error.what}"
    assert 0 < error.offset <= 5
    assert caught(narrows.Truncated, lambda: narrows.decode(stream[:-1])).offset == len(stream) - 1
    assert not isinstance(error, ValueError)


def test_unsupported(make):
    stream = bytearray(narrows.encode(make()))
    # The version is in the two high bits of the flags.
    stream[1] |= 0b1100_0000
    error = caught(narrows.Unsupported, lambda: narrows.decode(stream))
    assert str(error) == f"not supported by this version: {error.what}"


def test_limit_exceeded(make):
    stream = narrows.encode(make())
    limits = narrows.Limits(output_bytes=1535)
    error = caught(narrows.LimitExceeded, lambda: narrows.Decoder(limits=limits).decode(stream))
    assert (error.what, error.needed, error.limit) == ("decoded bytes", 1536, 1535)
    assert str(error) == "decoded bytes: needs 1536, the limit is 1535"
    narrows.decode(stream, limits=narrows.Limits(output_bytes=1536))
    error = caught(narrows.LimitExceeded, lambda: narrows.encode(make(), bytes=8))
    assert error.limit == 8 < error.needed
    assert len(narrows.encode(make(), bytes=error.needed)) <= error.needed
    data = narrows.Profile.from_bytes
    path_limits = narrows.Limits(profile_bytes=100)
    assert caught(narrows.LimitExceeded, lambda: data(bytes(101), limits=path_limits)).needed == 101


def test_profile_mismatch(make, waves, profiles):
    stream, other = narrows.encode(make(), waves), profiles["rectified"]
    error = caught(narrows.ProfileMismatch, lambda: narrows.decode(stream))
    assert (error.stream, error.given) == (waves.hash, None)
    assert str(error) == f"the stream was made with profile {waves.hash}, but no profile was given"
    error = caught(narrows.ProfileMismatch, lambda: narrows.decode(stream, other))
    assert (error.stream, error.given) == (waves.hash, other.hash)
    assert narrows.decode(stream, [other, waves]).shape == (1, 6, 8, 8)


def test_backends():
    names = narrows.backends()
    assert names[0] == "portable" and len(set(names)) == len(names)
    for build in [narrows.Encoder, narrows.Decoder]:
        error = caught(narrows.BackendError, lambda build=build: build(backend="abacus"))
        assert "abacus" in str(error) and "portable" in str(error)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "profile"}, "wants a profile"),
        ({"mode": "lossy"}, 'not "lossy"'),
        ({"mode": "packed"}, "wants bits"),
        ({"mode": "packed", "bits": 9}, "1 to 8 bits, not 9"),
        ({"mode": "packed", "bits": 0}, "1 to 8 bits, not 0"),
        ({"mode": "packed", "bits": 3, "clip": "hard"}, 'not "hard"'),
        ({"mode": "plain", "bits": 3}, "for mode"),
        ({"mode": "lossless", "clip": "aciq"}, "for mode"),
        ({"lanes": 3}, "lanes must be 1, 2, 4, 8, 16 or 32"),
        ({"lanes": 64}, "lanes must be"),
    ],
)
def test_arguments_that_do_not_go_together(options, words):
    assert words in str(caught(narrows.InvalidInput, lambda: narrows.Encoder(**options)))


def test_profiles_are_for_their_mode(waves):
    for mode in ["plain", "lossless", "packed"]:
        assert "takes no profile" in str(caught(narrows.InvalidInput, lambda mode=mode: narrows.Encoder(waves, mode)))
    assert narrows.Encoder(waves, "profile").mode == narrows.Encoder(waves).mode == "profile"
    assert narrows.Encoder(waves).profile == waves and narrows.Encoder().mode == "plain"


def test_qualities_that_are_none(make):
    encoder = narrows.Encoder()
    for several in [{"scale": 1.0, "bytes": 500}, {"bytes": 500, "sqnr": 20.0}, {"scale": 1.0, "sqnr": 20.0}]:
        assert "one of" in str(caught(narrows.InvalidInput, lambda several=several: encoder.encode(make(), **several)))
    for scale in [0.0, -1.0, float("nan"), float("inf")]:
        caught(narrows.InvalidInput, lambda scale=scale: encoder.encode(make(), scale=scale))
    with pytest.raises(OverflowError):
        encoder.encode(make(), bytes=-1)
    assert 'not "list"' in str(caught(narrows.InvalidInput, lambda: narrows.decode(encoder.encode(make()), out="list")))


def test_exceptions_can_be_pickled(make, waves):
    stream = narrows.encode(make(), waves)
    for error in [
        caught(narrows.ProfileMismatch, lambda: narrows.decode(stream)),
        caught(narrows.Truncated, lambda: narrows.decode(stream[:4])),
        caught(narrows.LimitExceeded, lambda: narrows.encode(make(), bytes=8)),
    ]:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error) and again.__dict__ == error.__dict__


def test_a_failed_call_leaves_encoder_and_decoder_as_they_were(make, waves):
    encoder, decoder = narrows.Encoder(waves), narrows.Decoder([waves])
    stream = encoder.encode(make())
    wanted = decoder.decode(stream)
    for _ in range(3):
        caught(narrows.InvalidInput, lambda: encoder.encode(np.zeros((1, 2, 3, 4), np.float32)))
        caught(narrows.Truncated, lambda: decoder.decode(stream[:-1]))
        assert encoder.encode(make()) == stream and np.array_equal(decoder.decode(stream), wanted)
