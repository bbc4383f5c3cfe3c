from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
from _typeshed import SupportsGetItem

from ._hcc import Scorer
from ._wire import Request

__test__: dict[str, Any]

@final
class HccRequest(Request):
    def __init__(self, raw: bytes, single: bool = False) -> None: ...
    def __len__(self) -> int: ...
    @property
    def options(self) -> bytes: ...
    @property
    def choices(self) -> list[tuple[str, int]]: ...
    def answer(
        self, choices: Sequence[HccChoice | None], full: bool, other: Callable[[list[bytes]], list[bytes]]
    ) -> tuple[bytes, set[HccChoice]]: ...

class _Plan(Protocol):
    full: bool
    def __getitem__(self, named: tuple[str, int], /) -> HccChoice: ...

def answer_member(raw: bytes, plans: SupportsGetItem[bytes, _Plan]) -> tuple[bytes, str] | None: ...

@final
class EncodedScorer:
    scorer: Scorer
    def __init__(
        self,
        scorer: Scorer,
        kind: int,
        head: bytes,
        segments: list[bytes],
        applicable: list[bytes],
        numbers: list[str],
        cc_labels: list[bytes],
        hcc_labels: list[bytes],
        variables: list[tuple[bytes, bytes]],
        addons: list[tuple[bytes, bytes]],
    ) -> None: ...

@final
class HccChoice:
    release: str
    own: EncodedScorer
    partner: EncodedScorer | None
    def __init__(
        self,
        release: str,
        own: EncodedScorer,
        factors: npt.NDArray[np.int32],
        partner: EncodedScorer | None = None,
        partner_factors: npt.NDArray[np.int32] | None = None,
        weight: int = 0,
        same: list[int] | None = None,
        weights: bytes = b"",
    ) -> None: ...
