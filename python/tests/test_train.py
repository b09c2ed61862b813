"""Proves that training begins at the profile it is given, gains by it, can be interrupted, and ends in a profile whose
symbols in the library are those of an integer model, at every quality."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import narrows

torch = pytest.importorskip("torch")

import narrows.train as nt  # noqa: E402
from narrows import _tensors  # noqa: E402
from narrows.train.codec import Codec  # noqa: E402
from narrows.train.export import make_draft, requantisation  # noqa: E402
from narrows.train.integer import round_shift  # noqa: E402
from narrows.train.quantise import fake_int8, to_int8  # noqa: E402

nn = torch.nn
QUICK = nt.TrainOptions(steps=4, evaluate_every=2, batch=8, analysis=[8], synthesis=[8], seed=3)
# At a rate that moves everything.
MOVING = nt.TrainOptions(steps=200, evaluate_every=100, analysis=[8], synthesis=[8], learning_rate=3e-3, linear_rate=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    p = torch.rand(count, 3, 4, 1, 1, generator=generator)
    waves = (6 * p[:, :, 0] + p[:, :, 1] * x + p[:, :, 2] * y).sin() * (0.5 + p[:, :, 3])
    return waves + 0.1 * torch.randn(count, 3, 16, 16, generator=generator)


def standardised(head, tail):
    """A tail whose answers are spread out."""
    with torch.no_grad():
        logits = tail(head(pictures(64, 7)))
        factor = 3 / logits.std(0)
        tail[-1].weight.mul_(factor[:, None])
        tail[-1].bias.sub_(logits.mean(0)).mul_(factor)
    return tail.eval()


def network(seed=0):
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)).eval()
    tail = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 5))
    torch.random.set_rng_state(state)
    return head, standardised(head, tail)


@pytest.fixture(scope="module")
def halves():
    return network()


@pytest.fixture(scope="module")
def samples():
    return pictures(96)


@pytest.fixture(scope="module")
def features(halves, samples):
    with torch.no_grad():
        return halves[0](samples)


@pytest.fixture(scope="module")
def profile(features):
    """Fitted without the tail, so that there is something to gain; blocks that do not divide the feature's sides."""
    return narrows.fit([f[None] for f in features], blocks=[3])


@pytest.fixture(scope="module")
def trained(halves, samples, profile):
    return nt.train(*halves, samples, profile, options=MOVING)


def plain(profile):
    """The profile without the encoder's rate decisions and reconstruction offsets."""
    tensors, metadata = _tensors.read(profile.to_bytes())
    metadata["profile"].update({"rounding": 128, "lambda": 0})
    tensors["offset"] = np.zeros_like(tensors["offset"])
    return narrows.Profile.assemble(_tensors.write(tensors, metadata))


def recoded(profile, features, scale):
    encoder, decoder = narrows.Encoder(profile), narrows.Decoder(profile)
    streams = [encoder.encode(f[None].numpy(), scale=scale) for f in features]
    return np.concatenate([decoder.decode(stream) for stream in streams]), sum(map(len, streams)) / len(streams)


def start_is_the_profile(profile, features, shape):
    codec = Codec(profile, [8], [8])
    planes = codec.shape.planes(features)
    for scale in (0.5, 1.0, 2.0):
        t = torch.full((len(features),), float(np.log2(scale)))
        with torch.no_grad():
            decoded, bits = codec(planes, t)
        wanted = np.concatenate([plain(profile).symbols(f, scale) for f in codec.shape.samples(features)])
        symbols = codec.symbols(planes, float(np.log2(scale))).numpy()
        assert wanted.shape == symbols.shape and np.abs(wanted).sum() > 0
        # What is left is the rounding to 16 bits.
        assert (wanted != symbols).mean() < 0.005 and np.abs(wanted - symbols).max() <= 1
        made = codec.shape.features(decoded)
        assert made.shape == features.shape == (len(features), *shape)
        encoder, decoder = narrows.Encoder(plain(profile)), narrows.Decoder(plain(profile))
        library = np.stack([
            decoder.decode(encoder.encode(f, scale=scale)).reshape(shape) for f in codec.shape.samples(features)
        ])
        error = np.sqrt(np.square(library - made.numpy()).mean() / np.square(library).mean())
        assert error < 0.02
        assert (bits > 0).all()


def test_the_start_is_the_profile(profile, features):
    start_is_the_profile(profile, features[:12], (8, 8, 8))


def test_the_start_is_the_profile_without_matrices(features):
    bare = narrows.fit([f[None] for f in features], transforms="identity")
    assert bare.matrices == 0
    start_is_the_profile(bare, features[:12], (8, 8, 8))


def test_the_start_is_the_profile_of_tokens(features):
    tokens = features.flatten(2).movedim(1, 2).contiguous()
    start_is_the_profile(narrows.fit([f[None] for f in tokens], channel_axis=2, batch_axis=0), tokens[:12], (64, 8))
    start_is_the_profile(narrows.fit(list(tokens)), tokens[:12], (64, 8))


def test_an_untrained_draft_is_the_profile(profile, features):
    before, metadata = _tensors.read(profile.to_bytes())
    after, changed = _tensors.read(make_draft(Codec(profile), profile, features))
    for name in ("step", "mean", "matrix.forward", "matrix.inverse", "band_matrix", "range", "dct.rows"):
        assert np.array_equal(before[name].ravel(), after[name].ravel()), name
    assert changed["profile"]["exponent"] == metadata["profile"]["exponent"]
    assert after["gain"].size == 0 and changed["profile"]["analysis"] is changed["profile"]["synthesis"] is None


def mean_divergence(tail, decoded, features):
    with torch.no_grad():
        wanted, got = tail(features).log_softmax(1), tail(torch.from_numpy(decoded)).log_softmax(1)
    return float((wanted.exp() * (wanted - got)).sum(1).mean())


@pytest.fixture(scope="module")
def wasteful(samples):
    """A tail that reads two of eight channels, and a profile that knows nothing of it."""
    head, tail = network()
    with torch.no_grad():
        tail[1].weight[:, 2:] = 0
        profile = narrows.fit([f[None] for f in head(samples)], blocks=[4])
    return head, standardised(head, tail), profile


def test_training_pays(wasteful, samples, tmp_path):
    head, tail, profile = wasteful
    with torch.no_grad():
        unseen = head(pictures(64, 11))
    options = nt.TrainOptions(steps=200, evaluate_every=100, analysis=[8], synthesis=[8], learning_rate=3e-3, linear_rate=2)
    records = []
    result = nt.train(head, tail, samples, profile, options=options, progress=records.append)
    assert [record["step"] for record in records] == [0, 100, 200] and records == result.history
    assert records[-1]["best"] < 0.9 * records[0]["loss"]
    made = result.export(tmp_path / "p.safetensors")

    def curve(profile):
        points = []
        for scale in (0.6, 0.8, 1, 1.4, 2):
            decoded, size = recoded(profile, unseen, scale)
            points.append((np.log(size), np.log(mean_divergence(tail, decoded, unseen))))
        return np.array(sorted(points)).T

    # In streams of features that neither has seen: at as many bytes, smaller errors.
    (old_sizes, old), (new_sizes, new) = curve(profile), curve(made)
    first, last = max(old_sizes[0], new_sizes[0]), min(old_sizes[-1], new_sizes[-1])
    places = np.linspace(first, last, 9)
    assert first < last and (np.interp(places, new_sizes, new) - np.interp(places, old_sizes, old)).mean() < -0.2


@pytest.mark.parametrize("finetune", [False, True])
def test_interrupted_training_goes_on_to_the_bit(halves, samples, profile, tmp_path, finetune):
    options = dataclasses.replace(QUICK, tail_rate=1e-3)
    arguments = {"options": options, "finetune_tail": finetune, "augment": nt.augment_pictures}
    whole = nt.train(*halves, samples, profile, **arguments)

    class Stop(Exception):
        pass

    def stop(record):
        if record["step"] == 2:
            raise Stop

    path = tmp_path / "checkpoint"
    with pytest.raises(Stop):
        nt.train(*halves, samples, profile, checkpoint=path, progress=stop, **arguments)
    parts = nt.train(*halves, samples, profile, checkpoint=path, resume=True, **arguments)
    assert [record["loss"] for record in parts.history] == [record["loss"] for record in whole.history]
    for mine, other in ([parts.codec, whole.codec], [parts.tails[0], whole.tails[0]]):
        for name, value in other.state_dict().items():
            assert torch.equal(value, mine.state_dict()[name]), name
    # To go on for longer is allowed.
    longer = {**arguments, "options": dataclasses.replace(options, steps=5)}
    assert nt.train(*halves, samples, checkpoint=path, resume=True, **longer).history[-1]["step"] == 5
    with pytest.raises(narrows.InvalidInput, match="another network"):
        nt.train(*halves, samples, checkpoint=path, resume=True, **{**arguments, "finetune_tail": not finetune})
    path.write_bytes(b"something else")
    with pytest.raises(narrows.InvalidInput, match="is no checkpoint"):
        nt.train(*halves, samples, checkpoint=path, resume=True, **arguments)
    path.unlink()
    nt.train(*halves, samples, profile, checkpoint=path, options=dataclasses.replace(options, steps=0))
    with pytest.raises(narrows.InvalidInput, match="other options: batch"):
        nt.train(*halves, samples, checkpoint=path, resume=True, options=dataclasses.replace(options, batch=9))


def test_seeds_decide(halves, samples, profile):
    def loss(seed):
        return nt.train(*halves, samples, profile, options=dataclasses.replace(QUICK, seed=seed)).history[-1]["loss"]

    state = torch.random.get_rng_state()
    assert loss(1) == loss(1) != loss(2)
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's own random numbers are left alone"


def test_exported_symbols_are_exact(trained, features, tmp_path):
    path = tmp_path / "p.safetensors"
    made = trained.export(path)
    assert narrows.Profile.load(path) == made and made.is_exact
    assert made.analysis["arithmetic"] == "integer" and made.analysis["macs"] == 64 * (2 * 8 * 8 + 9 * 8)
    assert made.synthesis["macs"] == made.analysis["macs"] and f"trained for {MOVING.steps} steps" in made.notes
    scalars = _tensors.read(made.to_bytes())[1]["profile"]
    assert scalars["version"] == 2 and len(scalars["analysis"]["nodes"]) == 3
    # Also where the quality index meets its bounds, between anchors, and beyond what was trained.
    found = nt.verify(made, features[:6], codec=trained.codec, qualities=[-8, -5, -1, -0.28125, 0, 0.71875, 1, 2, 5, 8])
    assert found.equal and found.symbols == 10 * 6 * made.symbols(features[0]).size
    found = trained.verified
    assert found.equal and found.float_nonzero_equal > 0.9 and found.float_distance < 0.2
    assert json.loads(json.dumps(found.to_dict()))["equal"] is True


def test_integers_mean_what_was_trained(profile, features):
    """Parameters that are large everywhere, so that each of them shows in the symbols."""
    codec = Codec(profile, [8, 12], [8])
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        codec.gains.normal_(0, 0.3, generator=generator)
        codec.means.add_(torch.randn(codec.means.shape, generator=generator))
        for branch in [*codec.analysis, *codec.synthesis]:
            for parameter in branch.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            branch.quality.normal_(0, 0.5, generator=generator)
    draft = narrows.Profile.assemble(make_draft(codec, profile, features))
    made = draft.refit(codec.shape.samples(features))
    for quality in (-1.5, -0.5, 0.0, 0.5, 1.0, 2.0):
        found = nt.verify(made, features[:8], codec=codec, qualities=[quality])
        assert found.equal and found.float_nonzero_equal > 0.88 and found.float_distance < 0.15, found


def test_features_beyond_those_of_calibration_are_exact(trained, features, tmp_path):
    made = trained.export(tmp_path / "p.safetensors")
    wild = features[:3] * torch.tensor([100.0, 1e30, -1e-3]).reshape(-1, 1, 1, 1)
    wild[0, 0, 0, 0] = float("nan")
    wild[1, 2, 1, 1] = float("-inf")
    assert nt.verify(made, wild, qualities=[-1, 0, 1]).equal


def test_a_difference_is_noticed(trained, tmp_path, monkeypatch):
    symbols = nt.IntegerCodec.symbols
    monkeypatch.setattr(nt.IntegerCodec, "symbols", lambda *arguments: symbols(*arguments) + 1)
    path = tmp_path / "p.safetensors"
    with pytest.raises(nt.Mismatch, match="differ"):
        trained.export(path)
    assert not path.exists()


def test_qualities(trained, features, profile, tmp_path):
    made = trained.export(tmp_path / "p.safetensors")
    assert trained.codec.gains.abs().max() > 0, "gains were trained"
    constants = [node["quality"] for node in _tensors.read(made.to_bytes())[1]["profile"]["analysis"]["nodes"]]
    assert constants == [True, False, False] and trained.codec.analysis[0].quality.abs().max() > 0
    sizes, errors = [], []
    for scale in (0.25, 0.5, 1.0, 2.0, 4.0):
        decoded, size = recoded(made, features[:16], scale)
        sizes.append(size)
        errors.append(float(np.square(decoded - features[:16].numpy()).mean()))
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)
    assert sizes[0] > 1.5 * sizes[-1]
    encoder = narrows.Encoder(made)
    assert len(encoder.encode(features[:1].numpy(), bytes=90)) <= 90


def test_without_networks(halves, samples, profile, features, tmp_path):
    options = nt.TrainOptions(preset="none", steps=10, evaluate_every=5, batch=8)
    result = nt.train(*halves, samples, profile, options=options)
    made = result.export(tmp_path / "p.safetensors", samples[:40])
    assert made.analysis is None and made.synthesis is None and result.verified.equal
    assert made != profile and recoded(made, features[:2], 1)[0].shape == (2, 8, 8, 8)


@pytest.mark.parametrize("ends", [([8], []), ([], [8, 8])])
def test_a_network_at_one_end(halves, samples, profile, tmp_path, ends):
    options = dataclasses.replace(QUICK, analysis=ends[0], synthesis=ends[1], learning_rate=1e-2)
    result = nt.train(*halves, samples, profile, options=options)
    made = result.export(tmp_path / "p.safetensors")
    assert [made.analysis is not None, made.synthesis is not None] == [bool(end) for end in ends]
    assert result.verified.equal and result.verified.float_distance < 0.2


def test_presets_keep_their_budgets(halves, samples, profile):
    head, tail = halves
    own = nt.count_macs(head, samples)
    assert own == 64 * (27 * 8 + 72 * 8)
    whole = own + nt.count_macs(tail, head(samples[:1]))
    assert whole - own == 16 * 72 * 12 + 192 * 5
    for preset, share in [("small", 0.5), ("default", 1)]:
        options = nt.TrainOptions(preset=preset, steps=0, macs_budget=0.8, synthesis_budget=0.9)
        result = nt.train(head, tail, samples, profile, options=options)
        for branches, budget in [(result.codec.analysis, own * 0.8), (result.codec.synthesis, whole * 0.9)]:
            assert 0.6 * share * budget < sum(branch.macs(64) for branch in branches) <= share * budget

    def depths(share):
        options = nt.TrainOptions(steps=0, macs_budget=share, synthesis_budget=share)
        codec = nt.train(head, tail, samples, profile, options=options).codec
        return len(codec.analysis), len(codec.synthesis)

    # Deep ones only where they are wide enough, none where they would have next to no channels.
    assert [depths(share) for share in (2, 0.4, 0.01)] == [(2, 3), (1, 2), (0, 0)]


def test_several_tails(halves, samples, profile, tmp_path):
    head, tail = halves
    other = standardised(head, network(5)[1])
    options = dataclasses.replace(QUICK, tail_weights=[1, 2])
    both = nt.train(head, [tail, other], samples, profile, options=options)
    one = nt.train(head, tail, samples, profile, options=QUICK)
    two = nt.train(head, other, samples, profile, options=QUICK)
    at = [result.history[0]["points"][2]["distortion"] for result in (both, one, two)]
    assert at[0] == pytest.approx(at[1] + 2 * at[2], rel=1e-4)
    assert len(both.tails) == 2 and both.export(tmp_path / "p.safetensors").is_exact


def test_tails_are_left_alone_unless_asked_for(wasteful, samples, tmp_path):
    head, tail, profile = wasteful
    before = {name: value.clone() for name, value in tail.state_dict().items()}
    options = dataclasses.replace(MOVING, tail_rate=1e-3)
    kept = nt.train(head, tail, samples, profile, options=options)
    tuned = nt.train(head, tail, samples, profile, options=options, finetune_tail=True)
    assert kept.tails[0] is tail and tuned.tails[0] is not tail
    assert all(torch.equal(value, before[name]) for name, value in tail.state_dict().items())
    assert not torch.equal(tuned.tails[0][-1].weight, tail[-1].weight)
    with pytest.raises(narrows.InvalidInput, match="number 1"):
        tuned.export_tail(tmp_path / "tail.onnx", 1)


@pytest.mark.filterwarnings("ignore")
def test_tails_become_onnx(wasteful, samples, features, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    options = dataclasses.replace(MOVING, tail_rate=1e-3)
    head, tail, profile = wasteful
    tuned = nt.train(head, tail, samples, profile, options=options, finetune_tail=True)
    path = tmp_path / "tail.onnx"
    tuned.export_tail(path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"feature": features[:5].numpy()})
    with torch.no_grad():
        wanted, other = tuned.tails[0](features[:5]).numpy(), tail(features[:5]).numpy()
    assert np.abs(logits - wanted).max() < 1e-3 < np.abs(wanted - other).max()


@pytest.fixture
def onnx_network(halves, tmp_path, recwarn):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    import inspect

    options = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    path = tmp_path / "net.onnx"
    torch.onnx.export(nn.Sequential(*halves), (pictures(1),), str(path), input_names=["x"], output_names=["y"], **options)
    cut = [node.output[0] for node in onnx.load(str(path)).graph.node if node.op_type == "Conv"][1]
    return path, cut


@pytest.mark.filterwarnings("ignore")
def test_onnx_networks_are_cut(halves, onnx_network):
    path, name = onnx_network
    head, tail, shape = nt.cut_onnx(path, name)
    x = pictures(1)
    with torch.no_grad():
        assert torch.allclose(head(x), halves[0](x), atol=1e-5)
        assert torch.allclose(tail(head(x)), halves[1](halves[0](x)), atol=1e-4)
    assert shape == (1, 3, 16, 16)
    with pytest.raises(narrows.InvalidInput, match="no tensor 'absent'"):
        nt.cut_onnx(path, "absent")
    with pytest.raises(narrows.InvalidInput, match="no file"):
        nt.cut_onnx(path.with_suffix(".none"), name)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(ImportError, match="pip install onnx onnx2torch"):
        nt.cut_onnx("net.onnx", "cut")


@pytest.mark.filterwarnings("ignore")
def test_the_command(onnx_network, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = [f"{i}.png" for i in range(24)]
    for name, picture in zip(names, pictures(24)):
        pixels = ((picture.movedim(0, 2) * 60 + 128).clamp(0, 255)).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n" + "".join(f"{name},0\n" for name in names))
    out = tmp_path / "out.safetensors"
    # fmt: off
    command = [sys.executable, "-m", "narrows.train", "--model", onnx_network[0], "--cut", onnx_network[1], "--images", folder,
               "--labels", labels, "--rows", "1-20", "--normalize", "unit", "-o", out, "--steps", "2", "--evaluate-every", "1",
               "--analysis", "4", "--synthesis", "4", "--threads", "1", "--batch", "4"]
    # fmt: on
    first = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("step ") == 3 and "as those of the integer model" in first.stdout
    made = narrows.Profile.load(out)
    assert made.analysis and made.synthesis
    command[command.index("--steps") + 1] = "3"
    again = subprocess.run([str(word) for word in [*command, "--resume"]], capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.count("step ") == 1, again.stderr
    command[command.index("--cut") + 1] = "absent"
    wrong = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=tmp_path)
    assert wrong.returncode == 1 and wrong.stderr == "error: the network has no tensor 'absent'\n"


def test_samples_of_every_kind(halves, samples, profile):
    class Labelled(torch.utils.data.Dataset):
        def __len__(self):
            return len(samples)

        def __getitem__(self, number):
            return samples[number], 0

    losses = {
        nt.train(*halves, kind, profile, options=QUICK).history[-1]["loss"]
        for kind in [samples, Labelled(), list(samples), (sample.numpy() for sample in samples)]
    }
    losses |= {
        nt.train(*halves, samples, profile, options=dataclasses.replace(QUICK, cache_bytes=0)).history[-1]["loss"]
    }
    # Batches of another size, where nothing is kept, may round otherwise.
    assert max(losses) - min(losses) < 1e-4 * max(losses) and len(losses) <= 2


def test_the_profile_is_fitted_if_there_is_none(halves, samples):
    result = nt.train(*halves, samples, options=dataclasses.replace(QUICK, steps=0))
    assert result.profile == nt.fit_profile(*halves, samples, seed=QUICK.seed) and "weight" in result.profile.notes


def test_a_loss_of_ones_own(halves, samples, profile):
    def squares(student, teacher):
        return (student - teacher).square().mean(1)

    own = nt.train(*halves, samples, profile, options=QUICK, distortion=squares)
    twice = nt.train(*halves, samples, profile, options=QUICK, distortion=lambda a, b: 2 * squares(a, b))
    usual = nt.train(*halves, samples, profile, options=QUICK)
    first = [result.history[0]["points"][0]["distortion"] for result in (own, twice, usual)]
    assert first[1] == pytest.approx(2 * first[0]) and first[2] != pytest.approx(first[0], rel=0.01)


def test_training_stops_early(halves, samples, profile):
    options = dataclasses.replace(QUICK, steps=50, evaluate_every=1, patience=2, learning_rate=10.0, ema=0.0)
    result = nt.train(*halves, samples, profile, options=options)
    assert 2 <= result.history[-1]["step"] < 50
    # What is kept is the best, here the start.
    assert result.history[-1]["best"] == min(record["loss"] for record in result.history)


def test_calls_that_make_no_sense(halves, samples, profile, features, trained, tmp_path):
    head, tail = halves
    for change, message in [
        ({"preset": "large"}, "preset is"),
        ({"steps": -1}, "steps"),
        ({"batch": 0}, "batch"),
        ({"held_out": 1.0}, "held_out"),
        ({"qualities": (1.0, 0.0)}, "qualities"),
        ({"analysis": [0]}, "widths"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"tail_weights": [1, 1]}, "2 tail_weights for 1 tails"),
    ]:
        with pytest.raises(narrows.InvalidInput, match=message):
            nt.train(head, tail, samples, profile, options=dataclasses.replace(QUICK, **change))
    for arguments, message in [
        ((head, [], samples, profile), "no tail"),
        ((head, tail, samples[:0], profile), "no samples"),
        ((head, tail, samples[:1], profile), "at least 2 samples"),
        ((head, lambda x: x, samples, profile), "a tail is a torch.nn.Module, not function"),
        ((head, nn.Sequential(tail, nn.Flatten(0)), samples, profile), "one row of logits"),
        ((nn.Sequential(head, nn.AvgPool2d(2)), tail, samples, profile), r"shape \(8, 4, 4\), the profile is for \(8, 8, 8\)"),
        ((head, tail, ["a", "b"], profile), "sample . is no tensor"),
        ((head, tail, samples, trained.export(tmp_path / "p.safetensors")), "has networks"),
    ]:
        with pytest.raises(narrows.InvalidInput, match=message):
            nt.train(*arguments, options=QUICK)
    with pytest.raises(narrows.InvalidInput, match="resume wants a checkpoint"):
        nt.train(head, tail, samples, profile, options=QUICK, resume=True)
    with pytest.raises(narrows.InvalidInput, match="one batch item"):
        Codec(narrows.fit([torch.cat([f[None], f[None]]) for f in features]))


def test_weights_of_eight_bits():
    weight = torch.randn(6, 9, 3, 3) * torch.logspace(-6, 2, 6).reshape(-1, 1, 1, 1)
    integers, scale = to_int8(weight)
    assert integers.abs().max() == 127 and torch.equal(integers, integers.round())
    assert torch.allclose(fake_int8(weight), integers * scale.reshape(-1, 1, 1, 1))
    assert to_int8(torch.zeros(2, 3, 1, 1))[0].abs().sum() == 0
    wide, _ = to_int8(torch.ones(1, 4000, 1, 1))
    assert 32_768 * wide.sum() < 2**31, "sums fit 32 bits"
    parameter = weight.clone().requires_grad_(True)
    fake_int8(parameter).sum().backward()
    assert torch.equal(parameter.grad, torch.ones_like(weight))


def test_shifts_round():
    values = torch.tensor([-6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6])
    assert round_shift(values, 2).tolist() == [-1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2]
    assert torch.equal(round_shift(values, 0), values)


def test_requantisation():
    for size in (1e-3, 1.0, 1e4, 1e9):
        ratio = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64) * 20_000 / size
        first, second, multiplier = requantisation(ratio, torch.tensor([size] * 3))
        assert size / 2**first <= 32_767 and 0 <= first <= 30 and 0 <= second <= 30 and 0 <= multiplier.min() and multiplier.max() <= 32_767
        if size >= 1e4:
            sums = torch.tensor([size, -size / 3, size / 5]).round().to(torch.int64)
            made = (((sums >> first) * multiplier.to(torch.int64)) >> second).double()
            assert torch.allclose(made, sums * ratio, atol=4, rtol=1e-3)
