"""Proves that encoding, decoding and fitting let other threads run, and that threads may share encoders and decoders."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import narrows


def lets_others_run(call, most):
    """Whether another thread gets its turn within some calls.

    The interpreter is told not to take turns by itself, so the thread runs only if a call lets go of the GIL.
    """
    ran, go = threading.Event(), threading.Lock()
    go.acquire()

    def other():
        with go:
            ran.set()

    before = sys.getswitchinterval()
    thread = threading.Thread(target=other)
    thread.start()
    sys.setswitchinterval(1000)
    try:
        go.release()
        for _ in range(most):
            call()
            if ran.is_set():
                return True
        return False
    finally:
        sys.setswitchinterval(before)
        thread.join()


def test_the_gil_is_released(make):
    feature = make(shape=(64, 64, 64))
    encoder, decoder, out = narrows.Encoder(), narrows.Decoder(), np.empty_like(feature)
    stream = encoder.encode(feature)
    samples = [make(seed, (2, 8, 8)) for seed in range(8)]
    assert not lets_others_run(lambda: sum(range(100_000)), 100), "a call that keeps the GIL is seen"
    assert lets_others_run(lambda: encoder.encode(feature), 5_000)
    assert lets_others_run(lambda: decoder.decode(stream), 5_000)
    assert lets_others_run(lambda: decoder.decode_into(stream, out), 5_000)
    assert lets_others_run(lambda: narrows.fit(samples), 500)


def test_threads_share_encoders_and_decoders(make, waves):
    features = [make(seed, (1 + seed % 3, 6, 8 + seed % 5, 8)) for seed in range(60)]
    encoder, decoder = narrows.Encoder(waves), narrows.Decoder([waves])
    wanted = [narrows.encode(feature, waves, scale=0.3) for feature in features]
    shapes = threading.Barrier(8)

    def there_and_back(start):
        shapes.wait()
        for index in [(start * 7 + i) % len(features) for i in range(len(features))]:
            stream = encoder.encode(features[index], scale=0.3)
            assert stream == wanted[index]
            out = np.empty_like(features[index])
            decoder.decode_into(stream, out)
            assert np.array_equal(out, decoder.decode(stream))
        return start

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(there_and_back, range(8))) == list(range(8))
