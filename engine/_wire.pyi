from collections.abc import Callable, Sequence
from typing import Any, final

from _typeshed import SupportsGetItem
from typing_extensions import disjoint_base

from ._msdrg import Grouper

__pyx_capi__: dict[str, Any]
__test__: dict[str, Any]

@disjoint_base
class Request:
    def __init__(self, raw: bytes) -> None: ...

@disjoint_base
class InpatientRequest(Request):
    tie_breaker: int
    affect_flags: int
    detail: int
    def __len__(self) -> int: ...
    @property
    def choices(self) -> list[str | int]: ...

@final
class DrgRequest(InpatientRequest):
    def answer(
        self, versions: Sequence[EncodedVersion | None], options: int, other: Callable[[list[bytes]], list[bytes]]
    ) -> tuple[bytes, int, set[EncodedVersion]]: ...

def answer_drg(
    raw: bytes,
    known: SupportsGetItem[str | int, EncodedVersion],
    flags: SupportsGetItem[tuple[int, int, int], int],
) -> tuple[bytes, str] | None: ...

@final
class EncodedVersion:
    release: str
    def __init__(
        self,
        grouper: Grouper,
        drgs: dict[int, bytes],
        mdcs: dict[int, bytes],
        hacs: list[tuple[int, int, bytes]],
        failed: bytes,
    ) -> None: ...
