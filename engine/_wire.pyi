from collections.abc import Callable, Sequence
from typing import Any, final

from typing_extensions import disjoint_base

from ._msdrg import Grouper

__pyx_capi__: dict[str, Any]
__test__: dict[str, Any]

@disjoint_base
class InpatientRequest:
    tie_breaker: int
    affect_flags: int
    detail: int
    def __init__(self, raw: bytes) -> None: ...
    def __len__(self) -> int: ...
    @property
    def choices(self) -> list[tuple[str, int]]: ...

@final
class DrgRequest(InpatientRequest):
    def answer(
        self, versions: Sequence[EncodedVersion | None], options: int, other: Callable[[list[bytes]], list[bytes]]
    ) -> tuple[bytes, int, list[bool]]: ...

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
