"""CMS risk scores for people: members, results, payment factors and explanations around ``engine._hcc``.

The names are those of the API on the wire (``proto/codeset/v1/scoring.proto``). ``engine.Library`` chooses the model
and year; this module scores. Sections named here are those of ``docs/hcc.md``.

Which diagnoses count is not decided here: CMS admits a diagnosis by its claim's procedure codes (CPT/HCPCS) and bill
type, which is the claim pipeline's work. Diagnoses are scored as given.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from . import _hcc
from .compile_hcc import OUTPUTS
from .errors import CodesetError, InvalidFieldError
from .pack import Manifest, Pack

__all__ = [
    "Blend",
    "BlendedScore",
    "Contribution",
    "DiagnosisCategory",
    "HccDetail",
    "HccResult",
    "HccResults",
    "HccScorer",
    "PaymentFactors",
    "RiskMember",
    "Scoring",
    "ScoringOptions",
    "SegmentContributions",
    "SegmentScore",
    "Suppression",
    "factors_of",
    "score_many",
    "year_blend",
]


class HccDetail(enum.IntEnum):
    """How much of the answer to work out. UNSPECIFIED counts as SCORES."""

    UNSPECIFIED = 0
    SCORES = 1
    FULL = 2
    """With contributions, categories of each diagnosis, and suppressed HCCs."""


@dataclass(slots=True)
class RiskMember:
    """One member to score. A mapping with the same keys does as well.

    ``model``: "V22", "V24", "V28", "ESRD_V21", "ESRD_V24", "RXHCC_V08_T", …. ``birth_date`` (CCYYMMDD) decides the age
    on 1 February of the payment year; without it ``age`` is that age. ``sex``: SEX_MALE or SEX_FEMALE, by name or
    number. ``orec``: original reason for entitlement, 0 old age, 1 disability, 2 ESRD, 3 disability and ESRD.

    Flags, under the names of CMS's software, count only in the models that have them: ``ltimcaid`` (Medicaid, in the
    institutional segment), ``nemcaid`` (Medicaid, new enrollees), ``mcaid`` (Medicaid, ESRD V21), ``fbdual`` and
    ``pbdual`` (full and partial benefit dual, ESRD V24; not both), ``lti`` (long-term institutional, ESRD V24),
    ``esrd`` (concurrent ESRD, RxHCC new enrollees). ``skip_mce_edits`` leaves out the ages of the Medicare Code Editor.
    ``diagnoses``: in any order, with repetitions, dots and lower case.

    The rest never changes a score; it tells which segment is the member's (``HccResult.segment``): ``new_enrollee``
    (under 12 months of Part B in the data year), ``snp`` (in a chronic-condition special needs plan), ``institutional``
    (90 days or more), ``dual_status_code`` ("00" to "10", "NA" or "" for not known), ``low_income`` (None: not known),
    ``dialysis``, ``months_since_transplant`` (1 or more; None: no graft).
    """

    member_id: str = ""
    model: str = ""
    payment_year: int = 0
    birth_date: int = 0
    age: int | None = None
    sex: int | str = 0
    orec: int | None = None
    ltimcaid: bool = False
    nemcaid: bool = False
    mcaid: bool = False
    fbdual: bool = False
    pbdual: bool = False
    lti: bool = False
    esrd: bool = False
    skip_mce_edits: bool = False
    diagnoses: Sequence[str] = ()
    new_enrollee: bool = False
    snp: bool = False
    institutional: bool = False
    dual_status_code: str = ""
    low_income: bool | None = None
    dialysis: bool = False
    months_since_transplant: int | None = None


Member: TypeAlias = Mapping[str, Any] | RiskMember | Any
"""A member as callers may give it."""

Number: TypeAlias = Decimal | str | float
"""A factor; a string or Decimal is exact, a float is taken for the decimal it prints as."""


@dataclass(frozen=True, slots=True)
class PaymentFactors:
    """Factors that make a payment score of a raw score, for one ``model``.

    ``normalization``: the divisor; of the ESRD models that of the functioning graft scores, with
    ``dialysis_normalization`` for dialysis and transplant. ``drug_plan_normalization``: RxHCC models with a factor of
    their own for stand-alone prescription drug plans. ``coding_adjustment``: the part taken away (0.059). A field left
    None in a request keeps the year's factor. ``source``: where CMS published them.
    """

    model: str
    normalization: Number | None = None
    dialysis_normalization: Number | None = None
    drug_plan_normalization: Number | None = None
    coding_adjustment: Number | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """Options for all members of a call.

    ``factors`` override the year's, field by field, for their model. ``blend`` (model to weight, two models) overrides
    the year's blend; an empty mapping means no blend. ``drug_plan``: score for a stand-alone prescription drug plan.
    """

    detail: HccDetail = HccDetail.UNSPECIFIED
    factors: Sequence[PaymentFactors] = ()
    blend: Mapping[str, Number] | None = None
    drug_plan: bool = False


class SegmentScore(NamedTuple):
    """Scores of one segment, three decimals. ``normalized`` and ``payment`` are None where no factor is known."""

    segment: str
    raw: float
    normalized: float | None
    payment: float | None


class BlendedScore(NamedTuple):
    """Blended payment score of one segment, three decimals."""

    segment: str
    payment: float


class Blend(NamedTuple):
    """What a year pays that blends two models: ``weights`` by model, and the blended payment scores."""

    weights: tuple[tuple[str, float], ...]
    scores: tuple[BlendedScore, ...]


class Contribution(NamedTuple):
    """One variable of a segment's score: its coefficient there and what it is."""

    variable: str
    coefficient: float
    label: str


class SegmentContributions(NamedTuple):
    """Variables that the member has and the segment's model knows; they add up to the raw score.

    Where ``divisor`` is not 1 (graft scores of new enrollees in ESRD V24), their sum over it does, rounded.
    """

    segment: str
    contributions: tuple[Contribution, ...]
    divisor: float


class DiagnosisCategory(NamedTuple):
    """What one diagnosis gave: ``ccs`` are the categories the member has from it, ``refused`` those that its age, sex
    or code editor condition kept from counting. Both empty: the model does not map the code."""

    code: str
    ccs: tuple[str, ...]
    refused: tuple[str, ...]


class Suppression(NamedTuple):
    """An HCC that does not count: ``by`` lists the HCCs above it; empty where a rule of the model took it away."""

    hcc: str
    by: tuple[str, ...]
    label: str


@dataclass(frozen=True, slots=True)
class HccResult:
    """Answer to one member: the scores of every segment, or the ``error`` that says why there are none.

    ``release`` is the pack that answered. ``age``: on 1 February of the payment year. ``ccs``: categories of the
    diagnoses; ``hccs``: those that count, after hierarchies. Both in numeric order, as text. ``applicable``: outputs
    that can be the member's, where the model's outputs are made for different members (ESRD). ``segment``: the
    member's, "" where what decides it was not given. ``blend``: in a year that blends two models, if both are loaded.
    The last four are filled at full detail.
    """

    member_id: str
    model: str
    payment_year: int
    release: str = ""
    age: int = 0
    ccs: tuple[str, ...] = ()
    hccs: tuple[str, ...] = ()
    scores: tuple[SegmentScore, ...] = ()
    applicable: tuple[str, ...] = ()
    segment: str = ""
    blend: Blend | None = None
    contributions: tuple[SegmentContributions, ...] = ()
    diagnoses: tuple[DiagnosisCategory, ...] = ()
    suppressed: tuple[Suppression, ...] = ()
    hcc_labels: tuple[tuple[str, str], ...] = ()
    error: CodesetError | None = None

    def score(self, segment: str = "") -> SegmentScore:
        """Return the scores of ``segment``, by default the member's; raises ``error`` if there is one, and
        InvalidFieldError if there is no such segment."""
        if self.error is not None:
            raise self.error
        wanted = segment or self.segment
        for score in self.scores:
            if score.segment == wanted:
                return score
        raise InvalidFieldError(
            f"segment: expected one of {', '.join(s.segment for s in self.scores)}, got {wanted!r}", field="segment"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result in the shape of its proto3 JSON: snake_case names, scores without a factor left out."""
        found: dict[str, Any] = {
            "member_id": self.member_id,
            "model": self.model,
            "payment_year": self.payment_year,
        }
        if self.error is not None:
            error = {"code": self.error.code, "message": str(self.error), "field": self.error.field}
            return found | {"error": error}
        found |= {
            "release": self.release,
            "age": self.age,
            "ccs": list(self.ccs),
            "hccs": list(self.hccs),
            "scores": [_without_none(score._asdict()) for score in self.scores],
            "applicable": list(self.applicable),
            "segment": self.segment,
        }
        if self.blend is not None:
            found["blend"] = {
                "weights": [{"model": model, "weight": weight} for model, weight in self.blend.weights],
                "scores": [score._asdict() for score in self.blend.scores],
            }
        found["contributions"] = [
            {"segment": segment, "contributions": [c._asdict() for c in contributions], "divisor": divisor}
            for segment, contributions, divisor in self.contributions
        ]
        found["diagnoses"] = [{"code": d.code, "ccs": list(d.ccs), "refused": list(d.refused)} for d in self.diagnoses]
        found["suppressed"] = [{"hcc": s.hcc, "by": list(s.by), "label": s.label} for s in self.suppressed]
        found["hcc_labels"] = [{"hcc": hcc, "label": label} for hcc, label in self.hcc_labels]
        return found


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# --- payment factors ------------------------------------------------------------------------------------------------


@functools.cache
def _published() -> tuple[dict[tuple[str, int], PaymentFactors], dict[int, dict[str, Number]]]:
    """Factors by model and payment year, blends by payment year, as published."""
    import tomllib

    document = tomllib.loads((Path(__file__).parent / "hcc_factors.toml").read_text(encoding="utf-8"))
    factors = {}
    for entry in document["factors"]:
        year = entry.pop("payment_year")
        factors[entry["model"], year] = PaymentFactors(**entry)
    return factors, {entry["payment_year"]: entry["weights"] for entry in document["blend"]}


def factors_of(model: str, payment_year: int) -> PaymentFactors:
    """Return the factors CMS published; one without any where none are known."""
    return _published()[0].get((model, payment_year), PaymentFactors(model))


def year_blend(payment_year: int) -> Mapping[str, Number]:
    """Return the weights of the Part C models that a payment year blends, empty where it pays one."""
    return _published()[1].get(payment_year, {})


def _thousandths(value: Number, field: str) -> int:
    try:
        number = Decimal(str(value)) * 1000
        if not number.is_finite() or number != number.to_integral_value():
            raise InvalidOperation
    except InvalidOperation:
        raise InvalidFieldError(f"{field}: expected a number with at most three decimals", field=field) from None
    return int(number)


def _factor_row(
    outputs: Sequence[str], model: str, year: int, options: ScoringOptions, own: PaymentFactors | None
) -> npt.NDArray[np.int32]:
    """Return [2][OUTPUTS]: normalization and what the coding adjustment leaves of each output, in thousandths."""
    published = factors_of(model, year)

    def chosen(name: str) -> Number | None:
        given: Number | None = getattr(own, name) if own is not None else None
        usual: Number | None = getattr(published, name)
        return usual if given is None else given

    def checked(name: str, value: Number | None) -> int:
        if value is None:
            return 0
        number = _thousandths(value, name)
        if not 100 <= number <= 10_000:
            raise InvalidFieldError(f"{name}: expected a factor between 0.1 and 10", field=name)
        return number

    normalization = checked("normalization", chosen("normalization"))
    dialysis = checked("dialysis_normalization", chosen("dialysis_normalization"))
    drug_plan = checked("drug_plan_normalization", chosen("drug_plan_normalization"))
    adjustment = _thousandths(chosen("coding_adjustment") or 0, "coding_adjustment")
    if not 0 <= adjustment < 1000:
        raise InvalidFieldError(
            "coding_adjustment: expected a part of the score, 0 to below 1", field="coding_adjustment"
        )
    if options.drug_plan and drug_plan:
        normalization = drug_plan
    row = np.zeros((2, OUTPUTS), np.int32)
    row[1] = 1000 - adjustment
    esrd = model.startswith("ESRD")
    for i, output in enumerate(outputs):
        row[0, i] = dialysis if esrd and output.startswith(("DIAL", "TRANSPLANT")) else normalization
    return row


def _blend_weights(blend: Mapping[str, Number]) -> dict[str, int]:
    """Return weights in thousandths, checked."""
    if not isinstance(blend, Mapping) or len(blend) not in (0, 2):
        raise InvalidFieldError("blend: expected two models and their weights, or none", field="blend")
    # By the names that packs have, as the models of factors are.
    weights = {model.upper(): _thousandths(weight, "blend") for model, weight in blend.items()}
    if weights and (len(weights) != 2 or sum(weights.values()) != 1000 or min(weights.values()) < 0):
        raise InvalidFieldError("blend: expected two weights from 0 to 1 that add up to 1", field="blend")
    return weights


# --- one model and year ---------------------------------------------------------------------------------------------


class HccScorer:
    """One risk adjustment model for one payment year, opened from its pack. Safe to share between threads."""

    def __init__(self, pack: Pack) -> None:
        self.core = _hcc.Scorer(pack)
        self.manifest: Manifest = pack.manifest
        try:
            self.model = str(pack.manifest.facts["model"])
            self.payment_year = int(pack.manifest.facts["payment_year"])
        except (KeyError, ValueError, TypeError):
            raise pack.corrupt("manifest.json", "it does not say the model and payment year") from None
        self.kind = _hcc.kind_of(self.model)
        """What its segments are told by, a number for ``engine._hcc``."""
        arrays = self.core.arrays
        self.ccs = tuple(map(str, arrays["cc_number"].tolist()))
        self.segments = _texts(pack, "output_name", len(arrays["output"]))
        """Names of the segment scores, in order."""
        self.columns = _texts(pack, "output_column", len(self.segments))
        """Coefficient column each segment sums up; "" where it is an amount of its own."""
        self.variables = _texts(pack, "variable_name", len(arrays["given"]))
        self.labels = _texts(pack, "variable_label", len(arrays["given"]))
        self.cc_labels = _texts(pack, "cc_label", len(self.ccs))
        n_addons = len(arrays["addon_name_start"]) - 1
        self.addon_names = _texts(pack, "addon_name", n_addons)
        self.addon_labels = _texts(pack, "addon_label", n_addons)

    @property
    def release(self) -> str:
        """``cmshcc/v28-2026``."""
        return self.manifest.id

    def __repr__(self) -> str:
        return f"<{self.model}, payment year {self.payment_year}>"

    def numbers(self, words: npt.NDArray[np.uint64]) -> tuple[str, ...]:
        """Return the categories of a bit set, in numeric order."""
        ccs = self.ccs
        return tuple([ccs[i] for i in _bits(words) if i < len(ccs)])

    def contributions(self, row: Any, member: Any) -> tuple[SegmentContributions, ...]:
        """Return the variables of each segment's score for a row of results and what was read of the member."""
        arrays = self.core.arrays
        present = _bits(row["variables"])
        given, coefficient, outputs = arrays["given"], arrays["coefficient"], arrays["output"]
        age = self.core.effective_age(int(member["age"]), int(member["orec"]))
        start = arrays["addon_start"]
        addons = arrays["addon"][int(start[age]) : int(start[age + 1])]
        flags = int(member["flags"])
        found = []
        for i, segment in enumerate(self.segments):
            column = int(outputs["column"][i])
            items = []
            if column >= 0:
                items = [
                    Contribution(self.variables[v], int(coefficient[v, column]) / 1000, self.labels[v])
                    for v in present
                    if int(given[v]) >> column & 1
                ]
            items += [
                Contribution(self.addon_names[a["name"]], int(a["value"]) / 1000, self.addon_labels[a["name"]])
                for a in addons
                if a["output"] == i
                and int(a["orec"]) >> int(member["orec"]) & 1
                and flags & int(a["all"]) == a["all"]
                and not flags & int(a["none"])
            ]
            divisor = int(outputs["divisor"][i])
            found.append(SegmentContributions(segment, tuple(items), divisor / 1000 if divisor else 1.0))
        return tuple(found)

    def categories(self, codes: Sequence[str], member: Any) -> tuple[DiagnosisCategory, ...]:
        """Return what each diagnosis gave, in the order given."""
        number = self.core.class_of(
            int(member["age"]), int(member["sex"]), int(member["orec"]), bool(member["mce_off"])
        )
        found = []
        for code in codes:
            rules = self.core.rules(code)
            ccs = tuple(self.ccs[cc] for cc, classes in rules if classes >> number & 1)
            refused = tuple(self.ccs[cc] for cc, classes in rules if not classes >> number & 1)
            found.append(DiagnosisCategory(code, ccs, refused))
        return tuple(found)

    def segment(self, member: Any, read: Any) -> str:
        """Return the member's segment, "" where it cannot be told (section 10). ``read``: the member's row of the
        batch."""
        low_income = _field(member, "low_income")
        code = _field(member, "dual_status_code")
        months = _field(member, "months_since_transplant")
        return _hcc.segment(
            self.kind,
            int(read["age"]),
            int(read["orec"]),
            int(read["flags"]),
            new_enrollee=bool(_field(member, "new_enrollee")),
            snp=bool(_field(member, "snp")),
            institutional=bool(_field(member, "institutional")),
            dialysis=bool(_field(member, "dialysis")),
            dual_status_code=code if isinstance(code, str) else "",
            low_income=None if low_income is None else bool(low_income),
            months=min(max(months, 0), 99) if isinstance(months, int) and not isinstance(months, bool) else 0,
        )

    def suppressions(self, row: Any) -> tuple[Suppression, ...]:
        """Return the categories that are no HCCs in the end, and why."""
        arrays = self.core.arrays
        ccs, hccs = set(_bits(row["ccs"])), set(_bits(row["hccs"]))
        kept_out = {int(rule["cc"]) for rule in arrays["pre_rule"] if not set(_bits(rule["unless"])) & ccs}
        before = ccs - kept_out
        found = []
        for i in sorted(ccs - hccs):
            above = [k for k in sorted(before) if i in _bits(arrays["secondary"][k])] if i in before else []
            found.append(Suppression(self.ccs[i], tuple(self.ccs[k] for k in above), self.cc_labels[i]))
        return tuple(found)


def _texts(pack: Pack, name: str, count: int) -> tuple[str, ...]:
    start = pack.array(f"{name}_start", "<u4").astype(np.int64)
    text = pack.array(f"{name}_text", "u1").tobytes()
    if len(start) != count + 1 or (np.diff(start) < 0).any() or start[-1] != len(text):
        raise pack.corrupt(f"{name}_start.npy", "its offsets are not those of the texts")
    try:
        return tuple(text[start[i] : start[i + 1]].decode() for i in range(count))
    except UnicodeDecodeError:
        raise pack.corrupt(f"{name}_text.npy", "it is not UTF-8") from None


def _bits(words: npt.NDArray[np.uint64]) -> list[int]:
    found = []
    for w, word in enumerate(words.tolist()):
        while word:
            low = word & -word
            found.append(64 * w + low.bit_length() - 1)
            word ^= low
    return found


def _field(member: Any, name: str) -> Any:
    return member.get(name) if isinstance(member, dict) else getattr(member, name, None)


# --- what is decided once a call -------------------------------------------------------------------------------------


class Scoring:
    """What the options of one call make of models and years: their scorers, payment factors and blends.

    ``choose``: as in ``score_many``. Raises InvalidFieldError if an option is impossible.
    """

    def __init__(self, choose: Callable[[str, int], HccScorer], options: ScoringOptions) -> None:
        self.options = options
        self.scorers: list[HccScorer] = []
        """Every scorer that ``resolve`` has found, by its number."""
        self._choose = choose
        self._rows: list[npt.NDArray[np.int32]] = []
        self._overrides = {factors.model.upper(): factors for factors in options.factors}
        self._fixed = None if options.blend is None else _blend_weights(options.blend)
        # An impossible option is an error of the call, not of each member.
        for factors in options.factors:
            _factor_row((), factors.model, 0, options, factors)

    def resolve(self, model: str, year: int) -> tuple[int, int]:
        """Return the numbers of the scorer and of the other model's scorer where the two are blended, else -1.

        Raises the CodesetError of whoever is of this model and year.
        """
        scorer = self._choose(model, year)
        own, partner = self._number(scorer), -1
        blend = self.weights(year)
        if scorer.model in blend:
            (other,) = set(blend) - {scorer.model}
            try:
                partner = self._number(self._choose(other, year))
            except CodesetError:
                if self._fixed is not None:
                    raise
                # The year's blend is an extra: without the other model's pack the member still has its own scores.
        return own, partner

    def weights(self, year: int) -> Mapping[str, int]:
        """Return the weights of the models that are blended in ``year``, in thousandths; empty if none are."""
        return _blend_weights(year_blend(year)) if self._fixed is None else self._fixed

    def factors(self) -> npt.NDArray[np.int32]:
        """Return [scorers][2][OUTPUTS]: the factors ``engine._hcc.run`` takes."""
        return np.array(self._rows, np.int32).reshape(-1, 2, OUTPUTS)

    def _number(self, scorer: HccScorer) -> int:
        if scorer not in self.scorers:
            own = self._overrides.get(scorer.model)
            self._rows.append(_factor_row(scorer.segments, scorer.model, scorer.payment_year, self.options, own))
            self.scorers.append(scorer)
        return self.scorers.index(scorer)


# --- batches --------------------------------------------------------------------------------------------------------


class HccResults(Sequence[HccResult]):
    """Answers to a batch of members, in order. Results are made when asked for; the arrays behind them are there at
    once.

    ``table`` has one element a member (dtype ``engine._hcc.RESULT_DTYPE``: bit sets of categories, HCCs, variables;
    all zero where there is an error). ``scores``: int32 [3][members][outputs], raw, normalized and payment scores in
    thousandths, in the order of the scorer's ``segments``; ``engine._hcc.NONE`` where no factor is known.
    """

    def __init__(self, batch: _hcc.MemberBatch, scoring: Scoring) -> None:
        self._batch = batch
        self._scoring = scoring
        self._scorers = scoring.scorers
        cores, factors = [scorer.core for scorer in scoring.scorers], scoring.factors()
        self.table, self.scores = _hcc.run(batch, cores, factors)
        self.members = batch.table()
        """What was read of each member: dtype ``engine._hcc.MEMBER_DTYPE``."""
        blended = (self.members["partner"] >= 0).any()
        self._partner = _hcc.run(batch, cores, factors, partners=True)[1] if blended else None

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> HccResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[HccResult]: ...
    def __getitem__(self, index: int | slice) -> HccResult | list[HccResult]:
        if isinstance(index, slice):
            return [self._result(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._result(index % len(self))

    def __iter__(self) -> Iterator[HccResult]:
        return map(self._result, range(len(self)))

    @property
    def errors(self) -> Mapping[int, CodesetError]:
        """Position of every member that has no answer, and why."""
        return self._batch.errors

    def _result(self, index: int) -> HccResult:
        member = self._batch.members[index]
        member_id = _field(member, "member_id") or ""
        read = self.members[index]
        if read["scorer"] < 0:
            # The field itself may be what is wrong with the member.
            model, year = _field(member, "model"), _field(member, "payment_year")
            return HccResult(
                member_id if isinstance(member_id, str) else "",
                model if isinstance(model, str) else "",
                year if isinstance(year, int) else 0,
                error=self._batch.errors[index],
            )
        scorer = self._scorers[read["scorer"]]
        row = self.table[index]
        n = len(scorer.segments)
        raw, normalized, payment = self.scores[:, index, :n].tolist()
        scores = tuple(
            SegmentScore(segment, r / 1000, None if p == _hcc.NONE else q / 1000, None if p == _hcc.NONE else p / 1000)
            for segment, r, q, p in zip(scorer.segments, raw, normalized, payment, strict=True)
        )
        applicable = int(row["applicable"])
        result = HccResult(
            member_id,
            scorer.model,
            scorer.payment_year,
            scorer.release,
            int(read["age"]),
            scorer.numbers(row["ccs"]),
            hccs := scorer.numbers(row["hccs"]),
            scores,
            tuple(segment for i, segment in enumerate(scorer.segments) if applicable >> i & 1),
            scorer.segment(member, read),
            self._blend(index, scorer, read, payment),
        )
        if self._scoring.options.detail != HccDetail.FULL:
            return result
        label = dict(zip(scorer.ccs, scorer.cc_labels, strict=True))
        return replace(
            result,
            contributions=scorer.contributions(row, read),
            diagnoses=scorer.categories(list(_field(member, "diagnoses") or ()), read),
            suppressed=scorer.suppressions(row),
            hcc_labels=tuple((hcc, label[hcc]) for hcc in hccs),
        )

    def _blend(self, index: int, scorer: HccScorer, read: Any, payment: Sequence[int]) -> Blend | None:
        if read["partner"] < 0 or self._partner is None:
            return None
        other = self._scorers[read["partner"]]
        weights = self._scoring.weights(scorer.payment_year)
        own_weight = weights[scorer.model]
        theirs = self._partner[2, index].tolist()
        by_segment = {segment: theirs[i] for i, segment in enumerate(other.segments)}
        scores = []
        for segment, own in zip(scorer.segments, payment, strict=True):
            if segment not in by_segment or own == _hcc.NONE or by_segment[segment] == _hcc.NONE:
                continue
            total = own * own_weight + by_segment[segment] * (1000 - own_weight)
            scores.append(BlendedScore(segment, (total + 500) // 1000 / 1000))
        return Blend(tuple((model, weight / 1000) for model, weight in weights.items()), tuple(scores))


def score_many(
    members: Iterable[Member],
    choose: Callable[[str, int], HccScorer],
    options: ScoringOptions | None = None,
) -> HccResults:
    """Score members; the answers come in their order, and what is wrong with one member is its answer's ``error``.

    ``choose(model, payment_year)`` returns the scorer, or raises the CodesetError that becomes the member's; it is
    called once for each distinct pair, and for the other model of a blend. The GIL is released while the batch is
    scored.

    Raises InvalidFieldError if ``members`` is not an iterable of members at all, or an option is impossible.
    """
    if isinstance(members, (str, bytes, Mapping)) or not isinstance(members, Iterable):
        raise InvalidFieldError(
            f"members: expected a sequence of members, got {type(members).__name__}", field="members"
        )
    scoring = Scoring(choose, options or ScoringOptions())
    return HccResults(_hcc.MemberBatch(members, scoring.resolve), scoring)
