"""Proves that fits take samples, gradients, tails and progress from Python, and end with what those raise."""

import signal
import threading

import numpy as np
import pytest

import narrows


@pytest.fixture(scope="module")
def samples(make):
    return [make(seed, (4, 8, 8)) for seed in range(16)]


def test_samples_of_any_kind(samples, distance):
    profile = narrows.fit(samples)
    assert profile.shape == (4, 8, 8) and profile.dtype == "f32" and "16 samples" in profile.notes
    assert narrows.fit(np.stack(samples)) == narrows.fit(iter(samples)) == narrows.fit(tuple(samples)) == profile
    decoded = narrows.decode(narrows.encode(samples[0], profile, scale=0.1), profile)
    assert distance(samples[0], decoded) < 0.1
    # The profile is worth its name: fewer bytes than without it, at no more distortion.
    stream = narrows.encode(samples[3], profile)
    mine = distance(samples[3], narrows.decode(stream, profile))
    plain = narrows.encode(samples[3], sqnr=-20 * np.log10(mine))
    assert len(stream) < len(plain)


def test_samples_that_are_loaded_when_asked_for(samples):
    class Lazy:
        asked = 0

        def __len__(self):
            return len(samples)

        def __getitem__(self, index):
            if not 0 <= index < len(samples):
                raise IndexError(index)
            Lazy.asked += 1
            return samples[index]

    assert narrows.fit(Lazy()) == narrows.fit(samples)
    assert Lazy.asked > len(samples), "samples are asked for several times"


def test_other_element_types_and_axes(samples):
    profile = narrows.fit([sample.astype(np.float16).transpose(1, 2, 0) for sample in samples], channel_axis=-1)
    assert (profile.dtype, profile.shape, profile.channel_axis, profile.batch_axis) == ("f16", (8, 8, 4), 2, None)
    profile = narrows.fit([sample[None] for sample in samples])
    assert (profile.shape, profile.batch_axis) == ((1, 4, 8, 8), 0)
    assert narrows.fit([sample[None] for sample in samples], batch_axis=None).batch_axis is None


def test_options(samples):
    profile = narrows.fit(samples, transforms="identity")
    assert profile.matrices == 0 and profile.block == (1, 1)
    assert narrows.fit(samples, blocks=[4]).block in [(4, 4), (1, 1)]
    fine, coarse = narrows.fit(samples, target=0.001), narrows.fit(samples, target=0.3)
    assert len(narrows.encode(samples[0], fine)) > len(narrows.encode(samples[0], coarse))
    for options in [{"weights": "heavy"}, {"transforms": "some"}, {"weights": "probe"}, {"weights": "gradients"}]:
        with pytest.raises(narrows.InvalidInput):
            narrows.fit(samples, **options)


def test_samples_that_do_not_do(samples):
    with pytest.raises(narrows.InvalidInput, match="at least 8 sample features.*there are 7"):
        narrows.fit(samples[:7])
    with pytest.raises(narrows.InvalidInput, match="at least 8"):
        narrows.fit([])
    with pytest.raises(narrows.InvalidInput, match="sample 9 has shape"):
        narrows.fit(samples[:9] + [samples[9][:, :4]] + samples[10:])
    with pytest.raises(TypeError, match="not float64"):
        narrows.fit([sample.astype(np.float64) for sample in samples])
    with pytest.raises(TypeError):
        narrows.fit(7)


def test_gradients(samples):
    random = np.random.default_rng(0)
    # Only the first channel matters.
    gradients = random.standard_normal((len(samples), 3, 4, 8, 8)).astype(np.float32)
    gradients[:, :, 1:] *= 0.01
    profile = narrows.fit(samples, gradients=gradients)
    assert "gradient samples" in profile.notes and profile != narrows.fit(samples)
    assert narrows.fit(samples, gradients=[list(entry) for entry in gradients]) == profile
    assert narrows.fit(samples, gradients=gradients, weights="unweighted") != profile
    first = narrows.fit(samples, gradients=gradients[:, 0])
    assert first == narrows.fit(samples, gradients=gradients[:, :1]) != profile
    decoded = narrows.decode(narrows.encode(samples[0], profile), profile)
    wrong = ((decoded - samples[0]) ** 2).mean((1, 2))
    assert wrong[0] < wrong[1:].mean(), "what matters is kept better"
    with pytest.raises(narrows.InvalidInput, match="15 gradients for 16 samples"):
        narrows.fit(samples, gradients=gradients[:15])
    for shape in [(4, 8, 4), (1, 4, 8, 8), (4, 8), (8, 8, 4)]:
        others = [[np.ones(shape, np.float32)]] * len(samples)
        with pytest.raises(narrows.InvalidInput, match="a gradient of sample"):
            narrows.fit(samples, gradients=others)
    with pytest.raises(narrows.InvalidInput, match="a gradient of sample"):
        narrows.fit(samples, gradients=[np.ones((2, 3, 4, 8, 8), np.float32)] * len(samples))


def make_tail(channels=4, axis=1):
    weight = np.random.default_rng(1).standard_normal((channels, 5)).astype(np.float32)

    def tail(batch):
        assert isinstance(batch, np.ndarray) and batch.dtype == np.float32 and batch.shape[1:] == (4, 8, 8)
        tail.batches.append(len(batch))
        return batch.mean((2, 3)) @ weight

    tail.batches = []
    return tail


def test_tails(samples):
    tail = make_tail()
    profile = narrows.fit(samples, tail=tail)
    assert "probing" in profile.notes and max(tail.batches) > 1
    # Features with a batch axis are joined along it, those without are stacked: the tail sees the same.
    other = make_tail()
    batched = narrows.fit([sample[None] for sample in samples], tail=other)
    assert other.batches == tail.batches and batched.shape == (1, 4, 8, 8)
    # Answers of other types.
    assert narrows.fit(samples, tail=lambda batch: make_tail()(batch).astype(np.float64)) == profile
    assert narrows.fit(samples, tail=lambda batch: make_tail()(batch).tolist()) == profile


def test_tails_that_do_not_answer(samples):
    for answer in [
        lambda batch: np.zeros((len(batch) + 1, 5)),
        lambda batch: np.zeros(5),
        lambda batch: np.zeros((len(batch), 0)),
        lambda batch: np.full((len(batch), 5), np.nan),
    ]:
        with pytest.raises(narrows.InvalidInput, match="logits"):
            narrows.fit(samples, tail=answer)
    with pytest.raises((TypeError, ValueError)):
        narrows.fit(samples, tail=lambda batch: None)


def test_progress(samples):
    calls = []
    narrows.fit(samples, progress=lambda stage, done, total: calls.append((stage, done, total)))
    assert len({stage for stage, _, _ in calls}) >= 2
    assert all(isinstance(stage, str) and 0 <= done <= total for stage, done, total in calls)


class Mine(Exception):
    pass


def test_exceptions_come_out_as_they_were_raised(samples):
    mine = Mine("mine")

    def fail(*args):
        raise mine

    class Failing(list):
        def __getitem__(self, index):
            return fail() if index == 11 else samples[index]

    gradients = [np.ones((4, 8, 8), np.float32)] * len(samples)
    for call in [
        lambda: narrows.fit(samples, tail=fail),
        lambda: narrows.fit(samples, progress=fail),
        lambda: narrows.fit(Failing(samples)),
        lambda: narrows.fit(samples, gradients=Failing(gradients)),
    ]:
        with pytest.raises(Mine) as caught:
            call()
        assert caught.value is mine and caught.value.__traceback__ is not None

    calls = []
    # Python has no handler where it was started with the signal ignored, as background jobs are.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            narrows.fit(samples, progress=lambda *args: [calls.append(args), signal.raise_signal(signal.SIGINT)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) == 1, "nothing is called after an exception"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_signals_end_a_fit_that_runs_no_python_code(make):
    samples = [make(seed, (16, 16, 16)) for seed in range(64)]
    # No Python code runs in this fit, so the interpreter itself does not look for signals, and they would come as one
    # when it is over.
    ticks = []

    def handler(number, frame):
        ticks.append(number)
        if len(ticks) == 6:
            raise Mine

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Mine):
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            narrows.fit(samples)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_run_during_a_fit(samples):
    """The fit waits for a thread from within a callback; the thread must get its turn."""
    asked, answered = threading.Event(), threading.Event()

    def answer():
        asked.wait(60)
        answered.set()

    def progress(*args):
        asked.set()
        assert answered.wait(60)

    thread = threading.Thread(target=answer)
    thread.start()
    narrows.fit(samples, progress=progress)
    thread.join()
