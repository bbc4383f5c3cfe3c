"""The methods: each converts a request, asks the library, and converts the answer. No gRPC here.

``Services`` holds one reference to the library; a call reads it once and stays with what it read, so
that the reference can be swapped for a library with other releases at any time. Methods that claim systems call at
volume are answered from bytes (``wire``, ``wire_codes``, ``wire_edits``, ``wire_hcc``), where nothing is wrong with
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._pb.codeset.v1 import catalog_pb2, grouping_pb2, scoring_pb2, terminology_pb2
from ..errors import BatchTooLargeError, CodesetError, InvalidFieldError
from ..library import Library
from . import editing
from .calls import Facts, public_error
from .config import ServerConfig
from .convert import (
    DrgMessages,
    axis_message,
    concept_message,
    explanation_message,
    fill_error,
    grouping_options,
    kind_name,
    note_message,
    release_message,
    validation_message,
)
from .scoring import add_result, member_of, scoring_options
from .wire import DrgWire
from .wire_codes import CodesWire
from .wire_edits import EditWire
from .wire_hcc import HccWire

if TYPE_CHECKING:
    from ..codes import CodeSystem

__all__ = ["Services"]

_PAGE = 1_000
_LARGEST_PAGE = 10_000


class Services:
    """Answers requests from a library. Thread-safe."""

    def __init__(self, library: Library, config: ServerConfig) -> None:
        self.store_error: CodesetError | None = None
        """Why nothing of the store could be taken up at the last look."""
        self._max_items = config.max_items
        self._drg_wire = DrgWire(self._check_size, self._group_drgs)
        self._edit_wire = EditWire(self._check_size, self._edit_claims, self._drg_wire)
        self._hcc_wire = HccWire(self._check_size, self._score_hccs)
        self._codes_wire = CodesWire(self._check_size, self._validate_codes)
        self.library = library

    @property
    def library(self) -> Library:
        """The library that answers. Calls that have begun stay with the one before."""
        return self._library

    @library.setter
    def library(self, library: Library) -> None:
        self._library = library
        # The core answers from the engine's own only.
        own = library if isinstance(library, Library) else None
        self._drg_wire.serve(own)
        self._edit_wire.serve(own)
        self._hcc_wire.serve(own)
        self._codes_wire.serve(own)

    def answers(self) -> dict[str, Callable[[Any, Facts], Any]]:
        """Return the answering function of each method, by its name in the proto."""
        return {
            "Lookup": self.lookup,
            "ValidateCode": self.validate_code,
            "BatchValidateCodes": self.batch_validate_codes,
            "Subsumes": self.subsumes,
            "Expand": self.expand,
            "GroupDrg": self.group_drg,
            "BatchGroupDrg": self.batch_group_drg,
            "StreamGroupDrg": self.stream_group_drg,
            "ExplainDrg": self.explain_drg,
            "EditClaim": self.edit_claim,
            "BatchEditClaims": self.batch_edit_claims,
            "ListEdits": self.list_edits,
            "ScoreHcc": self.score_hcc,
            "BatchScoreHcc": self.batch_score_hcc,
            "ListReleases": self.list_releases,
            "GetRelease": self.get_release,
        }

    def from_bytes(self) -> dict[str, Callable[[bytes, Facts], bytes | None]]:
        """Return, by name, what answers a method from the bytes of a request with the bytes of its response.

        Such a function raises DecodeError if the bytes are no such request, and returns None where the request has to
        take the way through messages: the library is not the engine's own, or a single item cannot be answered.
        """
        # The messages of the stream are those of the batch by another name.
        return {
            "GroupDrg": self._drg_wire.answer_one,
            "BatchGroupDrg": self._drg_wire.answer,
            "StreamGroupDrg": self._drg_wire.answer,
            "EditClaim": self._edit_wire.answer_one,
            "BatchEditClaims": self._edit_wire.answer,
            "ScoreHcc": self._hcc_wire.answer_one,
            "BatchScoreHcc": self._hcc_wire.answer,
            "BatchValidateCodes": self._codes_wire.answer,
            "ValidateCode": self._codes_wire.answer_one,
        }

    def lookup(self, request: terminology_pb2.LookupRequest, facts: Facts) -> terminology_pb2.LookupResponse:
        """Lookup."""
        system = self._system(request, facts)
        kind = kind_name(request.kind)
        info = system.lookup(request.code, kind)
        return terminology_pb2.LookupResponse(
            system=system.system,
            release=system.release,
            concept=concept_message(info),
            ancestors=[concept_message(ancestor) for ancestor in system.ancestors(request.code, kind)],
            child_count=len(system.children(request.code, kind)),
            notes=[note_message(note) for note in system.notes(request.code, kind=kind)],
            axes=[axis_message(axis) for axis in system.axes(request.code)],
            effective_from=info.effective_from or 0,
            effective_to=info.effective_to or 0,
        )

    def validate_code(
        self, request: terminology_pb2.ValidateCodeRequest, facts: Facts
    ) -> terminology_pb2.ValidateCodeResponse:
        """ValidateCode."""
        found = self.library.validate(
            request.system, request.code, date=request.date or None, release=request.release or None
        )
        facts.releases = f"{found.system}/{found.release}"
        return terminology_pb2.ValidateCodeResponse(result=validation_message(request.code, found))

    def batch_validate_codes(
        self, request: terminology_pb2.BatchValidateCodesRequest, facts: Facts
    ) -> terminology_pb2.BatchValidateCodesResponse:
        """BatchValidateCodes."""
        self._check_size(len(request.items), facts)
        return self._validate_codes(request, facts, self.library)

    def _validate_codes(
        self, request: terminology_pb2.BatchValidateCodesRequest, facts: Facts, library: Library
    ) -> terminology_pb2.BatchValidateCodesResponse:
        validate = library.validate
        system, release, date = request.system, request.release or None, request.date or None
        response = terminology_pb2.BatchValidateCodesResponse()
        add = response.results.append
        releases = set()
        for item in request.items:
            code, own_release, own_date = item.code, item.release, item.date
            try:
                if own_release or own_date:
                    found = validate(item.system or system, code, date=own_date or None, release=own_release or None)
                else:
                    found = validate(item.system or system, code, date=date, release=release)
                add(validation_message(code, found))
                releases.add(f"{found.system}/{found.release}")
            except CodesetError as error:
                facts.errors += 1
                answer = terminology_pb2.CodeValidation(code=code)
                fill_error(answer.error, public_error(error))
                add(answer)
        facts.releases = ",".join(sorted(releases))
        return response

    def subsumes(self, request: terminology_pb2.SubsumesRequest, facts: Facts) -> terminology_pb2.SubsumesResponse:
        """Subsumes."""
        system = self._system(request, facts)
        outcome = system.subsumes(request.code_a, request.code_b)
        return terminology_pb2.SubsumesResponse(
            system=system.system,
            release=system.release,
            outcome=f"SUBSUMPTION_OUTCOME_{outcome.name}",
        )

    def expand(self, request: terminology_pb2.ExpandRequest, facts: Facts) -> terminology_pb2.ExpandResponse:
        """Expand."""
        if request.page_size < 0:
            raise InvalidFieldError(f"page_size: expected 0 or more, got {request.page_size}", field="page_size")
        size = min(request.page_size or _PAGE, _LARGEST_PAGE)
        # All pages come from the release of the first, also when another one answers by now.
        release, start = _read_token(request.page_token)
        system = self.library.code_system(
            request.system, release=release or request.release or None, date=request.date or None
        )
        facts.releases = f"{system.system}/{system.release}"
        kind = kind_name(request.kind)
        if request.relation == terminology_pb2.EXPAND_RELATION_ANCESTORS:
            found = system.ancestors(request.code, kind)
        elif request.relation == terminology_pb2.EXPAND_RELATION_CHILDREN:
            found = system.children(request.code, kind)
        elif request.relation == terminology_pb2.EXPAND_RELATION_DESCENDANTS:
            found = system.descendants(request.code, kind)
        else:
            raise InvalidFieldError(
                f"relation: expected EXPAND_RELATION_ANCESTORS, _CHILDREN or _DESCENDANTS, got {request.relation}",
                field="relation",
            )
        page = found[start : start + size]
        facts.items = len(page)
        return terminology_pb2.ExpandResponse(
            system=system.system,
            release=system.release,
            concepts=[concept_message(info) for info in page],
            total_size=len(found),
            next_page_token=f"{system.release}:{start + size}" if start + size < len(found) else "",
        )

    def group_drg(self, request: grouping_pb2.GroupDrgRequest, facts: Facts) -> grouping_pb2.GroupDrgResponse:
        """GroupDrg."""
        if not request.HasField("claim"):
            raise InvalidFieldError("claim: expected an inpatient claim, got a request without one", field="claim")
        result = self.library.group_drg(request.claim, grouping_options(request.options))
        if result.error is not None:
            raise result.error
        facts.releases = f"msdrg/{result.version}"
        # The one result is written where the batch's are, and taken from there.
        results = grouping_pb2.BatchGroupDrgResponse().results
        DrgMessages().add(results, result)
        return grouping_pb2.GroupDrgResponse(result=results[0])

    def batch_group_drg(
        self, request: grouping_pb2.BatchGroupDrgRequest, facts: Facts
    ) -> grouping_pb2.BatchGroupDrgResponse:
        """BatchGroupDrg."""
        self._check_size(len(request.claims), facts)
        return self._group_drgs(request, facts, self.library)

    def stream_group_drg(
        self, request: grouping_pb2.StreamGroupDrgRequest, facts: Facts
    ) -> grouping_pb2.StreamGroupDrgResponse:
        """One request of StreamGroupDrg."""
        batch = grouping_pb2.BatchGroupDrgRequest(claims=request.claims, options=request.options)
        return grouping_pb2.StreamGroupDrgResponse(results=self.batch_group_drg(batch, facts).results)

    def _group_drgs(
        self, request: grouping_pb2.BatchGroupDrgRequest, facts: Facts, library: Library
    ) -> grouping_pb2.BatchGroupDrgResponse:
        response = grouping_pb2.BatchGroupDrgResponse()
        messages = DrgMessages()
        results = response.results
        versions = set()
        for result in library.group_drg_many(request.claims, grouping_options(request.options)):
            if result.error is None:
                messages.add(results, result)
                versions.add(result.version)
            else:
                facts.errors += 1
                answer = results.add(claim_id=result.claim_id, version=result.version)
                fill_error(answer.error, public_error(result.error))
        facts.releases = ",".join(f"msdrg/{version}" for version in sorted(versions))
        return response

    def explain_drg(self, request: grouping_pb2.ExplainDrgRequest, facts: Facts) -> grouping_pb2.ExplainDrgResponse:
        """ExplainDrg."""
        if not request.HasField("claim"):
            raise InvalidFieldError("claim: expected an inpatient claim, got a request without one", field="claim")
        explanation = self.library.explain_drg(request.claim, grouping_options(request.options))
        if explanation.result.error is not None:
            raise explanation.result.error
        facts.releases = f"msdrg/{explanation.result.version}"
        return grouping_pb2.ExplainDrgResponse(explanation=explanation_message(explanation))

    def score_hcc(self, request: scoring_pb2.ScoreHccRequest, facts: Facts) -> scoring_pb2.ScoreHccResponse:
        """ScoreHcc."""
        if not request.HasField("member"):
            raise InvalidFieldError("member: expected a member to score, got a request without one", field="member")
        result = self.library.score_hcc(member_of(request.member), scoring_options(request.options))
        if result.error is not None:
            raise result.error
        facts.releases = result.release
        results = scoring_pb2.BatchScoreHccResponse().results
        add_result(results, result)
        return scoring_pb2.ScoreHccResponse(result=results[0])

    def batch_score_hcc(
        self, request: scoring_pb2.BatchScoreHccRequest, facts: Facts
    ) -> scoring_pb2.BatchScoreHccResponse:
        """BatchScoreHcc."""
        self._check_size(len(request.members), facts)
        return self._score_hccs(request, facts, self.library)

    def _score_hccs(
        self, request: scoring_pb2.BatchScoreHccRequest, facts: Facts, library: Library
    ) -> scoring_pb2.BatchScoreHccResponse:
        response = scoring_pb2.BatchScoreHccResponse()
        results = response.results
        releases = set()
        members = [member_of(member) for member in request.members]
        for result in library.score_hcc_many(members, scoring_options(request.options)):
            if result.error is None:
                add_result(results, result)
                releases.add(result.release)
            else:
                facts.errors += 1
                answer = results.add(member_id=result.member_id, model=result.model, payment_year=result.payment_year)
                fill_error(answer.error, public_error(result.error))
        facts.releases = ",".join(sorted(releases))
        return response

    def edit_claim(self, request: grouping_pb2.EditClaimRequest, facts: Facts) -> grouping_pb2.EditClaimResponse:
        """EditClaim."""
        if not request.HasField("claim"):
            raise InvalidFieldError("claim: expected an inpatient claim, got a request without one", field="claim")
        batch = grouping_pb2.BatchEditClaimsRequest(
            claims=[request.claim],
            editor_release=request.editor_release,
            options=request.options,
            group=request.group,
            drg_options=request.drg_options,
        )
        answer = self._edit_claims(batch, facts, self.library, fail=True)
        return grouping_pb2.EditClaimResponse(
            result=answer.results[0], drg_result=answer.drg_results[0] if request.group else None
        )

    def batch_edit_claims(
        self, request: grouping_pb2.BatchEditClaimsRequest, facts: Facts
    ) -> grouping_pb2.BatchEditClaimsResponse:
        """BatchEditClaims."""
        self._check_size(len(request.claims), facts)
        return self._edit_claims(request, facts, self.library)

    def _edit_claims(
        self, request: grouping_pb2.BatchEditClaimsRequest, facts: Facts, library: Library, *, fail: bool = False
    ) -> grouping_pb2.BatchEditClaimsResponse:
        """Edit, and group if asked to. ``fail``: raise what is wrong with a claim rather than answer it."""
        response = grouping_pb2.BatchEditClaimsResponse()
        options = editing.editing_options(request)
        failed = 0
        for result in library.edit_claims_many(request.claims, options):
            if result.error is None:
                editing.add_result(response.results, result)
                continue
            if fail:
                raise result.error
            failed += 1
            answer = response.results.add(claim_id=result.claim_id, editor_release=result.editor_release)
            fill_error(answer.error, public_error(result.error))
        releases = [f"mce/{library.mce_editor(options.editor_release).release}"]
        if request.group:
            wanted = grouping_pb2.BatchGroupDrgRequest(claims=request.claims, options=request.drg_options)
            response.drg_results.extend(self._group_drgs(wanted, facts, library).results)
            releases += filter(None, facts.releases.split(","))
        facts.errors += failed
        facts.releases = ",".join(releases)
        return response

    def list_edits(self, request: grouping_pb2.ListEditsRequest, facts: Facts) -> grouping_pb2.ListEditsResponse:
        """ListEdits."""
        response = grouping_pb2.ListEditsResponse(edits=editing.edits())
        facts.items = len(response.edits)
        return response

    def list_releases(self, request: catalog_pb2.ListReleasesRequest, facts: Facts) -> catalog_pb2.ListReleasesResponse:
        """ListReleases."""
        library = self.library
        releases = library.releases(request.system or None)
        facts.items = len(releases)
        response = catalog_pb2.ListReleasesResponse(releases=[release_message(info) for info in releases])
        for path, error in library.unusable:
            unusable = response.unusable.add(id=f"{path.parent.name}/{path.name}")
            fill_error(unusable.error, public_error(error))
        if self.store_error is not None:
            fill_error(response.unusable.add().error, public_error(self.store_error))
        return response

    def get_release(self, request: catalog_pb2.GetReleaseRequest, facts: Facts) -> catalog_pb2.GetReleaseResponse:
        """GetRelease."""
        library = self.library
        info = library.release(request.system, release=request.release or None, date=request.date or None)
        facts.releases = f"{info.system}/{info.release}"
        return catalog_pb2.GetReleaseResponse(release=release_message(info))

    def _system(self, request: Any, facts: Facts) -> CodeSystem:
        system = self.library.code_system(request.system, release=request.release or None, date=request.date or None)
        facts.releases = f"{system.system}/{system.release}"
        return system

    def _check_size(self, count: int, facts: Facts) -> None:
        facts.items = count
        if count > self._max_items:
            raise BatchTooLargeError(
                f"the batch has {count:,} items, the limit is {self._max_items:,}. Split it into "
                "smaller requests; the "
                "Python client does so by itself."
            )


def _read_token(token: str) -> tuple[str, int]:
    """Return the release and offset that a page token of ours stands for; ("", 0) for the first page."""
    if not token:
        return "", 0
    release, separator, offset = token.rpartition(":")
    if not separator or not offset.isascii() or not offset.isdigit() or len(offset) > 9:
        raise InvalidFieldError(
            "page_token: expected next_page_token of an earlier answer, unchanged, "
            f"got {token[:40]!r}. Leave it empty to start again.",
            field="page_token",
        )
    return release, int(offset)
