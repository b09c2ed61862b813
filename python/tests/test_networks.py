"""Proves that profiles with networks can be assembled from drafts, refitted, and asked what they hold and code."""

from __future__ import annotations

import numpy as np
import pytest

import narrows
from narrows import _tensors


def draft(profile, analysis=True, synthesis=True, gain=0):
    """The profile with a 1x1 network at each end, without tables. The one on the device halves its values."""
    tensors, metadata = _tensors.read(profile.to_bytes())
    scalars = metadata["profile"]
    channels = profile.shape[profile.channel_axis]
    node = {
        "op": "convolution", "kernel": [1, 1], "stride": 1, "padding": [0, 0], "depthwise": False, "transposed": None,
        "quality": True, "slope": False, "input": 0, "add": None, "channels": channels,
    }  # fmt: skip
    eye = np.eye(channels)
    zeros = np.zeros(channels)
    tensors = {name: tensors[name] for name in
               ("band_matrix", "dct.rows", "dct.columns", "matrix.forward", "matrix.inverse", "mean", "range", "step")}
    # 64 times the value over 2^6, and that times 2^14 over 2^15.
    tensors["analysis.weights"] = (64 * eye).astype(np.int8).ravel()
    tensors["analysis.constants"] = np.concatenate([zeros, zeros, zeros + (1 << 14)]).astype(np.int32)
    tensors["analysis.values"] = np.zeros(0, np.float32)
    tensors["synthesis.values"] = np.concatenate([2 * eye.ravel(), zeros, zeros]).astype(np.float16)
    if analysis:
        tensors["mean"] = tensors["mean"] // 2
    tensors["anchor"] = np.arange(-64, 65, 16, dtype=np.int16)
    tensors["gain"] = np.repeat(gain * tensors["anchor"], tensors["step"].size).astype(np.int16)
    scalars.update(version=2, latent_exponent=scalars["exponent"], analysis=None, synthesis=None, context=0)
    scalars.update({"lambda": 0, "rounding": 128})
    if analysis:
        nodes = [{**node, "shifts": [6, 15], "bounds": [-32768, 32767]}]
        scalars["analysis"] = {"arithmetic": "integer", "nodes": nodes}
    if synthesis:
        scalars["synthesis"] = {"nodes": [{**node, "bounds": [None, None]}]}
    return _tensors.write(tensors, {"profile": scalars, "notes": "a draft"})


def test_profiles_are_assembled_and_refitted(waves, make, tmp_path, distance):
    samples = [make(seed) for seed in range(16)]
    stages = []
    made = narrows.Profile.assemble(draft(waves)).refit(samples, lambda stage, done, total: stages.append(stage))
    assert stages and made.notes.startswith("a draft")
    path = tmp_path / "draft.safetensors"
    path.write_bytes(draft(waves))
    for source in [path, str(path), memoryview(path.read_bytes())]:
        assert narrows.Profile.assemble(source).refit(iter(samples)) == made
    assert narrows.Profile.from_bytes(made.to_bytes()) == made != waves
    feature = make(40)
    for scale in [0.25, 1]:
        errors = [distance(feature, narrows.decode(narrows.encode(feature, profile, scale=step), profile))
                  for profile, step in ((made, scale / 2), (waves, scale))]
        assert errors[0] < errors[1] * 1.2


def test_networks_are_described(waves):
    assert waves.analysis is None and waves.synthesis is None and waves.is_exact
    both = narrows.Profile.assemble(draft(waves))
    assert both.analysis == {"macs": 36 * 64, "parameters": 42, "arithmetic": "integer"}
    assert both.synthesis == {"macs": 36 * 64, "parameters": 42, "arithmetic": "float"} and both.is_exact
    assert narrows.Profile.assemble(draft(waves, analysis=False)).analysis is None
    assert narrows.Profile.assemble(draft(waves, synthesis=False)).synthesis is None


def test_drafts_that_are_none(waves, make, tmp_path):
    with pytest.raises(narrows.Corrupt):
        narrows.Profile.assemble(draft(waves)[:-1])
    with pytest.raises(narrows.Corrupt, match="not a narrows profile"):
        _tensors.read(b"nothing of the kind")
    with pytest.raises(narrows.InvalidInput, match="cannot read profile .*missing"):
        narrows.Profile.assemble(tmp_path / "missing")
    with pytest.raises(TypeError):
        narrows.Profile.assemble(3)
    profile = narrows.Profile.assemble(draft(waves))
    with pytest.raises(narrows.InvalidInput, match="no samples"):
        profile.refit([])
    with pytest.raises(narrows.InvalidInput, match="sample 1 has another shape"):
        profile.refit([make(0), make(0, (1, 6, 8, 9))])

    class Mine(Exception):
        pass

    def fail(*arguments):
        raise Mine

    with pytest.raises(Mine):
        profile.refit([make(0)], fail)


def test_symbols_are_those_of_the_steps(waves, make):
    feature = make(3)
    narrow, wide = waves.symbols(feature, 1.0), waves.symbols(feature, scale=4)
    rows, columns = waves.block
    assert narrow.dtype == np.int32 and narrow.shape == (1, -(-8 // rows), -(-8 // columns), rows * columns * 6)
    assert 0 < abs(wide).sum() < abs(narrow).sum()
    # A network that halves and steps twice as fine give the same, within the rounding to integers.
    halved = narrows.Profile.assemble(draft(waves))
    plain = narrows.Profile.assemble(draft(waves, analysis=False))
    assert abs(halved.symbols(feature, 0.5) - plain.symbols(feature)).max() <= 1
    # Gains: the steps of quality 32 in 1/32 octave are those of 64.
    gained = narrows.Profile.assemble(draft(waves, analysis=False, gain=1))
    assert np.array_equal(gained.symbols(feature, 2), plain.symbols(feature, 4))
    assert np.array_equal(gained.symbols(feature, 1), plain.symbols(feature, 1))
    assert np.array_equal(waves.symbols(feature[0][None]), narrow)
    with pytest.raises(narrows.InvalidInput, match="channels"):
        waves.symbols(make(0, (1, 5, 8, 8)))
    for scale in [0, -1, float("nan")]:
        with pytest.raises(narrows.InvalidInput, match="positive"):
            waves.symbols(feature, scale)
