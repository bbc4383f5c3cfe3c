from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from .errors import CodesetError
from .pack import Pack

DETAIL: int
CODE_ORDER: int
NO_AFFECT: int
FLAG_EXCLUDED: int
FLAG_DEATH: int
FLAG_DOWNGRADED: int
FLAG_HAC_MET: int
SEXES: Mapping[Any, int]
HOSPITAL_STATUSES: Mapping[Any, int]
DISCHARGE_STATUSES: frozenset[int]
GROUPING_DTYPE: np.dtype[Any]
RESULT_DTYPE: np.dtype[Any]
DIAGNOSIS_DTYPE: np.dtype[Any]
PROCEDURE_DTYPE: np.dtype[Any]

__pyx_capi__: dict[str, Any]
__test__: dict[str, Any]

@final
class Grouper:
    def __init__(self, pack: Pack) -> None: ...
    @property
    def pack(self) -> Pack: ...
    @property
    def version(self) -> str: ...
    def diagnosis(self, code: str) -> int: ...
    def procedure(self, code: str) -> int: ...

@final
class ClaimBatch:
    def __new__(cls, claims: Iterable[Any], resolve: Callable[[str, int], int], *, later: bool = False) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def claims(self) -> Sequence[Any]: ...
    @property
    def errors(self) -> dict[int, CodesetError]: ...
    def grouper(self, index: int) -> int: ...

def run(
    batch: ClaimBatch, groupers: list[Grouper], options: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.uint32]]: ...
def trace(batch: ClaimBatch, grouper: Grouper, options: int) -> dict[str, Any]: ...
