from collections.abc import Callable, Iterable
from typing import Any, final

__test__: dict[str, Any]

@final
class Facts:
    items: int
    errors: int
    releases: str
    def __init__(self) -> None: ...
    def answered(self, releases: set[str], others: Facts) -> None: ...

@final
class Single:
    known: Any
    def __init__(self, answer: Callable[..., tuple[bytes, str] | None], *more: Any) -> None: ...
    def __call__(self, raw: bytes, facts: Facts) -> bytes | None: ...

def id_of(metadata: Iterable[tuple[str, Any]]) -> str: ...

@final
class CallLines:
    def __init__(self, always: str = "") -> None: ...
    def __len__(self) -> int: ...
    def add(
        self,
        now: float,
        service: str,
        method: str,
        outcome: tuple[str, str],
        facts: Facts,
        seconds: float,
        request_id: str,
        metadata: Iterable[tuple[str, Any]],
        caller: str,
    ) -> int: ...
    def take(self) -> str: ...
