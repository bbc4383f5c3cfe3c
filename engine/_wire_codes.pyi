"""Types of the compiled wire room for codes; the contract is in the docstrings of ``_wire_codes.pyx``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

from ._core import CodeIndex

__test__: dict[str, Any]

class _Known(Protocol):
    def __getitem__(self, choice: tuple[str, str, int], /) -> ReleaseOnDay: ...

@final
class Wording:
    def __init__(
        self, sentences: Mapping[str, str], kinds: Sequence[str], examples: int, longest: int, shown: int
    ) -> None: ...

@final
class ReleaseOnDay:
    id: str
    def __init__(self, index: CodeIndex, wording: Wording, date: int, about: bytes) -> None: ...

@final
class CodesRequest:
    def __init__(self, raw: bytes) -> None: ...
    def __len__(self) -> int: ...
    @property
    def batch_choice(self) -> tuple[str, str, int]: ...
    @property
    def choices(self) -> list[tuple[str, str, int]]: ...
    def answer(
        self, days: Sequence[ReleaseOnDay | None], other: Callable[[list[bytes]], list[bytes]]
    ) -> tuple[bytes, list[bool]]: ...

def answer_code(raw: bytes, known: _Known, today: Callable[[], int]) -> tuple[bytes, str] | None: ...
