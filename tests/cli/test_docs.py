"""What the pages say is so: their examples run, and what is generated is not stale."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from typer.main import get_command

from codesets import catalog
from engine.cli.app import app
from engine.rpc import SERVICES, methods

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [ROOT / "README.md", ROOT / "docs" / "client.md"]
BLOCK = re.compile(r"```python\n(.*?)```\s*```text\n(.*?)```", re.DOTALL)
CALL = re.compile(r"-d '([^']*)'\s*\\?\s*127\.0\.0\.1:50051 (\S+)/(\w+)")


def examples() -> list[object]:
    found = [(page, *block) for page in RUN for block in BLOCK.findall(page.read_text())]
    return [pytest.param(*block, id=f"{block[0].name} {i}") for i, block in enumerate(found, 1)]


@pytest.mark.parametrize(("page", "code", "printed"), examples())
def test_examples_print_what_the_page_says(page, code, printed, store, server, monkeypatch):
    monkeypatch.setenv("CODESET_ENGINE_PACKS", str(store))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code.replace("127.0.0.1:50051", server), page.name, "exec"), {})
    assert out.getvalue() == printed


def test_the_pages_have_no_python_that_is_not_run():
    assert len(examples()) == sum(page.read_text().count("```python") for page in RUN) == 5


def calls() -> list[object]:
    text = "\n".join(page.read_text() for page in PAGES)
    return [pytest.param(*call, id=call[2]) for call in CALL.findall(text)]


@pytest.mark.parametrize(("body", "service", "name"), calls())
def test_calls_with_grpcurl_are_answered(body, service, name, server):
    (method,) = [method for method in methods(service) if method.name == name]
    with grpc.insecure_channel(server) as channel:
        answer = channel.unary_unary(method.path)(json_format.Parse(body, method.request()).SerializeToString())
    assert method.response.FromString(answer).ByteSize() > 0


def test_calls_are_shown_for_every_service():
    assert {call.values[1] for call in calls()} == set(SERVICES)


def test_the_claim_of_the_readme_groups(run):
    (line,) = re.findall(r"```json\n(.*)\n```", (ROOT / "README.md").read_text())
    found = run("group", "drg", "-", stdin=line.encode())
    assert found.status == 0
    assert json.loads(found.out)["final_grouping"]["drg"] == 280


def test_the_readme_names_every_command_and_source():
    text = (ROOT / "README.md").read_text()
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`codeset-engine {name}" in text
    for wheel in catalog.wheels(catalog.targets(all=True)):
        assert wheel.name in text
        assert wheel.version in text


def test_commands_of_the_pages_exist(run):
    """Every ``codeset-engine …`` that a page shows is a command with options that it has."""
    shown = {
        match for page in PAGES for match in re.findall(r"codeset-engine ((?:[a-z]+ )+[^\n`|#]*)", page.read_text())
    }
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for words in (line.split() for line in shown):
        if words[0] not in commands:
            continue
        command = words[:2] if words[0] in ("group", "explain") else words[:1]
        text = run(*command, "--help").out
        for option in (word for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", text), (words, option)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["errors", "edits"])
def test_generated_pages_are_not_stale(page):
    spec = importlib.util.spec_from_file_location(f"{page}_page", ROOT / "docs" / f"{page}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = (ROOT / "docs" / f"{page}.md").read_text()
    assert module.page() == expected, f"run `python docs/{page}.py`"


@pytest.mark.parametrize("page", ["msdrg", "mce"])
def test_sections_that_the_code_refers_to_are_there(page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    sections = set(re.findall(r"^#+ (\d+(?:\.\d+)?)", text, re.MULTILINE)) | set(
        re.findall(r"\*\*(\d+\.\d+)\*\*", text)
    )
    sources = [*ROOT.glob(f"engine/_{page}.p*"), ROOT / "engine" / f"compile_{page}.py"]
    named = {
        number
        for source in sources
        for words in re.findall(r"sections? (\d+(?:\.\d+)?(?: (?:and|to) \d+(?:\.\d+)?)?)", source.read_text())
        for number in re.findall(r"\d+(?:\.\d+)?", words)
    }
    assert named
    assert named <= sections
