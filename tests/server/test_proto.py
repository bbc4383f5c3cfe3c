"""The API's sources: lint, and that the classes in use were generated from them."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from server_harness import ROOT

import engine._pb
from engine import drg, explain, mce, rpc
from engine._pb.codeset.v1 import catalog_pb2, editing_pb2, error_pb2, grouping_pb2, scoring_pb2, terminology_pb2
from engine.codes import Status, Subsumption
from engine.compile_codes import KINDS, NOTE_KINDS


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("proto_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load(ROOT / "proto" / "generate.py")


def test_buf_lint() -> None:
    buf = Path(sysconfig.get_path("scripts")) / "buf"
    for arguments in (["lint"], ["format", "--diff", "--exit-code"]):
        done = subprocess.run(
            [str(buf), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_classes_are_not_stale() -> None:
    assert generate.digest() == engine._pb.PROTO_SHA256, "run `make proto`"


def test_the_classes_are_those_of_the_sources() -> None:
    from grpc_tools import protoc

    with tempfile.NamedTemporaryFile(suffix=".pb") as out:
        import grpc_tools

        included = Path(grpc_tools.__file__).parent / "_proto"
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={generate.PROTO}",
                f"--proto_path={included}",
                f"--descriptor_set_out={out.name}",
                *map(str, generate.sources()),
            ]
        )
        assert status == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file
    used: dict[str, Any] = {
        module.DESCRIPTOR.name: module.DESCRIPTOR
        for module in (catalog_pb2, editing_pb2, error_pb2, grouping_pb2, scoring_pb2, terminology_pb2)
    }
    assert {file.name for file in files} == set(used)
    for file in files:
        compiled = descriptor_pb2.FileDescriptorProto()
        used[file.name].CopyToProto(compiled)
        for each in (file, compiled):
            # protoc fills these in; the runtime does not keep them.
            for message in each.message_type:
                for field in message.field:
                    field.ClearField("json_name")
        assert file == compiled


def test_a_change_of_a_source_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in generate.sources():
        copy = tmp_path / source.relative_to(generate.PROTO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(generate, "PROTO", tmp_path)
    assert generate.digest() == engine._pb.PROTO_SHA256
    changed = tmp_path / "codeset" / "v1" / "error.proto"
    changed.write_bytes(changed.read_bytes() + b"// more\n")
    assert generate.digest() != engine._pb.PROTO_SHA256


def test_generation_replaces_what_was_there_and_failure_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "_pb"
    (output / "old").mkdir(parents=True)
    packages = generate.generate(output)
    assert packages == ["engine._pb", "engine._pb.codeset", "engine._pb.codeset.v1"]
    assert not (output / "old").exists()
    names = {path.relative_to(output).as_posix() for path in output.rglob("*.py*")}
    assert {"__init__.py", "codeset/v1/grouping_pb2.py", "codeset/v1/grouping_pb2.pyi"} <= names
    broken = tmp_path / "proto" / "codeset" / "v1"
    broken.mkdir(parents=True)
    (broken / "broken.proto").write_text("nonsense")
    monkeypatch.setattr(generate, "PROTO", tmp_path / "proto")
    with pytest.raises(RuntimeError, match="protoc"):
        generate.generate(output)
    assert {path.relative_to(output).as_posix() for path in output.rglob("*.py*")} == names
    assert {path.name for path in tmp_path.iterdir()} == {"_pb", "proto"}


def test_messages_can_be_pickled() -> None:
    claim = grouping_pb2.InpatientClaim(claim_id="1", age=0)
    copy = pickle.loads(pickle.dumps(claim))
    assert copy == claim
    assert copy.HasField("age")


def test_no_package_beside_engine() -> None:
    code = "import sys, engine.client; print('codeset' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "False"


def names(enum: Any, prefix: str) -> dict[str, int]:
    assert all(name.startswith(prefix) for name in enum.keys())  # noqa: SIM118
    return {name.removeprefix(prefix): number for name, number in enum.items()}


@pytest.mark.parametrize(
    "name",
    [
        "AdmitDiagnosisFlag",
        "AffectFlags",
        "AffectsDrg",
        "HacCriteria",
        "HacStatus",
        "HacUsage",
        "HospitalStatus",
        "MedSurg",
        "PoaError",
        "ReturnCode",
        "Severity",
        "SeverityUsage",
        "Sex",
        "TieBreaker",
    ],
)
def test_the_enumerations_of_the_grouper_are_those_of_the_api(name: str) -> None:
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in name).removeprefix("_") + "_"
    expected = {"UNSPECIFIED": 0} | {member.name: member.value for member in getattr(drg, name)}
    assert names(getattr(grouping_pb2, name), prefix) == expected


def test_the_other_enumerations_are_those_of_the_api() -> None:
    assert names(grouping_pb2.DrgDetail, "DRG_DETAIL_") == {d.name: d.value for d in drg.Detail}
    assert names(grouping_pb2.SeverityReason, "SEVERITY_REASON_") == {
        "UNSPECIFIED": 0,
        **{reason.name: reason.value for reason in explain.SeverityReason},
    }
    for kind in (mce.AgeConflict, mce.EditType, mce.MceEdit):
        prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in kind.__name__).removeprefix("_") + "_"
        expected = {"UNSPECIFIED": 0} | {member.name: member.value for member in kind}
        assert names(getattr(editing_pb2, kind.__name__), prefix) == expected
    assert names(terminology_pb2.CodeStatus, "CODE_STATUS_") == {s.name: s.value for s in Status}
    assert names(terminology_pb2.NodeKind, "NODE_KIND_") == {
        "UNSPECIFIED": 0,
        **{kind.upper(): i for i, kind in enumerate(KINDS, 1)},
    }
    assert names(terminology_pb2.NoteKind, "NOTE_KIND_") == {
        "UNSPECIFIED": 0,
        **{kind.upper(): i for i, kind in enumerate(NOTE_KINDS, 1)},
    }
    outcomes = names(terminology_pb2.SubsumptionOutcome, "SUBSUMPTION_OUTCOME_")
    assert set(outcomes) == {"UNSPECIFIED", *(s.name for s in Subsumption)}


def test_the_claim_of_the_engine_has_the_fields_of_the_message() -> None:
    import dataclasses

    fields = {field.name for field in dataclasses.fields(drg.InpatientClaim)}
    assert fields == set(grouping_pb2.InpatientClaim.DESCRIPTOR.fields_by_name)
    assert set(drg.Grouping._fields) == set(grouping_pb2.Grouping.DESCRIPTOR.fields_by_name)


def test_requests_and_responses_belong_to_one_method() -> None:
    used = [t for service in rpc.SERVICES for m in rpc.methods(service) for t in (m.request, m.response)]
    assert len(used) == len(set(used))
