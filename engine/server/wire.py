"""Batches answered from their bytes, with the answers of the path that goes through messages.

The core (``engine._wire``) reads requests and writes responses; here is what it is told under the GIL: which version a
claim's name or date stands for, and how that version's titles, weights and errors are encoded. A claim that anything is
wrong with goes through the messages after all, alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from google.protobuf.message import DecodeError

from .._calls import Single
from .._pb.codeset.v1 import grouping_pb2
from .._wire import DrgRequest, EncodedVersion, InpatientRequest, answer_drg
from ..compile_msdrg import HAC_DISPLAYS
from ..drg import HacCriteria, MsdrgGrouper, grouping_failed
from ..errors import CodesetError
from .calls import Facts
from .convert import fill_error, grouping_options
from .known import Known

if TYPE_CHECKING:
    from ..library import Library

__all__ = ["FLAGS", "DrgPlan", "DrgWire", "GroupThroughMessages", "Versions"]

_NULL_DISPLAY = 255
"""Display of a HAC entry that has no name of its own; the reference prints "null"."""


GroupThroughMessages = Callable[
    [grouping_pb2.BatchGroupDrgRequest, Facts, "Library"], grouping_pb2.BatchGroupDrgResponse
]
"""Groups the claims of a message; facts are of these claims alone."""


Versions = Known[str | int, EncodedVersion]
"""By what a claim names its tables with: a version or, where it names none, its discharge date."""


class DrgWire:
    """Answers requests to group inpatient claims from their bytes. Thread-safe.

    ``check_size`` notes the number of claims and raises if they are too many; ``through_messages`` answers the claims
    that are not plain.
    """

    def __init__(self, check_size: Callable[[int, Facts], None], through_messages: GroupThroughMessages) -> None:
        self._check_size = check_size
        self._through_messages = through_messages
        # Two threads at the first use of a version may both encode it; it is the same.
        self._encoded: WeakKeyDictionary[MsdrgGrouper, EncodedVersion] = WeakKeyDictionary()
        self.versions: Versions | None = None
        """Of the library that answers."""
        self.answer_one = Single(answer_drg, FLAGS)
        """Answers a GroupDrgRequest."""

    def serve(self, library: Library | None) -> None:
        """Answer from ``library`` from now on; None: leave everything to the messages."""
        self.versions = self.answer_one.known = None if library is None else Known(library, self._choose)

    def answer(self, raw: bytes, facts: Facts) -> bytes | None:
        """Return the response to the request ``raw``, a BatchGroupDrgRequest.

        Raises DecodeError if it is none, and what the size and wrong options raise.
        """
        versions = self.versions
        if versions is None:
            return None
        try:
            request = DrgRequest(raw)
        except ValueError:
            raise DecodeError("not a request to group inpatient claims") from None
        self._check_size(len(request), facts)
        plan = self.plan(request, versions)
        response, failed, answered = request.answer(plan.versions, plan.flags, plan.other)
        plan.account(facts, failed, answered)
        return response

    def plan(self, request: InpatientRequest, known: Versions) -> DrgPlan:
        """Return what the core is told to group a request with. Raises InvalidFieldError for wrong options."""
        wanted = request.tie_breaker, request.affect_flags, request.detail
        flags = FLAGS[wanted]
        choices = request.choices
        # A batch may name every day of some years, nearly all of them known.
        versions = list(map(known.get, choices))
        for i, version in enumerate(versions):
            if version is None:
                # What is still unknown then, each of its claims says through the messages.
                with contextlib.suppress(CodesetError):
                    versions[i] = known[choices[i]]
        return DrgPlan(versions, flags, _options(*wanted), known.library, self._through_messages)

    def _choose(self, library: Library, choice: str | int) -> EncodedVersion:
        """Return what groups a claim with a version or, where it names none, a discharge date."""
        named = (choice, 0) if isinstance(choice, str) else ("", choice)
        grouper = library.claim_grouper(*named)
        found = self._encoded.get(grouper)
        if found is None:
            found = self._encoded[grouper] = _encode(grouper)
        return found


class DrgPlan:
    """What groups the claims of one request: ``versions``, one a choice of the request, and ``flags``."""

    def __init__(
        self,
        versions: list[EncodedVersion | None],
        flags: int,
        options: grouping_pb2.DrgOptions,
        library: Library,
        through_messages: GroupThroughMessages,
    ) -> None:
        self.versions = versions
        self.flags = flags
        self._options = options
        self._library = library
        self._through_messages = through_messages
        self._others = Facts()

    def other(self, claims: list[bytes]) -> list[bytes]:
        """Return the results of claims that are not plain."""
        messages = grouping_pb2.BatchGroupDrgRequest(
            claims=map(grouping_pb2.InpatientClaim.FromString, claims), options=self._options
        )
        response = self._through_messages(messages, self._others, self._library)
        return [result.SerializeToString() for result in response.results]

    def account(self, facts: Facts, failed: int, answered: set[EncodedVersion]) -> None:
        """Write down how many claims have an error and which versions answered, given what the core returned."""
        facts.answered({version.release for version in answered}, self._others)
        facts.errors += failed


def _options(tie_breaker: int, affect_flags: int, detail: int) -> grouping_pb2.DrgOptions:
    return grouping_pb2.DrgOptions(
        tie_breaker=tie_breaker,  # type: ignore[arg-type]
        affect_flags=affect_flags,  # type: ignore[arg-type]
        detail=detail,  # type: ignore[arg-type]
    )


class _Flags(dict[tuple[int, int, int], int]):
    """Options (tie breaker, affect flags, detail) as the grouper takes them. Raises InvalidFieldError."""

    def __missing__(self, wanted: tuple[int, int, int]) -> int:
        found = self[wanted] = grouping_options(_options(*wanted)).flags()
        return found


FLAGS = _Flags()
"""What the grouper takes for the options of requests."""


def _encode(grouper: MsdrgGrouper) -> EncodedVersion:
    """Encode what the answers of a version say in words."""
    drgs = {
        drg: grouping_pb2.Grouping(
            drg_title=grouper.drg_titles.get(drg, ""),
            weight=grouper.weights[drg].to_dict() if drg in grouper.weights else None,
        ).SerializeToString()
        for drg in {*grouper.drg_titles, *grouper.weights}
    }
    mdcs = {
        mdc: grouping_pb2.Grouping(mdc_title=title).SerializeToString() for mdc, title in grouper.mdc_titles.items()
    }
    error = grouping_pb2.DrgResult()
    fill_error(error.error, grouping_failed(grouper.version))
    return EncodedVersion(grouper.core, drgs, mdcs, _hacs(), error.SerializeToString())


def _hacs() -> list[tuple[int, int, bytes]]:
    """Return display, status and encoding of every finding on a condition, in the order of ``engine.drg``."""
    names = [*enumerate(HAC_DISPLAYS), (_NULL_DISPLAY, "null")]
    found = sorted(
        (f"{name}:{status.name}", display, status, name) for display, name in names for status in HacCriteria
    )
    return [
        (
            display,
            int(status),
            grouping_pb2.DiagnosisResult(
                hacs=[grouping_pb2.Hac(name=name, status=int(status))]  # type: ignore[arg-type]
            ).SerializeToString(),
        )
        for _, display, status, name in found
    ]
