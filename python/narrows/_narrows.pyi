from os import PathLike
from typing import Any, Callable, Iterable, Literal, Optional, Protocol, Sequence, TypedDict, Union, final, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer, TypeAlias

class _Dlpack(Protocol):
    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...

class _Array(Protocol):
    def __array__(self) -> Any: ...

_Buffer: TypeAlias = Buffer
_Feature: TypeAlias = Union[npt.NDArray[Any], _Dlpack, _Array, Buffer]
_Features: TypeAlias = Union[Iterable[_Feature], _Feature]
_Gradients: TypeAlias = Union[Iterable[Union[_Feature, Sequence[_Feature]]], _Feature]
_Mode: TypeAlias = Literal["profile", "plain", "packed", "lossless"]
_Dtype: TypeAlias = Literal["f32", "f16", "bf16", "i8", "u8"]
_Out: TypeAlias = Literal["numpy", "torch", "dlpack"]
_BatchAxis: TypeAlias = Union[int, None, Literal["auto"]]
_Path: TypeAlias = Union[str, PathLike[str]]

__all__ = ["Decoder", "Encoder", "Limits", "Profile", "SymbolCoder", "Tensor", "__version__", "backends", "fit", "info"]

__version__: str

@final
class Limits:
    def __new__(
        cls,
        *,
        output_bytes: Optional[int] = None,
        header_bytes: Optional[int] = None,
        rank: Optional[int] = None,
        chunks: Optional[int] = None,
        channels: Optional[int] = None,
        lanes: Optional[int] = None,
        tables: Optional[int] = None,
        profile_bytes: Optional[int] = None,
        network_bytes: Optional[int] = None,
        network_macs: Optional[int] = None,
    ) -> Limits: ...
    @property
    def output_bytes(self) -> int: ...
    @property
    def header_bytes(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def lanes(self) -> int: ...
    @property
    def tables(self) -> int: ...
    @property
    def profile_bytes(self) -> int: ...
    @property
    def network_bytes(self) -> int: ...
    @property
    def network_macs(self) -> int: ...
    def __hash__(self) -> int: ...

class _Network(TypedDict):
    macs: int
    parameters: int
    arithmetic: Literal["integer", "float"]

@final
class Profile:
    @staticmethod
    def load(path: _Path, *, limits: Optional[Limits] = None) -> Profile: ...
    @staticmethod
    def from_bytes(data: Buffer, *, limits: Optional[Limits] = None) -> Profile: ...
    @staticmethod
    def assemble(draft: Union[Buffer, _Path]) -> Profile: ...
    def refit(
        self, samples: _Features, progress: Optional[Callable[[str, int, int], object]] = None
    ) -> Profile: ...
    def symbols(self, feature: _Feature, scale: float = 1.0) -> npt.NDArray[np.int32]: ...
    def save(self, path: _Path) -> None: ...
    def to_bytes(self) -> bytes: ...
    @property
    def hash(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> _Dtype: ...
    @property
    def channel_axis(self) -> int: ...
    @property
    def batch_axis(self) -> Optional[int]: ...
    @property
    def block(self) -> tuple[int, int]: ...
    @property
    def matrices(self) -> int: ...
    @property
    def analysis(self) -> Optional[_Network]: ...
    @property
    def synthesis(self) -> Optional[_Network]: ...
    @property
    def is_exact(self) -> bool: ...
    @property
    def notes(self) -> str: ...
    def __hash__(self) -> int: ...

_Profiles: TypeAlias = Union[Profile, Sequence[Profile]]
_bytes: TypeAlias = bytes

@final
class Encoder:
    def __new__(
        cls,
        profile: Optional[Profile] = None,
        mode: Optional[_Mode] = None,
        *,
        bits: Optional[int] = None,
        clip: Optional[Literal["aciq", "minmax"]] = None,
        chunks: Optional[int] = None,
        lanes: Optional[int] = None,
        rdo: bool = True,
        checksums: bool = False,
        backend: Optional[str] = None,
    ) -> Encoder: ...
    def encode(
        self,
        feature: _Feature,
        *,
        scale: Optional[float] = None,
        bytes: Optional[int] = None,
        sqnr: Optional[float] = None,
        channel_axis: Optional[int] = None,
        batch_axis: _BatchAxis = "auto",
    ) -> _bytes: ...
    @property
    def mode(self) -> _Mode: ...
    @property
    def profile(self) -> Optional[Profile]: ...

@final
class Decoder:
    def __new__(
        cls,
        profiles: Optional[_Profiles] = None,
        *,
        limits: Optional[Limits] = None,
        backend: Optional[str] = None,
    ) -> Decoder: ...
    @overload
    def decode(self, stream: Buffer, *, out: Literal["numpy"] = "numpy") -> npt.NDArray[Any]: ...
    @overload
    def decode(self, stream: Buffer, *, out: Literal["dlpack"]) -> Tensor: ...
    @overload
    def decode(self, stream: Buffer, *, out: Literal["torch"]) -> Any: ...
    def decode_into(self, stream: Buffer, out: Any) -> None: ...
    @property
    def profiles(self) -> list[Profile]: ...

@final
class SymbolCoder:
    def __new__(
        cls,
        bank: Optional[npt.NDArray[np.uint16]] = None,
        *,
        lanes: Optional[int] = None,
        backend: Optional[str] = None,
    ) -> SymbolCoder: ...
    def encode(self, symbols: npt.NDArray[np.int32], tables: npt.NDArray[np.uint8]) -> bytes: ...
    def decode(self, data: Buffer, tables: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]: ...

@final
class Tensor:
    def __dlpack__(self, **options: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Literal["float32", "float16", "bfloat16", "int8", "uint8"]: ...

class _Info(TypedDict):
    mode: _Mode
    version: int
    profile: Optional[str]
    quality: Optional[int]
    scale: Optional[float]
    shape: Optional[tuple[int, ...]]
    dtype: Optional[_Dtype]
    channel_axis: Optional[int]
    batch_axis: Optional[int]
    chunks: int
    lanes: int
    checksums: bool
    header_bytes: int
    payload_bytes: int
    bytes: int

def info(stream: Buffer, profile: Optional[Profile] = None) -> _Info: ...
def backends() -> list[str]: ...
def fit(
    samples: _Features,
    *,
    gradients: Optional[_Gradients] = None,
    tail: Optional[Callable[[npt.NDArray[np.float32]], Any]] = None,
    weights: Literal["auto", "unweighted", "gradients", "probe"] = "auto",
    transforms: Literal["all", "identity"] = "all",
    blocks: Optional[Sequence[int]] = None,
    target: float = 0.05,
    selection: int = 96,
    channel_axis: Optional[int] = None,
    batch_axis: _BatchAxis = "auto",
    progress: Optional[Callable[[str, int, int], object]] = None,
) -> Profile: ...
