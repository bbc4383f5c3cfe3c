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
from .._calls import Single
from .._pb.codeset.v1 import editing_pb2, grouping_pb2
from .._wire_mce import EditRequest, EncodedEditor, answer_edit
from .calls import Facts
from .convert import fill_error
from .known import Known
from .wire import FLAGS

if TYPE_CHECKING:
    from ..library import Library
    from .wire import DrgWire, Versions

__all__ = ["EditThroughMessages", "EditWire"]

EditThroughMessages = Callable[
    [grouping_pb2.BatchEditClaimsRequest, Facts, "Library"], grouping_pb2.BatchEditClaimsResponse
]
"""Edits the claims of a message; facts are of these claims alone."""

_Chosen = tuple[EncodedEditor, str]


class EditWire:
    """Answers BatchEditClaims and EditClaim from the bytes of their requests. Thread-safe.

    ``check_size`` notes the number of claims and raises if they are too many; ``through_messages`` edits the claims
    that are not plain. ``drg`` groups.
    """

    def __init__(
        self, check_size: Callable[[int, Facts], None], through_messages: EditThroughMessages, drg: DrgWire
    ) -> None:
        self._check_size = check_size
        self._through_messages = through_messages
        self._drg = drg
        # Two threads at the first use of a release may both encode it; it is the same.
        self._encoded: WeakKeyDictionary[mce.MceEditor, EncodedEditor] = WeakKeyDictionary()
        self._known: tuple[Known[str, _Chosen], Versions] | None = None
        self.answer_one = Single(answer_edit, FLAGS)
        """Answers an EditClaimRequest."""

    def serve(self, library: Library | None) -> None:
        """Edit by ``library`` from now on, which the grouper serves already; None: leave everything to the messages."""
        versions = self._drg.versions
        self._known = None if library is None or versions is None else (Known(library, self._choose), versions)
        self.answer_one.known = self._known

    def answer(self, raw: bytes, facts: Facts) -> bytes | None:
        """Return the response to the request ``raw``, a BatchEditClaimsRequest; None if its options are not plain.

        Raises DecodeError if it is no such request, and what the size, an unknown release and wrong options of the
        grouper raise.
        """
        known = self._known
        if known is None:
            return None
        editors, versions = known
        try:
            request = EditRequest(raw)
        except ValueError:
            raise DecodeError("not a request to edit inpatient claims") from None
        self._check_size(len(request), facts)
        if request.odd:
            return None
        editor, releases = editors[request.release]
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
            response = self._through_messages(messages, others, editors.library)
            return [result.SerializeToString() for result in response.results]

        if not request.grouped:
            response, failed, _ = request.answer(editor, other)
        else:
            plan = self._drg.plan(request, versions)
            response, failed, groups = request.answer(editor, other, plan.versions, plan.flags, plan.other)
            assert groups is not None
            plan.account(facts, *groups)
            if facts.releases:
                releases += f",{facts.releases}"
        facts.errors += failed + others.errors
        facts.releases = releases
        return response

    def _choose(self, library: Library, release: str) -> _Chosen:
        """Return what edits where ``release`` is named, "" for none, and the name of that release."""
        editor = library.mce_editor(release)
        found = self._encoded.get(editor)
        if found is None:
            found = self._encoded[editor] = _encode(editor)
        return found, f"mce/{editor.release}"


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
