"""Proves that bfloat16, which NumPy does not have, goes through every door."""

import subprocess
import sys

import numpy as np
import pytest

import narrows


def words(count=600):
    """The bits of numbers of all sizes, zeros, infinities and numbers that are none."""
    return np.random.default_rng(0).integers(0, 1 << 16, count).astype(np.uint16)


def test_numpy():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for array in [words().view(ml_dtypes.bfloat16), words().reshape(20, 30).view(ml_dtypes.bfloat16).T[::-1, ::3]]:
        decoded = narrows.decode(narrows.encode(array, mode="lossless"))
        assert decoded.dtype == ml_dtypes.bfloat16
        assert np.array_equal(decoded.view(np.uint16), array.view(np.uint16))
        out = np.zeros_like(array)
        narrows.Decoder().decode_into(narrows.encode(array, mode="lossless"), out)
        assert np.array_equal(out.view(np.uint16), array.view(np.uint16))


def test_dlpack_there_and_back(vectors):
    stream = (vectors / "2-lossless-bf16.stream").read_bytes()
    tensor = narrows.decode(stream, out="dlpack")
    assert tensor.dtype == "bfloat16" and tensor.shape == (6, 7, 8) and "bfloat16" in repr(tensor)
    for _ in range(2):
        again = narrows.encode(tensor, mode="lossless")
        ml_dtypes = pytest.importorskip("ml_dtypes")
        assert narrows.decode(again).dtype == ml_dtypes.bfloat16
        assert narrows.decode(again).tobytes() == (vectors / "2-lossless-bf16.feature").read_bytes()


def test_without_ml_dtypes_the_error_says_what_to_do(vectors, tmp_path):
    program = f"""
import sys
sys.modules["ml_dtypes"] = None
import narrows
stream = open({str(vectors / "2-lossless-bf16.stream")!r}, "rb").read()
try:
    narrows.decode(stream)
except ImportError as error:
    assert "ml_dtypes" in str(error) and 'out="torch"' in str(error), error
else:
    raise SystemExit("no error")
assert narrows.decode(stream, out="dlpack").dtype == "bfloat16"
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
