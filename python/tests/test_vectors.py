"""Proves that the package decodes the golden streams to the golden features, bit for bit."""

import numpy as np
import pytest

import narrows

STREAMS = 80


def test_golden_streams_decode_to_what_they_always_did(vectors, profiles):
    pytest.importorskip("ml_dtypes")
    decoder = narrows.Decoder(list(profiles.values()))
    streams = sorted(vectors.glob("*.stream"))
    assert len(streams) >= STREAMS
    for path in streams:
        decoded = decoder.decode(path.read_bytes())
        assert decoded.tobytes() == path.with_suffix(".feature").read_bytes(), path.name


def test_golden_streams_decode_into_memory_that_is_there(vectors, profiles):
    pytest.importorskip("ml_dtypes")
    decoder = narrows.Decoder(list(profiles.values()))
    for path in sorted(vectors.glob("*.stream")):
        stream = path.read_bytes()
        out = np.ones_like(decoder.decode(stream), order="F")
        decoder.decode_into(stream, out)
        assert out.tobytes(order="C") == path.with_suffix(".feature").read_bytes(), path.name


@pytest.mark.parametrize("backend", narrows.backends())
def test_every_backend_decodes_and_encodes_alike(vectors, waves, backend, make):
    stream = (vectors / "2-waves-batch.stream").read_bytes()
    decoded = narrows.Decoder([waves], backend=backend).decode(stream)
    assert decoded.tobytes() == (vectors / "2-waves-batch.feature").read_bytes()
    assert narrows.Encoder(waves, backend=backend).encode(make()) == narrows.encode(make(), waves)


def test_info_says_what_golden_streams_are(vectors, waves, profiles):
    stream = (vectors / "2-waves-coarse.stream").read_bytes()
    own = narrows.info(stream)
    assert own["mode"] == "profile" and own["version"] == 2 and own["profile"] == waves.hash
    assert own["quality"] == 96 and own["scale"] == 8.0 and own["checksums"]
    assert own["shape"] is own["dtype"] is own["channel_axis"] is own["batch_axis"] is None
    assert own["bytes"] == len(stream) == own["header_bytes"] + own["payload_bytes"]
    full = narrows.info(stream, waves)
    assert full["shape"] == (1, 6, 8, 8) and full["dtype"] == "f32"
    assert full["channel_axis"] == 1 and full["batch_axis"] == 0
    with pytest.raises(narrows.ProfileMismatch):
        narrows.info(stream, profiles["bursts"])

    plain = narrows.info(memoryview((vectors / "2-plain-chunks-5.stream").read_bytes()))
    assert plain["mode"] == "plain" and plain["chunks"] == 5 and plain["shape"] == (1, 45, 9, 7)
    assert plain["profile"] is plain["quality"] is plain["scale"] is None
    last = narrows.info((vectors / "2-plain-channels-last.stream").read_bytes())
    assert last["channel_axis"] == 3 and last["batch_axis"] is None
    assert narrows.info((vectors / "2-plain-lanes-16.stream").read_bytes())["lanes"] == 16
