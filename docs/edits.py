"""Write ``edits.md`` from the code editor's table of edits.

    python docs/edits.py

A test compares the file with what this would write.
"""

from __future__ import annotations

from pathlib import Path

from engine.mce import EDITS, AgeConflict, EditInfo, EditType

HEAD = """# Edits of the Medicare Code Editor

What the editor can find on a claim, in the order of CMS. `GroupingService.ListEdits`, `Client.edits()` and
`engine.mce.EDITS` give the same table; [mce.md](mce.md) has the rules. In the API the names begin with `MCE_EDIT_`.
No. is the ordinal of CMS; numbers that are not here are reserved by CMS and never raised.

This page is written by `docs/edits.py`.

"""

PAYMENT = {
    EditType.PREPAYMENT: "prepayment: resolve before the claim is paid",
    EditType.POSTPAYMENT: "postpayment: review after the claim is paid",
    EditType.NONE: "none",
}


def page() -> str:
    """Return the text of ``edits.md``."""
    rows = "".join(
        f"| {info.number} | [{info.edit.name}](#{_anchor(info)}) | {info.title} | {info.payment.name.lower()} |\n"
        for info in EDITS.values()
    )
    conflicts = ", ".join(conflict.name for conflict in AgeConflict if conflict is not AgeConflict.NONE)
    return (
        f"{HEAD}| No. | edit | title | payment type |\n|---|---|---|---|\n{rows}\n"
        f"An AGE_CONFLICT is of one of the types {conflicts}.\n" + "".join(map(section, EDITS.values()))
    )


def section(info: EditInfo) -> str:
    """Return the section of one edit."""
    versions = " and ".join(f"ICD-{version}" for version in info.icd_versions)
    return (
        f"\n## {info.edit.name}\n\n**{info.title}.** {info.meaning} {info.action}\n\n"
        f"Payment type: {PAYMENT[info.payment]}. Raised on: {', '.join(info.raised_on)}; {versions} claims.\n"
    )


def _anchor(info: EditInfo) -> str:
    return info.edit.name.lower()


if __name__ == "__main__":
    (Path(__file__).parent / "edits.md").write_text(page(), encoding="utf-8")
