"""Proves that arrays are taken from whoever has them, without copies, and that others are refused in clear words."""

import array
import tracemalloc

import numpy as np
import pytest

import narrows


class Wrapped:
    """An array behind some of the protocols."""

    def __init__(self, values, *protocols, device=(1, 0)):
        self.values, self.device = values, device
        for name in protocols:
            setattr(type(self), name, getattr(self, "_" + name.strip("_")))

    @classmethod
    def of(cls, values, *protocols, **options):
        return type("Wrapped", (cls,), {})(values, *protocols, **options)

    def _array(self, *args, **kwargs):
        return np.asarray(self.values)

    def _dlpack(self, **options):
        return self.values.__dlpack__(**options)

    def _dlpack_device(self):
        return self.device


def lossless(feature):
    return narrows.decode(narrows.encode(feature, mode="lossless"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_protocols(make, dtype):
    values = (make() * 20).astype(dtype)
    values = np.abs(values) if dtype == "uint8" else values
    interface = type("Interface", (), {"__array_interface__": values.__array_interface__, "owner": values})()
    sources = [
        Wrapped.of(values, "__array__"),
        Wrapped.of(values, "__dlpack__", "__dlpack_device__"),
        Wrapped.of(values.transpose(1, 3, 0, 2), "__dlpack__", "__dlpack_device__"),
        interface,
        memoryview(values),
    ]
    for source in sources:
        wanted = np.asarray(source.values if isinstance(source, Wrapped) else values)
        decoded = lossless(source)
        assert decoded.dtype == wanted.dtype and np.array_equal(decoded, wanted)


def test_buffers():
    assert np.array_equal(lossless(array.array("f", [1.0, -2.5])), np.float32([1, -2.5]))
    assert np.array_equal(lossless(b"\x01\x02\xff"), np.uint8([1, 2, 255]))
    assert np.array_equal(lossless(bytearray(b"\x01\x02")), np.uint8([1, 2]))


def test_arrays_that_rust_cannot_read_in_place(make):
    values = make()
    swapped = values.astype(values.dtype.newbyteorder())
    assert np.array_equal(lossless(swapped), values)
    records = np.zeros(5, np.dtype([("tag", "u1"), ("value", "f4")]))
    records["value"] = [1, -2, 3, -4, 5]
    assert np.array_equal(lossless(records["value"]), records["value"])
    offset = np.frombuffer(b"\0" + values.tobytes(), np.float32, offset=1)
    assert not offset.flags.aligned
    assert np.array_equal(lossless(offset), values.ravel())
    # Whole elements apart, but for the last axis of a record.
    halves = np.zeros((4, 3), np.dtype([("a", "f2"), ("b", "u1")]))
    halves["a"] = np.arange(12).reshape(4, 3)
    assert np.array_equal(lossless(halves["a"]), halves["a"])


def test_broadcast_arrays(make):
    values = np.broadcast_to(make(shape=(1, 6, 8, 8)), (3, 6, 8, 8))
    assert np.array_equal(lossless(values), values)


def test_other_element_types_are_refused_by_name(make):
    for other in ["float64", "int16", "bool", "complex64", "int32", "object"]:
        with pytest.raises(TypeError, match=f"float32, float16, bfloat16, int8 or uint8, not {other}"):
            narrows.encode(make().astype(other))
    source = Wrapped.of(make().astype(np.int32), "__dlpack__", "__dlpack_device__")
    with pytest.raises(TypeError, match="float32, float16, bfloat16, int8 or uint8"):
        narrows.encode(source)


def test_things_that_are_no_arrays_are_refused():
    for other, name in [([1.0, 2.0], "list"), (None, "NoneType"), ("text", "str"), (3.0, "float")]:
        with pytest.raises(TypeError, match=f"__dlpack__.*not {name}"):
            narrows.encode(other)


def test_memory_of_other_devices_is_refused(make):
    source = Wrapped.of(make(), "__dlpack__", "__dlpack_device__", "__array__", device=(2, 0))
    with pytest.raises(TypeError, match=r"\.cpu\(\)"):
        narrows.encode(source)


def test_scalars_and_long_shapes_are_invalid():
    with pytest.raises(narrows.InvalidInput, match="1 to 8 axes, this one has 0"):
        narrows.encode(np.float32(1).reshape(()))
    for rank in [9, 32]:
        with pytest.raises(narrows.InvalidInput, match=f"1 to 8 axes, this one has {rank}"):
            narrows.encode(np.zeros([1] * rank, np.float32))


def peak(call):
    """Most memory of Python and NumPy during a call."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_features_are_not_copied():
    wide = np.zeros((64, 128, 128), np.float32)
    encoder, decoder = narrows.Encoder(), narrows.Decoder()
    stream = encoder.encode(wide)
    assert peak(lambda: wide.copy()) >= wide.nbytes, "copies are seen"
    for view in [wide, wide.transpose(1, 2, 0), wide[::-1, ::2], Wrapped.of(wide, "__dlpack__", "__dlpack_device__")]:
        assert peak(lambda: encoder.encode(view)) < wide.nbytes / 16
    assert peak(lambda: decoder.decode(stream)) < wide.nbytes / 16
    out = np.empty_like(wide)
    assert peak(lambda: decoder.decode_into(stream, out)) < wide.nbytes / 16


def test_decoded_arrays_are_writable_and_on_their_own(make):
    decoder, stream = narrows.Decoder(), narrows.encode(make())
    first = decoder.decode(stream)
    first[...] = 9
    assert (decoder.decode(stream) != 9).any() and first.flags.writeable and first.flags.c_contiguous
