import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from ._msdrg import ClaimBatch
from .errors import CodesetError
from .pack import Pack

__pyx_capi__: dict[str, Any]
__test__: dict[str, Any]

SEXES: Mapping[Any, int]
MISSING: Sequence[str]
RESULT_DTYPE: np.dtype[Any]

def day_of(date: int | str | datetime.date | None) -> int: ...

@final
class Editor:
    def __new__(cls, pack: Pack) -> Self: ...
    @property
    def pack(self) -> Pack: ...
    @property
    def release(self) -> str: ...
    @property
    def version(self) -> int: ...

@final
class EditBatch:
    def __new__(cls, claims: Iterable[Any], beside: ClaimBatch | None = None) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def claims(self) -> Sequence[Any]: ...
    @property
    def errors(self) -> dict[int, CodesetError]: ...

def run(
    batch: EditBatch, editor: Editor, pdx: int = 0, sdx: int = 0, px: int = 0
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.uint32]]: ...
