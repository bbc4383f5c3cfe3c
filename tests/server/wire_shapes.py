"""Requests as any conforming encoder may write them, and as none would: what the wire tests and the fuzzer feed.

Everything is drawn from a ``random.Random``: Hypothesis brings one that it can shrink, the fuzzer one of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from google.protobuf.descriptor import Descriptor

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
DIAGNOSES = ["I130", "I5023", "N186", "A41.9", "j9601", "E1165", "T8112XA", "Z9911", "O80", "S72001A", "B20", "L89154"]
PROCEDURES = ["0DTJ4ZZ", "02HK0KZ", "0JH609Z", "5A1955Z", "0SRD0J9", "027034Z", "XW033E5"]
NO_CODES = ["", " ", "nope", "A" * 9, "ä", "\u2028", "\x00", "A000\x00", "😀", "x" * 200]
CODES = [*DIAGNOSES, *PROCEDURES, *NO_CODES]
VERSIONS = ["43.1", "42.0", "40.1", "", "9.9", "43.1 ", "v" * 40, "ü"]
DATES = [0, 20251001, 20230115, 20260230, 19000101, -1, 99999999]
TEXTS = ["", "c1", "null", "NULL", "claim-0001", "é", "日本", "x" * 130, "y" * 20_000]
NOT_UTF8 = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82", b"aaaaaaaa\x80"]


def varint(number: int, longer: int = 0) -> bytes:
    """Encode; ``longer`` bytes more than needed, as far as there may be."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    for _ in range(min(longer, 10 - len(out))):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def tag(field: int, kind: int) -> bytes:
    return varint(field << 3 | kind)


def text(field: int, value: bytes | str, longer: int = 0) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return tag(field, LENGTH) + varint(len(data), longer) + data


def number(field: int, value: int, longer: int = 0) -> bytes:
    return tag(field, VARINT) + varint(value, longer)


def unknown(rng: Random, depth: int = 0) -> bytes:
    """A field that no message has, or a known number with another wire type."""
    field = rng.choice([1, 2, 3, 10, 13, 19, 100, 5000, (1 << 29) - 1])
    kind = rng.choice([VARINT, FIXED64, LENGTH, FIXED32, GROUP])
    if kind == VARINT:
        return number(max(field, 13), rng.getrandbits(64), rng.choice([0, 0, 0, 1]))
    if kind == FIXED64:
        return tag(field, kind) + rng.randbytes(8)
    if kind == FIXED32:
        return tag(field, kind) + rng.randbytes(4)
    if kind == LENGTH:
        return text(max(field, 13), rng.randbytes(rng.randrange(6)))
    inner = b"".join(unknown(rng, depth + 1) for _ in range(rng.randrange(3))) if depth < 5 else b""
    return tag(field, GROUP) + inner + tag(field, END_GROUP)


def any_int(rng: Random) -> int:
    return rng.choice([0, 1, 2, 3, 4, 20, 99, 255, 256, -1, (1 << 31) - 1, 1 << 32, (1 << 32) + 1, rng.getrandbits(64)])


def claim(rng: Random) -> bytes:
    """The fields of a claim; usually one that groups."""
    sane = rng.random() < 0.7
    fields = []
    diagnoses = [rng.choice(CODES) for _ in range(rng.choice([0, 1, 2, 3, 6, 12]))]
    fields += [text(10, code) for code in diagnoses]
    fields += [text(12, rng.choice(CODES)) for _ in range(rng.choice([0, 0, 1, 2, 5]))]
    poa = "".join(rng.choice("YNUW1E ") for _ in diagnoses)
    if sane:
        fields += [text(1, rng.choice(TEXTS)), text(2, rng.choice(VERSIONS[:3])), text(11, rng.choice(["", poa]))]
        fields += [number(5, rng.randrange(4)), number(6, rng.choice([1, 7, 20, 99])), number(7, rng.randrange(4))]
    else:
        for maker in _SINGULAR:
            fields += [maker(rng) for _ in range(rng.choice([0, 1, 1, 2]))]
        fields += rng.choices([text(11, poa), text(11, poa + "é"), text(11, "é" * len(diagnoses))], k=rng.randrange(3))
    if rng.random() < 0.4:
        fields += [unknown(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        rng.shuffle(fields)
    return b"".join(fields)


_SINGULAR: list[Callable[[Random], bytes]] = [
    lambda rng: text(1, rng.choice(TEXTS), rng.choice([0, 0, 1])),
    lambda rng: text(2, rng.choice(VERSIONS)),
    lambda rng: number(3, rng.choice(DATES)),
    lambda rng: number(4, any_int(rng)),
    lambda rng: number(5, any_int(rng), rng.choice([0, 0, 3])),
    lambda rng: number(6, any_int(rng)),
    lambda rng: number(7, any_int(rng)),
    lambda rng: number(8, any_int(rng)),
    lambda rng: text(9, rng.choice([*TEXTS, *CODES])),
]


def options(rng: Random) -> bytes:
    fields = [number(rng.choice([1, 2, 3]), rng.choice([0, 1, 2, 2, 1])) for _ in range(rng.randrange(4))]
    if rng.random() < 0.1:
        fields.append(number(rng.choice([1, 2, 3]), any_int(rng)))
    if rng.random() < 0.2:
        fields.append(unknown(rng))
    return b"".join(fields)


def drg_request(rng: Random) -> bytes:
    """A BatchGroupDrgRequest that is protobuf."""
    fields = [text(1, claim(rng), rng.choice([0, 0, 0, 2])) for _ in range(rng.choice([0, 1, 1, 2, 4]))]
    fields += [text(2, options(rng)) for _ in range(rng.choice([0, 0, 1, 2]))]
    fields += [unknown(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    rng.shuffle(fields)
    return b"".join(fields)


EDITED = [
    *DIAGNOSES,
    "C61",
    "O80",
    "Z370",
    "I5021",
    "Z006",
    "V5413XA",
    "P0700",
    "H5440",
    "71595",
    "2500",
    "0000",
    "",
    " .",
]
EDITED_PROCEDURES = [*PROCEDURES, "10D00Z1", "5A1955Z", "02YA0Z0", "8151", "8154", "3751", "000", ""]


def edited_claim(rng: Random) -> bytes:
    """The fields of a claim that the editor looks at; usually all that it needs."""
    if rng.random() < 0.2:
        return claim(rng)
    fields = [text(10, rng.choice(EDITED)) for _ in range(rng.choice([0, 1, 2, 3, 6, 12]))]
    fields += [text(12, rng.choice(EDITED_PROCEDURES)) for _ in range(rng.choice([0, 0, 1, 2, 5]))]
    fields += [text(rng.choice([9, 10, 12]), rng.choice(CODES)) for _ in range(rng.choice([0, 0, 1]))]
    fields += [text(1, rng.choice(TEXTS)), text(9, rng.choice([*EDITED, "", "null"]))]
    fields += [text(2, rng.choice(VERSIONS)), text(11, "Y" * rng.choice([0, 0, 0, 1]))]
    fields += [number(3, rng.choice([20260401, 20230115, 20250231, 20041001, 20120229, *DATES]))]
    for field, values in _GIVEN.items():
        if rng.random() < 0.9:
            fields.append(number(field, any_int(rng) if rng.random() < 0.05 else rng.choice(values)))
    if rng.random() < 0.2:
        fields += [unknown(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        rng.shuffle(fields)
    return b"".join(fields)


_GIVEN = {
    4: [0, 7, 30, 64, 99, 124, 125, -1],
    5: [0, 1, 1, 2, 2, 3],
    6: [0, 1, 1, 20, 7, 95, 300, -1],
    8: [0, 3, 4, 10, -1],
    13: [0, 9, 9, 10, 10, 11],
}


def unwanted_edits(rng: Random) -> bytes:
    """MceOptions, their numbers packed or one by one."""
    fields = []
    for _ in range(rng.randrange(4)):
        numbers = [rng.choice([1, 3, 9, 14, 25, 30, 33, 36]) for _ in range(rng.randrange(4))]
        if rng.random() < 0.1:
            numbers.append(rng.choice([31, 32, 37, 64, 65, any_int(rng)]))
        field = rng.choice([1, 2, 3])
        if rng.random() < 0.5:
            fields.append(text(field, b"".join(varint(each, rng.choice([0, 0, 2])) for each in numbers)))
        else:
            fields += [number(field, each) for each in numbers]
    if rng.random() < 0.2:
        fields.append(unknown(rng))
    return b"".join(fields)


def edit_request(rng: Random, claims: list[int] | None = None) -> bytes:
    """A BatchEditClaimsRequest that is protobuf; with one claim an EditClaimRequest. ``claims``: numbers of them to
    choose from.
    """
    fields = [text(1, edited_claim(rng), rng.choice([0, 0, 2])) for _ in range(rng.choice(claims or [0, 1, 1, 2, 4]))]
    fields += [text(2, rng.choice(["", "43.1", "43.1", "44.0", "9.9"])) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
    fields += [text(3, unwanted_edits(rng)) for _ in range(rng.choice([0, 0, 1, 2]))]
    fields += [number(4, rng.choice([0, 1, 1, 2, 1 << 40])) for _ in range(rng.choice([0, 1, 1, 2]))]
    fields += [text(5, options(rng)) for _ in range(rng.choice([0, 0, 1, 2]))]
    fields += [unknown(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    rng.shuffle(fields)
    return b"".join(fields)


VALIDATED = [*CODES, "A00", "A01.0", "T81.12", "A00-A09", "1", "Z99.99Z", "it's", "S02.3XXG", "S63.132A", "C78.31"]
"""Codes, headers, groups and what is none: with DATES all that can be said of one."""


def code_item(rng: Random) -> bytes:
    fields = [text(1, rng.choice(VALIDATED)) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    fields += [text(2, rng.choice(SYSTEMS)) for _ in range(rng.choice([0, 0, 0, 1]))]
    fields += [text(3, rng.choice(RELEASES)) for _ in range(rng.choice([0, 0, 0, 1]))]
    fields += [number(4, rng.choice(DATES)) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    if rng.random() < 0.2:
        fields.append(unknown(rng))
    if rng.random() < 0.3:
        rng.shuffle(fields)
    return b"".join(fields)


SYSTEMS = ["", "icd10cm", "icd10pcs", "http://hl7.org/fhir/sid/icd-10-cm", "msdrg", "icd11", "é"]
RELEASES = ["", "2026", "2026-04", "2027", "43.1", "1999"]


def code_request(rng: Random) -> bytes:
    """A BatchValidateCodesRequest that is protobuf."""
    fields = [text(4, code_item(rng)) for _ in range(rng.choice([0, 1, 3, 8]))]
    fields += [text(1, rng.choice(SYSTEMS)) for _ in range(rng.choice([0, 1, 1, 2]))]
    fields += [text(1, "icd10cm")] * rng.choice([0, 1])
    fields += [text(2, rng.choice(RELEASES)) for _ in range(rng.choice([0, 0, 1]))]
    fields += [number(3, rng.choice(DATES)) for _ in range(rng.choice([0, 0, 1]))]
    if rng.random() < 0.2:
        fields.append(unknown(rng))
    if rng.random() < 0.5:
        rng.shuffle(fields)
    return b"".join(fields)


def one_code_request(rng: Random) -> bytes:
    """A ValidateCodeRequest that is protobuf."""
    fields = [text(1, rng.choice(SYSTEMS)) for _ in range(rng.choice([0, 1, 2]))]
    fields += [text(1, "icd10cm")] * rng.choice([0, 1, 1])
    fields += [text(2, rng.choice(VALIDATED)) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    fields += [text(3, rng.choice(RELEASES), rng.choice([0, 1])) for _ in range(rng.choice([0, 0, 1]))]
    fields += [number(4, rng.choice(DATES)) for _ in range(rng.choice([0, 1, 1, 2]))]
    if rng.random() < 0.2:
        fields.append(unknown(rng))
    if rng.random() < 0.3:
        rng.shuffle(fields)
    return b"".join(fields)


def fixed(field: int, value: float) -> bytes:
    return tag(field, FIXED64) + struct.pack("<d", value)


MODELS = ["V22", "V24", "V28", "ESRD_V21", "ESRD_V24", "RXHCC_V08_T", "RXHCC_V08_X"]
NO_MODELS = ["", "v28", "ESRD-V24", "Esrd_v21", "V99", "V28 ", "é", "m" * 40]
MAPPED = ["E11.22", "I5022", "e119", "I130", "N186", "B20", "C50911", "F200", "G35", "Z944", "J449", "I2510", "Z992"]
DUALS = ["", "00", "01", "02", "04", "06", "08", "09", "NA", "2", "é", "020"]
BORN = [19500101, 19620202, 19620201, 19610131, 20260201, 20251231, 19010101, 0]
NO_BIRTHS = [19000131, 20270101, 19500230, 20260202, -1, 195001, (1 << 31) - 1, 99999999]


def member(rng: Random) -> bytes:
    """The fields of a RiskMember; usually one that can be scored."""
    sane = rng.random() < 0.8
    fields = [text(16, rng.choice(MAPPED)) for _ in range(rng.choice([0, 1, 2, 5, 12]))]
    fields += [text(16, rng.choice(CODES), rng.choice([0, 0, 1])) for _ in range(rng.choice([0, 0, 0, 1, 3]))]
    fields += [text(1, rng.choice(TEXTS)) for _ in range(rng.choice([0, 1, 1, 2]))]
    if sane:
        age = [number(4, rng.choice(BORN[:-1]))] if rng.random() < 0.5 else [number(5, rng.choice([0, 40, 64, 65, 90]))]
        fields += [text(2, rng.choice(MODELS)), number(3, rng.choice([2026, 2026, 2026, 2025, 2024])), *age]
        fields += [number(6, rng.choice([1, 2])), number(7, rng.randrange(4))]
        fields += [number(field, 1) for field in (8, 9, 10, rng.choice([11, 12]), 13, 14, 15) if rng.random() < 0.2]
        fields += [number(field, 1) for field in (17, 18, 19, 22) if rng.random() < 0.3]
        fields += [text(20, rng.choice(DUALS)) for _ in range(rng.choice([0, 1, 1]))]
        fields += [number(21, rng.choice([0, 1])) for _ in range(rng.choice([0, 1, 2]))]
        fields += [number(23, rng.choice([0, 1, 3, 4, 9, 10, 500, -1])) for _ in range(rng.choice([0, 1]))]
    else:
        for maker in _OF_MEMBER:
            fields += [maker(rng) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        for field in (*range(8, 16), 17, 18, 19, 21, 22, 23):
            fields += [number(field, any_int(rng), rng.choice([0, 0, 3])) for _ in range(rng.choice([0, 0, 1, 2]))]
    if rng.random() < 0.3:
        fields += [unknown(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        rng.shuffle(fields)
    return b"".join(fields)


_OF_MEMBER: list[Callable[[Random], bytes]] = [
    lambda rng: text(2, rng.choice([*MODELS, *NO_MODELS])),
    lambda rng: number(3, rng.choice([2026, 2026, 2026, 2025, 0, 1999, 9999, 10000, -1, any_int(rng)])),
    lambda rng: number(4, rng.choice([*BORN, *NO_BIRTHS])),
    lambda rng: number(5, rng.choice([0, 40, 64, 65, 125, 126, -1, any_int(rng)])),
    lambda rng: number(6, rng.choice([1, 2, 1, 2, any_int(rng)])),
    lambda rng: number(7, rng.choice([0, 1, 2, 3, any_int(rng)]), rng.choice([0, 3])),
    lambda rng: text(20, rng.choice([*DUALS, *CODES])),
]


def factors(rng: Random) -> bytes:
    """PaymentFactors; usually possible ones."""
    fields = [text(1, rng.choice(["V28", "V24", "v28", "ESRD_V24", "RXHCC_V08_X", "V99"]))]
    for field in (2, 3, 4, 5):
        usual = [0.1, 1.067, 2.5, 10.0] if field < 5 else [0.0, 0.059, 0.999]
        fields += [fixed(field, rng.choice(usual)) for _ in range(rng.choice([0, 1, 2]))]
    if rng.random() < 0.1:
        fields.append(rng.choice([text(1, ""), fixed(2, 0.0), fixed(5, 1.0), fixed(2, 1.0001), fixed(3, float("nan"))]))
    if rng.random() < 0.2:
        fields.append(unknown(rng))
    return b"".join(fields)


def blend(rng: Random) -> list[bytes]:
    """BlendWeights; usually two that add up."""
    if rng.random() < 0.1:
        return [text(1, rng.choice([*MODELS, ""])) + fixed(2, rng.choice([0.0, 0.5, 1.0]))]
    parts = rng.choice([("V28", "V24"), ("V28", "V22"), ("v28", "v24"), ("V22", "V24"), ("ESRD_V21", "ESRD_V24")])
    weight = rng.choice([0.0, 0.1, 0.33, 0.67, 1.0])
    weights = [weight, round(1 - weight, 3)]
    found = [text(1, name) + fixed(2, value) for name, value in zip(parts, weights, strict=True)]
    if rng.random() < 0.2:
        found = [part + unknown(rng) for part in found]
    return found


def hcc_options(rng: Random) -> bytes:
    """HccOptions; now and then impossible ones."""
    fields = [number(1, rng.choice([0, 1, 2, 2])) for _ in range(rng.choice([0, 1, 1, 2]))]
    fields += [text(2, factors(rng)) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    if rng.random() < 0.25:
        fields += [text(3, part) for part in blend(rng)]
    fields += [number(field, rng.choice([0, 1, 1])) for field in (4, 5) if rng.random() < 0.2]
    if rng.random() < 0.05:
        fields.append(number(rng.choice([1, 4, 5]), any_int(rng)))
    if rng.random() < 0.2:
        fields.append(unknown(rng))
    if rng.random() < 0.2:
        rng.shuffle(fields)
    return b"".join(fields)


def hcc_request(rng: Random, members: list[int] | None = None) -> bytes:
    """A BatchScoreHccRequest that is protobuf; with members that are pieces of one, a ScoreHccRequest. ``members``:
    numbers of them to choose from."""
    fields = [text(1, member(rng), rng.choice([0, 0, 2])) for _ in range(rng.choice(members or [0, 1, 1, 2, 4]))]
    fields += [text(2, hcc_options(rng)) for _ in range(rng.choice([0, 0, 1, 2]))]
    fields += [unknown(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    rng.shuffle(fields)
    return b"".join(fields)


def damaged(rng: Random, raw: bytes) -> bytes:
    """The same with something wrong, often no protobuf any more."""
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(6)
        if what == 0:
            del data[at:]
        elif what == 1 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif what == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif what == 3:
            del data[at : at + rng.randrange(1, 4)]
        elif what == 4:
            data[at:at] = rng.choice(NOT_UTF8)
        else:
            data += rng.choice(
                [
                    b"\x00",
                    tag(1, END_GROUP),
                    tag(7, GROUP),
                    b"\x0e",
                    b"\x0f\x00",
                    text(1, text(1, rng.choice(NOT_UTF8))),
                    b"\xf8\xff\xff\xff\x1f\x01",
                    tag(1, LENGTH) + varint(1 << 31),
                    tag(9, VARINT) + b"\xff" * 10 + b"\x01",
                ]
            )
    return bytes(data)


def scrambled(rng: Random, descriptor: Descriptor, raw: bytes) -> bytes:
    """Encode the same message as another encoder might: in other order, in pieces, not packed, with unknown fields."""
    fields: list[tuple[int, bytes]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(raw):
        field_number, kind = divmod(varint(), 8)
        if kind == VARINT:
            fields.append((field_number, number(field_number, varint(), rng.choice([0, 0, 1]))))
            continue
        if kind == FIXED64:
            fields.append((field_number, tag(field_number, kind) + raw[at : at + 8]))
            at += 8
            continue
        size = varint()
        data = raw[at : at + size]
        at += size
        field = descriptor.fields_by_number[field_number]
        if field.message_type is not None:
            data = scrambled(rng, field.message_type, data)
            if not field.is_repeated and rng.random() < 0.3:
                # A piece that another one replaces or completes.
                first = number(2, 7) + text(8, "old") if field.message_type.name == "Grouping" else b""
                fields.append((field_number, text(field_number, first)))
        elif field.enum_type is not None:
            values = list(data)
            if rng.random() < 0.5:
                fields += [(field_number, number(field_number, value)) for value in values]
                continue
        fields.append((field_number, text(field_number, data, rng.choice([0, 0, 2]))))
    if rng.random() < 0.5:
        # Fields in any order, those of one number in theirs.
        order = [field for field, _ in fields]
        rng.shuffle(order)
        queues: dict[int, list[bytes]] = {}
        for field_number, data in fields:
            queues.setdefault(field_number, []).append(data)
        fields = [(field_number, queues[field_number].pop(0)) for field_number in order]
    for _ in range(rng.choice([0, 0, 1])):
        fields.insert(rng.randrange(len(fields) + 1), (0, text(900, b"?")))
    return b"".join(data for _, data in fields)
