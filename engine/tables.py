"""What an importer hands over: plain tables, before they are compiled into a pack.

Importers (``codesets/``) fill these; compilers (``engine.compile_codes``, ``engine.compile_msdrg``) turn them
into the arrays the core reads. Neither side knows the other's files. Dates are integers CCYYMMDD;
``OPEN_END`` means "no last date known".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "OPEN_END",
    "AgeRange",
    "Cluster",
    "CodeSystemTables",
    "DiagnosisAttributes",
    "DischargeStatus",
    "FlaggedCode",
    "Formula",
    "MceTables",
    "MsdrgTables",
    "Node",
    "Note",
    "Replacement",
    "Source",
    "Spell",
    "WeightRow",
    "WeightTables",
]

OPEN_END = 99991231
"""The last date of a row whose source gives none, or whose source ends before the row does."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a table came from. Written into the manifest as it is.

    ``wheel`` and ``version`` name the pinned distribution (empty for a file given by path), ``sha256`` is the
    digest of the wheel or file, ``file`` the path inside the wheel or the file's own name, ``release`` what
    the file itself says it is,
    ``provides`` what was taken from it ("membership", "titles", "hierarchy", "notes", …).
    """

    wheel: str
    version: str
    sha256: str
    file: str
    release: str
    provides: tuple[str, ...]


class Spell(NamedTuple):
    """One unbroken stretch of days on which a code is valid (billable). Both dates are inclusive."""

    code: str
    first: int
    last: int


class Node(NamedTuple):
    """One node of the release's tree. Nodes are listed in pre-order: a parent before its children, subtrees
    unbroken.

    ``kind`` is one of ``engine.compile_codes.KINDS``. ``code`` is as the book prints it, with its dot
    ("A00.0", "A00-A09", "1").
    ``parent`` is the index of the parent in the list, -1 for a root. ``billable`` says that the code is
    complete: it may be reported without a further character. Empty strings stand for titles the sources do
    not have.
    """

    kind: str
    code: str
    parent: int
    billable: bool
    title: str
    short_title: str = ""


class Note(NamedTuple):
    """One instructional note, at the node where the book prints it (inheritance is derived, not stored).

    ``kind``: one of ``engine.compile_codes.NOTE_KINDS``. Order within a node is the book's. For
    ``seventh_character`` the text is the character, a TAB, and its meaning.
    """

    node: int
    kind: str
    text: str


class Replacement(NamedTuple):
    """An official conversion: from ``date`` on, ``new`` is reported where ``old`` was."""

    old: str
    new: str
    date: int


@dataclass(slots=True)
class CodeSystemTables:
    """One release of one code system.

    ``effective_from``/``effective_to`` are the first and last date this release answers for. ``spells`` hold
    the whole dated history the source knows, so that a release can tell an expired code from one that never
    was, and a code that is still to come; they are not limited to the release. ``nodes`` are the release's
    own tree. ``facts`` are further manifest entries ("hierarchy_from", "codes_without_title", …), JSON values
    only.
    """

    system: str
    release: str
    effective_from: int
    effective_to: int
    spells: list[Spell]
    nodes: list[Node]
    notes: list[Note] = field(default_factory=list)
    replacements: list[Replacement] = field(default_factory=list)
    axes: dict[str, dict[str, str]] = field(default_factory=dict)
    """ICD-10-PCS only: label of each axis value, keyed by axis context and character; see
    ``codesets.icd10pcs``."""
    sources: list[Source] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


class Formula(NamedTuple):
    """One row of a formula list: the first row, by ``rank``, whose ``text`` is true wins.

    ``drg`` 0 with a ``reroute`` sends the claim to the list of that MDC number (29: operating-room procedure
    unrelated to the principal diagnosis). ``med_surg`` is MEDICAL, SURGICAL or NA. A secondary diagnosis that
    has one of the ``suppression`` names does not count towards the severity this row sees.
    """

    rank: int
    drg: int
    base_drg: int
    med_surg: str
    reroute: int
    text: str
    suppression: tuple[str, ...]


class DiagnosisAttributes(NamedTuple):
    """What the grouper knows about a diagnosis code: MDC, severity (MCC, CC or NCC) and three sets of
    names."""

    mdc: int
    severity: str
    operands: tuple[str, ...]
    hac_names: tuple[str, ...]
    categories: tuple[str, ...]


class Cluster(NamedTuple):
    """Procedures that count as one when a claim has a code of every choice; ``suppressed_mdcs`` are the lists
    their own names leave."""

    suppressed_mdcs: tuple[int, ...]
    choices: tuple[tuple[str, ...], ...]


@dataclass(slots=True)
class MsdrgTables:
    """The tables of one MS-DRG grouper version, whichever file they came from.

    ``procedures`` holds the names of procedure codes and of the clusters' pseudo codes. ``exclusions`` maps a
    principal diagnosis to the id of the group of secondary diagnoses it excludes as CC or MCC; the ids mean
    nothing beyond these tables.
    """

    version: str
    effective_from: int
    effective_to: int
    diagnoses: dict[str, DiagnosisAttributes]
    procedures: dict[str, tuple[str, ...]]
    exclusions: dict[str, int]
    exclusion_groups: dict[int, tuple[str, ...]]
    gender_mdcs: dict[str, tuple[int, int]]
    """Code to (MDC of a male patient, MDC of a female patient)."""
    clusters: dict[str, Cluster]
    formulas: dict[int, list[Formula]]
    hac_formulas: dict[int, tuple[str, ...]]
    drg_titles: dict[int, str]
    mdc_titles: dict[int, str]
    hac_titles: dict[int, str]
    sources: list[Source] = field(default_factory=list)


class FlaggedCode(NamedTuple):
    """One row of a code master of the Medicare Code Editor: the code is valid from ``first`` to ``last``, both
    inclusive, and has these flags ("male", "manifestation", ...), in alphabetical order without repetition."""

    code: str
    first: int
    last: int
    flags: tuple[str, ...]


class AgeRange(NamedTuple):
    """Ages (years, inclusive) at which diagnoses of ``group`` ("newborn", "pediatric", "maternity", "adult") are
    plausible, on discharge dates from ``first`` to ``last``."""

    group: str
    first_age: int
    last_age: int
    first: int
    last: int


class DischargeStatus(NamedTuple):
    """A patient discharge status code, valid on discharge dates from ``first`` to ``last``."""

    code: int
    first: int
    last: int


@dataclass(slots=True)
class MceTables:
    """The tables of one release of the Medicare Code Editor, whichever file they came from.

    ``version`` is the number that CMS prints on results (431 is 43.1). ``termination`` is the last discharge date the
    release edits; no row ends later. Rows of one code keep their order: the first that is valid on a day counts.
    """

    release: str
    version: int
    termination: int
    icd10_diagnoses: list[FlaggedCode]
    icd10_procedures: list[FlaggedCode]
    icd9_diagnoses: list[FlaggedCode]
    icd9_procedures: list[FlaggedCode]
    age_ranges: list[AgeRange]
    discharge_statuses: list[DischargeStatus]
    sources: list[Source] = field(default_factory=list)


class HccRule(NamedTuple):
    """One row of a mapping of diagnoses to condition categories: ``code`` gives ``cc`` where all conditions hold.

    ``mce_ages`` and ``ages``: first and last age (years, inclusive) that the Medicare Code Editor and the model's
    own age edit admit; ``ALL_AGES`` where there is no condition. ``sex``: 1 male, 2 female, 0 either.
    """

    code: str
    cc: int
    mce_ages: tuple[int, int]
    ages: tuple[int, int]
    sex: int


ALL_AGES = (0, 255)
"""No condition on the age."""


@dataclass(slots=True)
class HccTables:
    """The tables of one CMS risk adjustment model for one payment year, whichever files they came from.

    ``coefficients`` are integer thousandths by segment column and variable; a variable that is missing from a column
    is not in that segment's model. ``addons`` are the rows of the graft duration, institutional graft and transplant
    files (ESRD models), in thousandths.
    """

    model: str
    payment_year: int
    rules: list[HccRule]
    hierarchies: dict[int, tuple[int, ...]]
    """Every payment HCC to the HCCs it suppresses."""
    categories: dict[str, tuple[int, ...]]
    """Diagnosis category to the HCCs of which any one sets it."""
    interactions: list[tuple[str, str, str]]
    """(interaction, operand, operand), in the order they are evaluated: an operand may be an earlier interaction."""
    coefficients: dict[str, dict[str, int]]
    labels: dict[str, str]
    addons: dict[str, int] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


class WeightRow(NamedTuple):
    """What CMS Table 5 gives for one MS-DRG.

    Weights are in ten-thousandths, mean lengths of stay in ten-thousandths of a day: exactly what is printed.
    ``relative_weight`` is the one that pays, after the cap on yearly reductions where the table has one;
    ``weight_before_cap`` the one before. None for what the table does not have.
    """

    drg: int
    relative_weight: int
    weight_before_cap: int | None
    geometric_mean_los: int | None
    arithmetic_mean_los: int | None
    post_acute_transfer: bool | None
    special_pay: bool | None


@dataclass(slots=True)
class WeightTables:
    """The MS-DRG relative weights of one fiscal year: ``release`` "2026". A DRG without a weight has no row."""

    release: str
    effective_from: int
    effective_to: int
    rows: list[WeightRow]
    sources: list[Source] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
