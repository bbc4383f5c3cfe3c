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
    @property
    def choices(self) -> list[tuple[str, int]]: ...

@disjoint_base
class InpatientRequest(Request):
    tie_breaker: int
    affect_flags: int
    detail: int
    def __len__(self) -> int: ...

@final
class DrgRequest(InpatientRequest):
    def answer(
        self, versions: Sequence[EncodedVersion | None], options: int, other: Callable[[list[bytes]], list[bytes]]
    ) -> tuple[bytes, int, list[bool]]: ...
    def answer_one(
        self,
        known: SupportsGetItem[tuple[str, int], tuple[EncodedVersion, str]],
        flags: SupportsGetItem[tuple[int, int, int], int],
    ) -> tuple[bytes, str] | None: ...

@final
class EncodedVersion:
    grouper: Grouper
    def __init__(
        self,
        grouper: Grouper,
        drgs: dict[int, bytes],
        mdcs: dict[int, bytes],
        hacs: list[tuple[int, int, bytes]],
        failed: bytes,
    ) -> None: ...
