"""Risk scores answered from the bytes of a request, with the answers of the path that goes through messages.

The core (``engine._wire_hcc``) reads requests and writes responses; here is what it is told under the GIL: which tables
and payment factors a member's model and year stand for with the request's options, and how what those answer in words
is encoded. A member that anything is wrong with goes through the messages after all, alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from google.protobuf.message import DecodeError

from .._calls import Single
from .._pb.codeset.v1 import scoring_pb2
from .._wire_hcc import EncodedScorer, HccChoice, HccRequest, answer_member
from ..errors import CodesetError
from ..hcc import HccDetail, HccScorer, Scoring
from .calls import Facts
from .known import Known
from .scoring import scoring_options

if TYPE_CHECKING:
    from ..library import Library

__all__ = ["HccWire", "ScoreThroughMessages"]

_MOST_OPTIONS = 64
_LARGEST_OPTIONS = 1024
"""Options that are remembered: so many, and none of more bytes."""

ScoreThroughMessages = Callable[[scoring_pb2.BatchScoreHccRequest, Facts, "Library"], scoring_pb2.BatchScoreHccResponse]
"""Scores the members of a message; facts are of these members alone."""


class HccWire:
    """Answers requests for risk scores from their bytes. Thread-safe.

    ``check_size`` notes the number of members and raises if they are too many; ``through_messages`` answers the members
    that are not plain.
    """

    def __init__(self, check_size: Callable[[int, Facts], None], through_messages: ScoreThroughMessages) -> None:
        self._check_size = check_size
        self._through_messages = through_messages
        # Two threads at the first use may both make what is kept here; it is the same.
        self._encoded: WeakKeyDictionary[HccScorer, EncodedScorer] = WeakKeyDictionary()
        self._plans: _Plans | None = None
        self.answer_one = Single(answer_member)
        """Answers a ScoreHccRequest."""

    def serve(self, library: Library | None) -> None:
        """Answer from ``library`` from now on; None: leave everything to the messages."""
        self._plans = None if library is None else _Plans(library, self._plan, _MOST_OPTIONS)
        self.answer_one.known = self._plans

    def answer(self, raw: bytes, facts: Facts) -> bytes | None:
        """Return the response to the request ``raw``, a BatchScoreHccRequest.

        Raises DecodeError if it is none, and what the size and impossible options raise.
        """
        plans = self._plans
        if plans is None:
            return None
        try:
            request = HccRequest(raw)
        except ValueError:
            raise DecodeError("not a request to score members") from None
        self._check_size(len(request), facts)
        options = request.options
        plan = plans[options]
        named = request.choices
        choices = list(map(plan.get, named))
        for i, choice in enumerate(choices):
            if choice is None:
                # What is still unknown then, each of its members says through the messages.
                with contextlib.suppress(CodesetError):
                    choices[i] = plan[named[i]]
        others = Facts()

        def other(members: list[bytes]) -> list[bytes]:
            messages = scoring_pb2.BatchScoreHccRequest(
                members=map(scoring_pb2.RiskMember.FromString, members),
                options=scoring_pb2.HccOptions.FromString(options),
            )
            response = self._through_messages(messages, others, plans.library)
            return [result.SerializeToString() for result in response.results]

        response, answered = request.answer(choices, plan.full, other)
        facts.answered({choice.release for choice in answered}, others)
        return response

    def _plan(self, library: Library, raw: bytes) -> _Plan:
        return _Plan(library, raw, self._scorer)

    def _scorer(self, scorer: HccScorer) -> EncodedScorer:
        found = self._encoded.get(scorer)
        if found is None:
            found = self._encoded[scorer] = _encode(scorer)
        return found


class _Plan(dict[tuple[str, int], HccChoice]):
    """What answers with the options ``raw``, by model and payment year; found when asked for, which raises CodesetError
    where there is nothing. ``encoded`` encodes a scorer.

    Raises InvalidFieldError if the options are impossible.
    """

    def __init__(self, library: Library, raw: bytes, encoded: Callable[[HccScorer], EncodedScorer]) -> None:
        super().__init__()
        self._library = library
        self._encoded = encoded
        self._options = scoring_options(scoring_pb2.HccOptions.FromString(raw))
        # Impossible ones are an error of the request, also of one without members.
        Scoring(library.hcc_scorer, self._options)
        self.full = self._options.detail == HccDetail.FULL

    def __missing__(self, named: tuple[str, int]) -> HccChoice:
        scoring = Scoring(self._library.hcc_scorer, self._options)
        own, partner = scoring.resolve(*named)
        scorer, factors = scoring.scorers[own], scoring.factors()
        if partner < 0:
            choice = HccChoice(scorer.release, self._encoded(scorer), factors[own])
        else:
            other = scoring.scorers[partner]
            weights = scoring.weights(scorer.payment_year)
            outputs = {segment: i for i, segment in enumerate(other.segments)}
            choice = HccChoice(
                scorer.release,
                self._encoded(scorer),
                factors[own],
                self._encoded(other),
                factors[partner],
                weights[scorer.model],
                [outputs.get(segment, -1) for segment in scorer.segments],
                scoring_pb2.Blend(
                    weights=[
                        scoring_pb2.BlendWeight(model=name, weight=weight / 1000) for name, weight in weights.items()
                    ]
                ).SerializeToString(),
            )
        # Spelled otherwise it is answered as well, but there is no end of other spellings.
        if named == (scorer.model, scorer.payment_year):
            self[named] = choice
        return choice


class _Plans(Known[bytes, _Plan]):
    """Plans by the options; long ones are not remembered."""

    def __missing__(self, options: bytes) -> _Plan:
        return super().__missing__(options) if len(options) <= _LARGEST_OPTIONS else self.find(options)


def _encode(scorer: HccScorer) -> EncodedScorer:
    """Encode what the answers of a model and year say in words."""
    result, contribution = scoring_pb2.HccResult, scoring_pb2.Contribution
    # As the library has it: of two categories of one number, which a sound pack has not, the last one's.
    label = dict(zip(scorer.ccs, scorer.cc_labels, strict=True))

    def parts(names: tuple[str, ...], labels: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
        return [
            (contribution(variable=name).SerializeToString(), contribution(label=text).SerializeToString())
            for name, text in zip(names, labels, strict=True)
        ]

    return EncodedScorer(
        scorer.core,
        scorer.kind,
        result(model=scorer.model, payment_year=scorer.payment_year, release=scorer.release).SerializeToString(),
        [scoring_pb2.SegmentScore(segment=segment).SerializeToString() for segment in scorer.segments],
        [result(applicable=[segment]).SerializeToString() for segment in scorer.segments],
        list(scorer.ccs),
        [scoring_pb2.Suppression(label=text).SerializeToString() for text in scorer.cc_labels],
        [result(hcc_labels=[scoring_pb2.HccLabel(hcc=cc, label=label[cc])]).SerializeToString() for cc in scorer.ccs],
        parts(scorer.variables, scorer.labels),
        parts(scorer.addon_names, scorer.addon_labels),
    )
