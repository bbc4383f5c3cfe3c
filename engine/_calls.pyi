from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn, Self, final

from typing_extensions import disjoint_base

__test__: dict[str, Any]

METADATA: ContextVar[tuple[tuple[str, Any], ...]]
"""Metadata of the call being answered, where there is something to read in it: gRPC has read it to find the handler,
and would read it once more for whoever asks the call's context.
"""

CALLER: ContextVar[str]
"""Name of the token that the call being answered came with."""

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
    def __init__(self, answer: Callable[..., tuple[bytes, str] | None], more: Any = None) -> None: ...
    def __call__(self, raw: bytes, facts: Facts) -> bytes | None: ...

@final
class Answered:
    def __await__(self) -> Iterator[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...

@final
class Handler:
    def __new__(
        cls,
        book: Book,
        name: MethodName,
        from_bytes: Callable[[bytes, Facts], bytes | None] | None,
        inline: int,
        otherwise: Callable[[bytes, Any, float, Facts, Exception | None], Awaitable[bytes]],
    ) -> Self: ...
    def __call__(self, raw: bytes, context: Any) -> Awaitable[bytes]: ...
    def __await__(self) -> NoReturn: ...

@final
class Finder:
    def __new__(cls, handlers: dict[str, Any]) -> Self: ...
    def service(self, details: Any) -> Any: ...

@final
class MethodName:
    @property
    def service(self) -> str: ...
    @property
    def method(self) -> str: ...
    def __new__(cls, service: str, method: str) -> Self: ...

@final
class Counted:
    @property
    def calls(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def received(self) -> int: ...
    @property
    def items(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def by_seconds(self) -> list[int]: ...
    @property
    def by_items(self) -> list[int]: ...

@final
class Figures:
    def __new__(
        cls, seconds: tuple[float, ...], items: tuple[int, ...], first: Callable[[], None] | None = None
    ) -> Self: ...
    def add(
        self, name: MethodName, outcome: tuple[str, str], facts: Facts, seconds: float, received: int, sent: int
    ) -> int: ...
    def take(self) -> dict[tuple[str, str, tuple[str, str]], Counted]: ...

@disjoint_base
class Book:
    active: int
    @property
    def most(self) -> int: ...
    figures: Figures | None
    trace: Callable[[MethodName, tuple[str, str], Facts, float, Iterable[tuple[str, Any]]], None] | None
    def __init__(
        self,
        most: int,
        look: Callable[[], tuple[CallLines | None, Callable[[int], None]]],
        look_seconds: float,
    ) -> None: ...
    def enter(
        self,
        name: MethodName,
        facts: Facts,
        outcome: tuple[str, str],
        started: float,
        request_id: str,
        received: int,
        sent: int,
    ) -> int: ...

def id_of(metadata: Iterable[tuple[str, Any]]) -> str: ...

@final
class CallLines:
    def __new__(cls, always: str = "") -> Self: ...
    def __len__(self) -> int: ...
    def add(
        self, now: float, name: MethodName, outcome: tuple[str, str], facts: Facts, seconds: float, request_id: str
    ) -> int: ...
    def take(self) -> str: ...
