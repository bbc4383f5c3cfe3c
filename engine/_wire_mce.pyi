from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from _typeshed import SupportsGetItem

from ._mce import Editor
from ._wire import EncodedVersion, InpatientRequest

__test__: dict[str, Any]

@final
class EditRequest(InpatientRequest):
    grouped: bool
    odd: bool
    @property
    def release(self) -> str: ...
    @property
    def suppressed(self) -> tuple[int, int, int]: ...
    def answer(
        self,
        editor: EncodedEditor,
        other: Callable[[list[bytes]], list[bytes]] | None = None,
        versions: Sequence[EncodedVersion | None] | None = None,
        options: int = 0,
        other_groups: Callable[[list[bytes]], list[bytes]] | None = None,
    ) -> tuple[bytes, int, tuple[int, set[EncodedVersion]] | None]: ...

def answer_edit(
    raw: bytes,
    known: tuple[SupportsGetItem[str, tuple[EncodedEditor, str]], SupportsGetItem[str | int, EncodedVersion]],
    flags: SupportsGetItem[tuple[int, int, int], int],
) -> tuple[bytes, str] | None: ...

@final
class EncodedEditor:
    core: Editor
    def __init__(
        self,
        core: Editor,
        *,
        principal: Iterable[int],
        secondary: Iterable[int],
        admitting: Iterable[int],
        procedures: Iterable[int],
        once: int,
        missing: list[bytes],
    ) -> None: ...
