"""Claims for the Medicare Code Editor answered from their bytes, with the answers of the path through messages.

The core (``engine._wire_mce``) reads requests and writes responses; what it is told under the GIL is which release
edits, and how that release's errors are encoded. With DRGs asked for, versions are found as for a request to group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from google.protobuf.message import DecodeError

from .. import _mce, mce
from .._pb.codeset.v1 import editing_pb2, grouping_pb2
from .._wire_mce import EditRequest, EncodedEditor
from ..errors import CodesetError
from .calls import Facts
from .convert import fill_error

if TYPE_CHECKING:
    from ..library import Library
    from .wire import DrgWire, GroupThroughMessages

__all__ = ["EditThroughMessages", "EditWire"]

EditThroughMessages = Callable[
    [grouping_pb2.BatchEditClaimsRequest, Facts, "Library"], grouping_pb2.BatchEditClaimsResponse
]
"""Edits the claims of a message; facts are of these claims alone."""


class EditWire:
    """Answers BatchEditClaims and EditClaim from the bytes of their requests. Thread-safe.

    ``drg`` groups the claims.
    """

    def __init__(self, drg: DrgWire) -> None:
        self._drg = drg
        # Two threads at the first use of a release may both encode it; it is the same.
        self._editors: WeakKeyDictionary[mce.MceEditor, EncodedEditor] = WeakKeyDictionary()

    def answer(
        self,
        raw: bytes,
        facts: Facts,
        library: Library,
        check_size: Callable[[int, Facts], None],
        edit_through_messages: EditThroughMessages,
        group_through_messages: GroupThroughMessages,
    ) -> bytes | None:
        """Return the response to the request ``raw``, a BatchEditClaimsRequest; None if its options are not plain.

        Raises DecodeError if it is no such request, and what ``check_size``, an unknown release and wrong options of
        the grouper raise. The other two answer the claims that are not plain.
        """
        try:
            request = EditRequest(raw)
        except ValueError:
            raise DecodeError("not a request to edit inpatient claims") from None
        check_size(len(request), facts)
        if not _plain(request):
            return None
        editor = self._encoded(library.mce_editor(request.release))
        others = Facts()

        def other(claims: list[bytes]) -> list[bytes]:
            principal, secondary, procedures = map(_edits_of, request.suppressed)
            messages = grouping_pb2.BatchEditClaimsRequest(
                claims=map(grouping_pb2.InpatientClaim.FromString, claims),
                editor_release=request.release,
                options=editing_pb2.MceOptions(
                    suppress_on_principal=principal,
                    suppress_on_secondary=secondary,
                    suppress_on_procedures=procedures,
                ),
            )
            response = edit_through_messages(messages, others, library)
            return [result.SerializeToString() for result in response.results]

        releases = f"mce/{editor.core.release}"
        if not request.grouped:
            response, failed, _ = request.answer(editor, other)
        else:
            plan = self._drg.plan(request, library, group_through_messages)
            response, failed, groups = request.answer(editor, other, plan.versions, plan.flags, plan.other)
            assert groups is not None
            plan.account(facts, *groups)
            if facts.releases:
                releases += f",{facts.releases}"
        facts.errors += failed + others.errors
        facts.releases = releases
        return response

    def answer_one(self, raw: bytes, facts: Facts, library: Library) -> bytes | None:
        """Return the response to the request ``raw``, an EditClaimRequest: a batch of one claim has the same bytes.

        None where the claim is not plain, cannot be edited or grouped, and where there is not exactly one: what to say
        then is the messages' to know.
        """
        try:
            request = EditRequest(raw)
            if len(request) != 1 or not _plain(request):
                return None
            editor = self._encoded(library.mce_editor(request.release))
            releases = f"mce/{editor.core.release}"
            if not request.grouped:
                response, failed, _ = request.answer(editor)
            else:
                found = self._drg.choice_of_one(request, library)
                if found is None:
                    return None
                version, flags = found
                response, failed, groups = request.answer(editor, None, [version], flags)
                assert groups is not None
                failed += groups[0]
                releases += f",{version.release}"
        except (CodesetError, ValueError):
            return None
        if failed:
            return None
        facts.releases = releases
        return response

    def _encoded(self, editor: mce.MceEditor) -> EncodedEditor:
        found = self._editors.get(editor)
        if found is None:
            found = self._editors[editor] = _encode(editor)
        return found


_ALL_EDITS = sum(1 << (edit - 1) for edit in mce.MceEdit)


def _plain(request: EditRequest) -> bool:
    """Return whether the edits that are not to be raised are edits."""
    principal, secondary, procedures = request.suppressed
    return not (request.odd or (principal | secondary | procedures) & ~_ALL_EDITS)


def _edits_of(edits: int) -> list[Any]:
    """Return the edits of a set: their numbers are those of the proto."""
    return [edit for edit in mce.MceEdit if edits >> (edit - 1) & 1]


def _encode(editor: mce.MceEditor) -> EncodedEditor:
    """Encode what the answers of a release say beside what is found."""
    missing = [b""]
    for number in range(1, len(_mce.MISSING)):
        message = editing_pb2.EditResult()
        fill_error(message.error, mce.missing_field(number))
        missing.append(message.SerializeToString())
    return EncodedEditor(
        editor.core,
        principal=mce.ON_PRINCIPAL.order,
        secondary=mce.ON_SECONDARY.order,
        admitting=mce.ON_ADMITTING.order,
        procedures=mce.ON_PROCEDURES.order,
        once=mce.ONCE,
        missing=missing,
    )
