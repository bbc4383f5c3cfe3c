"""Risk scores answered from the bytes of a request, with the answers of the path that goes through messages.

The core (``engine._wire_hcc``) reads requests and writes responses; here is what it is told under the GIL: which tables
and payment factors a member's model and year stand for with the request's options, and how what those answer in words
is encoded. A member that anything is wrong with goes through the messages after all, alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from google.protobuf.message import DecodeError

from .._pb.codeset.v1 import scoring_pb2
from .._wire_hcc import EncodedScorer, HccChoice, HccRequest
from ..errors import CodesetError
from ..hcc import HccDetail, HccScorer, Scoring, ScoringOptions
from .calls import Facts
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
    """Answers requests for risk scores from their bytes. Thread-safe."""

    def __init__(self) -> None:
        # Two threads at the first use may both make what is kept here; it is the same. None of it holds its library.
        self._scorers: WeakKeyDictionary[HccScorer, EncodedScorer] = WeakKeyDictionary()
        self._plans: WeakKeyDictionary[Library, dict[bytes, _Plan]] = WeakKeyDictionary()

    def answer(
        self,
        raw: bytes,
        facts: Facts,
        library: Library,
        check_size: Callable[[int, Facts], None],
        through_messages: ScoreThroughMessages,
    ) -> bytes:
        """Return the response to the request ``raw``, a BatchScoreHccRequest.

        Raises DecodeError if it is none, and what ``check_size`` and impossible options raise. ``through_messages``
        answers the members that are not plain.
        """
        try:
            request = HccRequest(raw)
        except ValueError:
            raise DecodeError("not a request to score members") from None
        check_size(len(request), facts)
        plan = self._plan(request.options, library)
        choices = self._choices(request, plan, library)
        others = Facts()

        def other(members: list[bytes]) -> list[bytes]:
            messages = scoring_pb2.BatchScoreHccRequest(
                members=map(scoring_pb2.RiskMember.FromString, members),
                options=scoring_pb2.HccOptions.FromString(request.options),
            )
            return [result.SerializeToString() for result in through_messages(messages, others, library).results]

        answered = request.answer(choices, plan.full, other)
        assert answered is not None
        response, used = answered
        releases = {choice.release for choice, was in zip(choices, used, strict=True) if choice is not None and was}
        facts.answered(releases, others)
        return response

    def answer_one(self, raw: bytes, facts: Facts, library: Library) -> bytes | None:
        """Return the response to the request ``raw``, a ScoreHccRequest, if its member is plain, else None."""
        try:
            request = HccRequest(raw, True)
            plan = self._plan(request.options, library)
            choices = self._choices(request, plan, library)
            choice = choices[0] if choices else None
            if choice is None:
                return None
            answered = request.answer(choices, plan.full, None)
        except (ValueError, CodesetError):
            return None
        if answered is None:
            return None
        facts.releases = choice.release
        return answered[0]

    def _plan(self, raw: bytes, library: Library) -> _Plan:
        """Return what the options ``raw`` come to. Raises InvalidFieldError if they are impossible."""
        plans = self._plans.get(library)
        if plans is None:
            plans = self._plans[library] = {}
        plan = plans.get(raw)
        if plan is None:
            plan = _Plan(scoring_options(scoring_pb2.HccOptions.FromString(raw)), library)
            if len(raw) <= _LARGEST_OPTIONS:
                if len(plans) >= _MOST_OPTIONS:
                    plans.clear()
                plans[raw] = plan
        return plan

    def _choices(self, request: HccRequest, plan: _Plan, library: Library) -> list[HccChoice | None]:
        """Return what answers each choice of a request, None where nothing does."""
        found = list(map(plan.choices.get, request.choices))
        if None in found:
            scoring = Scoring(library.hcc_scorer, plan.options)
            for i, (model, year) in enumerate(request.choices):
                if found[i] is None:
                    found[i] = self._choice(model, year, plan, scoring)
        return found

    def _choice(self, model: str, year: int, plan: _Plan, scoring: Scoring) -> HccChoice | None:
        try:
            own, partner = scoring.resolve(model, year)
        except CodesetError:
            # Each of its members says so through the messages.
            return None
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
        if (model, year) == (scorer.model, scorer.payment_year):
            plan.choices[model, year] = choice
        return choice

    def _encoded(self, scorer: HccScorer) -> EncodedScorer:
        found = self._scorers.get(scorer)
        if found is None:
            found = self._scorers[scorer] = _encode(scorer)
        return found


class _Plan:
    """What the options of a request come to, for every model and year that has been asked for."""

    def __init__(self, options: ScoringOptions, library: Library) -> None:
        # Impossible ones are an error of the request, also of one without members.
        Scoring(library.hcc_scorer, options)
        self.options = options
        self.full = options.detail == HccDetail.FULL
        self.choices: dict[tuple[str, int], HccChoice] = {}


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
