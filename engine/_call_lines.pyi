from collections.abc import Iterable
from typing import Any, Protocol, final

__test__: dict[str, Any]

class _Facts(Protocol):
    items: int
    errors: int
    releases: str

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
        facts: _Facts,
        seconds: float,
        request_id: str,
        metadata: Iterable[tuple[str, Any]],
        caller: str,
    ) -> int: ...
    def take(self) -> str: ...
