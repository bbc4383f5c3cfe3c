"""Validation answered from bytes, with the answers of the path that goes through messages.

The core (``engine._wire_codes``) reads requests and writes responses; here is what it is told under the GIL: which
release and day an item's system, release and date stand for. What that is, is remembered for as long as the library is
the same. An item that anything is wrong with goes through the messages after all, alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from .._calls import Single
from .._pb.codeset.v1 import terminology_pb2
from .._wire_codes import CodesRequest, ReleaseOnDay, Wording, answer_code
from ..codes import EXAMPLES, LONGEST_SHOWN, SENTENCES, SHOWN_OF_LONGER
from ..compile_codes import KINDS
from ..errors import CodesetError
from .calls import Facts
from .known import Known

if TYPE_CHECKING:
    from ..library import Library

__all__ = ["WORDING", "CodesWire", "ValidateThroughMessages"]

WORDING = Wording(SENTENCES, KINDS, EXAMPLES, LONGEST_SHOWN, SHOWN_OF_LONGER)
"""The sentences of ``engine.codes``."""


ValidateThroughMessages = Callable[
    [terminology_pb2.BatchValidateCodesRequest, Facts, "Library"], terminology_pb2.BatchValidateCodesResponse
]
"""Validates the items of a message; facts are of these items alone."""


class CodesWire:
    """Answers validations from their bytes. Thread-safe.

    ``check_size`` notes the number of items and raises if they are too many; ``through_messages`` answers the items
    that are not plain.
    """

    def __init__(self, check_size: Callable[[int, Facts], None], through_messages: ValidateThroughMessages) -> None:
        self._check_size = check_size
        self._through_messages = through_messages
        self._known: Known[tuple[str, str, int], ReleaseOnDay] | None = None
        self.answer_one = Single(answer_code, _today)
        """Answers a ValidateCodeRequest."""

    def serve(self, library: Library | None) -> None:
        """Answer from ``library`` from now on; None: leave everything to the messages."""
        self._known = None if library is None else Known(library, _on_day)
        self.answer_one.known = self._known

    def answer(self, raw: bytes, facts: Facts) -> bytes | None:
        """Return the response to the request ``raw``, a BatchValidateCodesRequest.

        Raises DecodeError if it is none, and what the size raises.
        """
        known = self._known
        if known is None:
            return None
        try:
            request = CodesRequest(raw)
        except ValueError:
            raise DecodeError("not a request to validate codes") from None
        self._check_size(len(request), facts)
        days: list[ReleaseOnDay | None] = []
        # One day for the whole request.
        today = -_today()
        for system, release, date in request.choices:
            try:
                # A date below 0 is no date, and would be taken for today's place.
                days.append(None if date < 0 else known[system, release, date or (0 if release else today)])
            except CodesetError:
                # Each of its items says so through the messages.
                days.append(None)
        others = Facts()

        def other(items: list[bytes]) -> list[bytes]:
            system, release, date = request.batch_choice
            messages = terminology_pb2.BatchValidateCodesRequest(
                system=system,
                release=release,
                date=date,
                items=map(terminology_pb2.CodeToValidate.FromString, items),
            )
            response = self._through_messages(messages, others, known.library)
            return [result.SerializeToString() for result in response.results]

        response, used = request.answer(days, other)
        releases = {day.id for day, answered in zip(days, used, strict=True) if day is not None and answered}
        facts.answered(releases, others)
        return response


def _on_day(library: Library, choice: tuple[str, str, int]) -> ReleaseOnDay:
    """Return what a library makes of (system, release, date); date 0: that of the release, below 0: minus the current
    day, where neither is named. Raises CodesetError where there is nothing.
    """
    system, release, date = choice
    chosen = library.code_system(system, release=release or None, date=date if date > 0 else None)
    about = terminology_pb2.CodeValidation(system=chosen.system, release=chosen.release, date=chosen.date)
    return ReleaseOnDay(chosen.core, WORDING, chosen.date, about.SerializeToString())


def _today() -> int:
    today = datetime.date.today()
    return today.year * 10000 + today.month * 100 + today.day
