"""Types of the compiled scorer; the contract is in the docstrings of ``_hcc.pyx`` and in ``_hcc.pxd``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from .errors import CodesetError
from .pack import Pack

__pyx_capi__: dict[str, Any]
__test__: dict[str, Any]

OLDEST: int
NONE: int
SEXES: Mapping[Any, int]
RESULT_DTYPE: np.dtype[Any]
MEMBER_DTYPE: np.dtype[Any]

def half_up_of(numerator: int, denominator: int) -> int: ...
def kind_of(model: str) -> int: ...
def segment(
    kind: int,
    age: int,
    orec: int,
    flags: int,
    *,
    new_enrollee: bool,
    snp: bool,
    institutional: bool,
    dialysis: bool,
    dual_status_code: str,
    low_income: bool | None,
    months: int,
) -> str: ...

@disjoint_base
class Scorer:
    def __new__(cls, pack: Pack) -> Self: ...
    @property
    def pack(self) -> Pack: ...
    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]: ...
    def rules(self, code: str) -> list[tuple[int, int]]: ...
    def effective_age(self, age: int, orec: int) -> int: ...
    def class_of(self, age: int, sex: int, orec: int, mce_off: bool) -> int: ...

@final
class MemberBatch:
    def __new__(cls, members: Iterable[Any], resolve: Callable[[str, int], tuple[int, int]]) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def members(self) -> Sequence[Any]: ...
    @property
    def errors(self) -> dict[int, CodesetError]: ...
    def table(self) -> npt.NDArray[Any]: ...

def run(
    batch: MemberBatch, scorers: list[Scorer], factors: npt.NDArray[np.int32], partners: bool = False
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]: ...
