"""Proves that profiles are values: read, written, compared, pickled, asked what they are."""

import copy
import importlib.metadata
import pickle
import re
from pathlib import Path

import pytest

import narrows


def test_files_and_bytes(waves, vectors, tmp_path):
    golden = vectors / "waves.profile.safetensors"
    assert narrows.Profile.from_bytes(golden.read_bytes()) == waves
    assert narrows.Profile.from_bytes(memoryview(golden.read_bytes())) == waves
    for path in [tmp_path / "p.safetensors", str(tmp_path / "q.safetensors")]:
        waves.save(path)
        assert narrows.Profile.load(path) == waves
        assert Path(path).read_bytes() == waves.to_bytes() == golden.read_bytes()


def test_files_that_are_none(tmp_path):
    with pytest.raises(narrows.InvalidInput, match="cannot read profile .*missing"):
        narrows.Profile.load(tmp_path / "missing")
    with pytest.raises(narrows.Error):
        narrows.Profile.load(__file__)
    with pytest.raises(TypeError):
        narrows.Profile.load(3)


def test_properties(profiles):
    waves, bursts = profiles["waves"], profiles["bursts"]
    assert len(waves.hash) == 16 and int(waves.hash, 16) > 0
    assert (waves.shape, waves.dtype, waves.channel_axis, waves.batch_axis) == ((1, 6, 8, 8), "f32", 1, 0)
    assert (bursts.shape, bursts.channel_axis, bursts.block) == ((1, 9, 10, 40), 3, (3, 3))
    assert waves.matrices >= 1 and profiles["rectified"].matrices == 0
    assert "samples" in waves.notes and waves.hash in repr(waves)
    with pytest.raises(AttributeError):
        waves.notes = "other"


def test_profiles_are_values(profiles, waves):
    again = narrows.Profile.from_bytes(waves.to_bytes())
    assert again == waves and again is not waves and hash(again) == hash(waves)
    assert waves != profiles["bursts"] and waves != "waves" and waves != waves.hash
    assert len({*profiles.values(), again}) == 3
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(waves, protocol)) == waves
    assert copy.deepcopy(waves) == waves


def test_limits_are_values():
    usual = narrows.Limits()
    assert usual.output_bytes == 256 << 20 and usual.rank == 8 and usual.lanes == 32
    other = narrows.Limits(output_bytes=5, header_bytes=6, rank=7, chunks=4, channels=3, lanes=2, tables=1, profile_bytes=9,
                           network_bytes=10, network_macs=11)
    assert (other.output_bytes, other.header_bytes, other.rank, other.chunks) == (5, 6, 7, 4)
    assert (other.channels, other.lanes, other.tables, other.profile_bytes) == (3, 2, 1, 9)
    assert (other.network_bytes, other.network_macs) == (10, 11)
    assert other != usual and usual == narrows.Limits() and hash(usual) == hash(narrows.Limits())
    assert eval(repr(other), {"Limits": narrows.Limits}) == other
    with pytest.raises(TypeError):
        narrows.Limits(5)


def test_every_limit_reaches_the_decoder(make, waves):
    stream = narrows.Encoder(chunks=4, lanes=4).encode(make(shape=(1, 6, 32, 8)))
    for name, value in [("rank", 3), ("chunks", 3), ("channels", 5), ("lanes", 2), ("header_bytes", 2)]:
        with pytest.raises(narrows.LimitExceeded):
            narrows.Decoder(limits=narrows.Limits(**{name: value})).decode(stream)
    for name, value in [("tables", 0), ("channels", 5), ("header_bytes", 10), ("profile_bytes", 10)]:
        with pytest.raises(narrows.LimitExceeded):
            narrows.Profile.from_bytes(waves.to_bytes(), limits=narrows.Limits(**{name: value}))


def test_representations(waves):
    assert repr(narrows.Encoder(waves)) == f"<narrows.Encoder profile {waves.hash}>"
    assert repr(narrows.Encoder(mode="lossless")) == "<narrows.Encoder lossless>"
    assert repr(narrows.Decoder([waves])) == f"<narrows.Decoder [{waves.hash}]>"
    assert narrows.Decoder(waves).profiles == [waves]


def test_the_version_is_that_of_the_library(vectors):
    manifest = (vectors.parents[1] / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.*)"', manifest, re.MULTILINE)
    assert version and version[1] == narrows.__version__ == importlib.metadata.version("narrows")
