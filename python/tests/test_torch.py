"""Proves that PyTorch's tensors go in and come out, in every element type and memory order, and share memory."""

import numpy as np
import pytest

import narrows

torch = pytest.importorskip("torch")

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8]


def tensor(dtype, shape=(2, 6, 8, 9)):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator) * 20
    return (values.abs() if dtype == torch.uint8 else values).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_come_back(dtype):
    plain = tensor(dtype)
    orders = [
        plain,
        plain.contiguous(memory_format=torch.channels_last),
        plain.permute(0, 2, 3, 1),
        plain[:, ::2, 1:, ::3],
        plain[0, 0],
        plain[:1].expand(3, -1, -1, -1),
    ]
    for feature in orders:
        decoded = narrows.decode(narrows.encode(feature, mode="lossless"), out="torch")
        assert decoded.dtype == dtype and torch.equal(decoded, feature)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_are_encoded_as_arrays_are(dtype):
    feature = tensor(dtype)
    stream = narrows.encode(feature)
    if dtype != torch.bfloat16:
        assert stream == narrows.encode(feature.numpy())
    assert torch.equal(narrows.decode(stream, out="torch"), torch.from_dlpack(narrows.decode(stream, out="dlpack")))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_decode_into_tensors(dtype):
    feature = tensor(dtype)
    stream = narrows.encode(feature, mode="lossless")
    for out in [torch.zeros_like(feature), torch.zeros(2, 8, 9, 6, dtype=dtype).permute(0, 3, 1, 2)]:
        narrows.Decoder().decode_into(stream, out)
        assert torch.equal(out, feature)


def test_decode_into_refuses_other_tensors():
    stream = narrows.encode(tensor(torch.float32))
    for other in [torch.zeros(2, 6, 8, 9, dtype=torch.bfloat16), torch.zeros(6, 8, 9)]:
        with pytest.raises(narrows.InvalidInput):
            narrows.Decoder().decode_into(stream, other)
    with pytest.raises(narrows.InvalidInput, match="detach"):
        narrows.Decoder().decode_into(stream, torch.zeros(2, 6, 8, 9, requires_grad=True))
    with pytest.raises(TypeError, match=r"\.cpu\(\)"):
        narrows.Decoder().decode_into(stream, torch.zeros(2, 6, 8, 9, device="meta"))


def test_features_without_elements():
    feature = torch.zeros(2, 0, 3, dtype=torch.bfloat16)
    decoded = narrows.decode(narrows.encode(feature), out="torch")
    assert decoded.shape == feature.shape and decoded.dtype == feature.dtype


def test_features_in_a_graph_of_gradients():
    feature = tensor(torch.float32).requires_grad_()
    assert narrows.encode(feature * 1) == narrows.encode(feature.detach())


def test_tensors_of_other_devices_are_refused():
    with pytest.raises(TypeError, match=r"meta.*\.cpu\(\)"):
        narrows.encode(torch.zeros(1, 2, 3, device="meta"))


def test_other_element_types_are_refused_by_name():
    for dtype in [torch.float64, torch.int32, torch.int16, torch.complex64, torch.bool]:
        with pytest.raises(TypeError, match=f"float32, float16, bfloat16, int8 or uint8, not {dtype}"):
            narrows.encode(torch.zeros(1, 2, 3, dtype=dtype))


def test_decoded_tensors_share_the_memory_of_what_they_are_made_from():
    exported = narrows.decode(narrows.encode(tensor(torch.float32)), out="dlpack")
    first, second = torch.from_dlpack(exported), torch.from_dlpack(exported)
    assert first.data_ptr() == second.data_ptr()
    first.fill_(3)
    assert (second == 3).all() and (np.from_dlpack(exported) == 3).all()


def test_a_tail_in_torch(make):
    samples = [torch.from_numpy(make(seed, (1, 4, 4, 4))) for seed in range(12)]
    weight = torch.randn(4 * 16, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)

    def tail(batch):
        assert batch.shape[1:] == (4, 4, 4) and batch.dtype == np.float32
        return torch.from_numpy(batch).flatten(1) @ weight

    for answer in [tail, lambda batch: tail(batch).to(torch.bfloat16), lambda batch: tail(batch).double()]:
        profile = narrows.fit(samples, tail=answer)
        assert "probing" in profile.notes
