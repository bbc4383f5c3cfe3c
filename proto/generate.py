"""Generate the Python classes of ``proto/`` into ``engine/_pb/``.

Runs whenever the package is built: pyproject.toml names ``BuildPy`` as the ``build_py`` command, so
wheels, editable installs and plain ``setup.py`` builds all pass here. ``python proto/generate.py``
(``make proto``) does the same by hand after a change of a ``.proto``. The result is never committed.
Needs grpcio-tools, which brings protoc.

Only messages are generated: both ends take the methods of the services from the descriptors, so there is
no generated gRPC code and with it no demand on the version of grpcio.

protoc writes imports as if the directory of the ``.proto`` were a top-level package, which would put a
package named ``codeset`` beside ``engine``. They are rewritten to ``engine._pb.codeset.v1``; the names
of the files in the descriptors, which reflection shows, stay ``codeset/v1/*.proto``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools.command.build_py import build_py

PROTO = Path(__file__).resolve().parent
OUTPUT = PROTO.parent / "engine" / "_pb"
PACKAGE = "engine._pb"

_INIT = '''"""Classes generated from proto/ when the package was built. Never edited, never committed."""
'''
_ROOT = """
PROTO_SHA256 = "{digest}"
\"\"\"Digest of the protobuf sources these classes were generated from; see ``proto/generate.py``.\"\"\"
"""


def sources() -> list[Path]:
    """Return the ``.proto`` files, sorted."""
    found = sorted(PROTO.rglob("*.proto"))
    if not found:
        raise FileNotFoundError(f"no .proto file under {PROTO}; the source tree is not complete")
    return found


def digest() -> str:
    """Return the SHA-256 over names and contents of the ``.proto`` files, line ends normalised."""
    total = hashlib.sha256()
    for source in sources():
        content = source.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{source.relative_to(PROTO).as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def generate(output: Path = OUTPUT) -> list[str]:
    """Put freshly generated classes in place of ``output``; return the dotted names of the packages written.

    A failing protoc leaves ``output`` as it was.
    """
    # Here, not above: reading the digest needs no compiler.
    import grpc_tools
    from grpc_tools import protoc

    included = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory(prefix="codeset-proto-", dir=output.parent) as temporary:
        fresh = Path(temporary) / "_pb"
        fresh.mkdir()
        paths = [f"--proto_path={PROTO}", f"--proto_path={included}"]
        outputs = [f"--python_out={fresh}", f"--pyi_out={fresh}"]
        status = protoc.main(["protoc", *paths, *outputs, *(str(source) for source in sources())])
        if status != 0:
            raise RuntimeError(f"protoc failed with status {status}; its messages are above")
        tops = "|".join(sorted({source.relative_to(PROTO).parts[0] for source in sources()}))
        for file in [*fresh.rglob("*.py"), *fresh.rglob("*.pyi")]:
            file.write_text(_rehome(file.read_text(encoding="utf-8"), tops), encoding="utf-8", newline="\n")
        directories = [fresh, *(d for d in sorted(fresh.rglob("*")) if d.is_dir())]
        for directory in directories:
            text = _INIT + (_ROOT.format(digest=digest()) if directory == fresh else "")
            (directory / "__init__.py").write_text(text, encoding="utf-8", newline="\n")
        packages = [".".join((PACKAGE, *directory.relative_to(fresh).parts)) for directory in directories]
        shutil.rmtree(output, ignore_errors=True)
        fresh.rename(output)
    return packages


def _rehome(text: str, tops: str) -> str:
    """Rewrite imports and module names of one generated file from ``codeset`` to ``engine._pb.codeset``."""
    text = re.sub(rf"^(from|import) ({tops})\b", rf"\1 {PACKAGE}.\2", text, flags=re.MULTILINE)
    # The name of the module that classes say they live in, by which pickle finds them.
    return re.sub(rf"(BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')({tops})\.", rf"\1{PACKAGE}.\2.", text)


class BuildPy(build_py):  # type: ignore[misc,unused-ignore]
    """``build_py`` that generates first.

    The packages were listed before there was anything to find in ``engine/_pb``, so the new ones are added
    by name.
    """

    packages: Any

    def run(self) -> None:
        packages = generate()
        self.packages = sorted({*(self.packages or []), *packages})
        # setuptools computed the file lists of the packages it knew.
        self.__dict__.pop("data_files", None)
        super().run()


if __name__ == "__main__":
    written = generate()
    sys.stdout.write(f"{os.path.relpath(OUTPUT)}: {', '.join(written)}\n")
