"""The public client of Triton (`pip install tritonclient[grpc]`) against `narrows serve`, unchanged.

    python tests/link/triton.py NARROWS

Starts a server on the demo network, asks everything that the client can ask, and compares answers.
"""

import queue
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

NARROWS = sys.argv[1]
DEMO = Path(__file__).parents[2] / "demo"


def tensor(name, datatype, array):
    given = triton.InferInput(name, array.shape, datatype)
    given.set_data_from_numpy(array)
    return given


def strings(*items):
    return np.array(items, dtype=np.object_)


def fails(call, *words):
    try:
        call()
    except InferenceServerException as error:
        text = f"{error.status()} {error.message()}"
        assert all(word in text for word in words), text
        return
    raise AssertionError(f"no error; wanted: {words}")


def check(client, folder):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("demo") and client.is_model_ready("demo.whole")
    assert client.get_server_metadata().name == "narrows"
    model = client.get_model_metadata("demo")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [
        ("stream", "BYTES", [-1]),
        ("feature", "FP32", [-1, 128, 8, 8]),
    ]
    assert [t.name for t in model.outputs] == ["logits", "class"]

    # A feature as it is, and as a stream.
    rng = np.random.default_rng(1)
    waves = np.arange(8)[:, None] * rng.normal(size=128)[:, None, None] + np.arange(8) * 0.3
    feature = np.maximum(np.sin(waves), 0).astype(np.float32)[None]
    np.save(folder / "feature.npy", feature)
    profile = DEMO / "profile.safetensors"
    stream = folder / "feature.nrw"
    subprocess.run([NARROWS, "encode", folder / "feature.npy", "--profile", profile, "--scale", "0.1", "-o", stream], check=True)
    raw = client.infer("demo", [tensor("feature", "FP32", feature)])
    coded = client.infer("demo", [tensor("stream", "BYTES", strings(stream.read_bytes()))])
    assert raw.as_numpy("logits").shape == (1, 10)
    assert np.abs(raw.as_numpy("logits") - coded.as_numpy("logits")).max() < 0.3
    assert raw.as_numpy("class")[0] == raw.as_numpy("logits").argmax()

    # Batches, chosen outputs, request ids.
    batch = strings(*[stream.read_bytes()] * 3)
    answer = client.infer(
        "demo",
        [tensor("stream", "BYTES", batch)],
        outputs=[triton.InferRequestedOutput("logits")],
        request_id="17",
        client_timeout=10,
    )
    assert answer.as_numpy("logits").shape == (3, 10) and answer.as_numpy("class") is None
    assert answer.get_response().id == "17"
    assert np.allclose(answer.as_numpy("logits"), coded.as_numpy("logits"))

    # Images, to the whole network.
    labels = (folder / "demo" / "labels.csv").read_text().split()[1:101]
    images = [(folder / "demo" / "images" / line.split(",")[0]).read_bytes() for line in labels]
    right = 0
    for i in range(0, 100, 10):
        answer = client.infer("demo.whole", [tensor("image", "BYTES", strings(*images[i : i + 10]))])
        right += sum(int(line.split(",")[1]) == c for line, c in zip(labels[i : i + 10], answer.as_numpy("class")))
    assert right > 85, right

    # Without waiting for each answer, and on a streaming call.
    seen = queue.Queue()
    for _ in range(8):
        client.async_infer("demo", [tensor("feature", "FP32", feature)], lambda result, error: seen.put((result, error)))
    for _ in range(8):
        result, error = seen.get(timeout=20)
        assert error is None and np.allclose(result.as_numpy("logits"), raw.as_numpy("logits"))
    client.start_stream(lambda result, error: seen.put((result, error)))
    for i in range(5):
        client.async_stream_infer("demo", [tensor("stream", "BYTES", strings(stream.read_bytes()))], request_id=str(i))
        result, error = seen.get(timeout=20)
        assert error is None and result.get_response().id == str(i)
    client.async_stream_infer("demo", [tensor("stream", "BYTES", strings(b"no stream"))], request_id="bad")
    result, error = seen.get(timeout=20)
    assert "INVALID_ARGUMENT" in error.message(), error
    client.stop_stream()

    # Mistakes.
    fails(lambda: client.get_model_metadata("none"), "NOT_FOUND", "demo.whole")
    fails(lambda: client.infer("demo", [tensor("stream", "BYTES", strings(b"hello"))]), "INVALID_ARGUMENT", "not a narrows stream")
    fails(lambda: client.infer("demo", [tensor("feature", "FP32", feature[:, :64])]), "INVALID_ARGUMENT", "[n, 128, 8, 8]")
    fails(
        lambda: client.infer("demo", [tensor("feature", "FP32", np.zeros((200, 128, 8, 8), np.float32))]),
        "RESOURCE_EXHAUSTED",
        "fewer items",
    )


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([NARROWS, "demo", "--export", folder / "demo"], check=True, stderr=subprocess.DEVNULL)
        network = ["--model", folder / "demo" / "network.onnx", "--model-output", "logits", "--cut", "stage3.0.out"]
        server = subprocess.Popen(
            [NARROWS, "serve", *network, "--profile", DEMO / "profile.safetensors", "--name", "demo", "--whole"]
            + ["--normalize", "cifar10", "--listen", "127.0.0.1:0", "--log", "error"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            word, address = server.stdout.readline().split()
            assert word == "listening"
            with triton.InferenceServerClient(address) as client:
                check(client, folder)
        finally:
            server.terminate()
            assert server.wait(timeout=40) == 0
    print("tritonclient: everything as it should be")


main()
