"""Check a wheel: nothing missing, nothing that does not belong, Python as in the tree, not too large.

python .ci/check_wheel.py dist/preluflow-*.whl
"""

import re
import sys
import zipfile
from pathlib import Path

LIMIT = 4e6  # bytes
MODULES = {"_core_v2", "_core_v3", "_core_v4", "_cpu"}  # off x86: _core_base and _cpu
ALLOWED = re.compile(
    r"preluflow/([a-z0-9_/]+\.pyi?|py\.typed|_c[a-z0-9_]+\.[\w.-]+)$|preluflow-[\w.]+\.dist-info/[\w./]+$"
)


def main(path: Path) -> None:
    """Exit with a message if something is wrong."""
    names = zipfile.ZipFile(path).namelist()
    foreign = [name for name in names if not ALLOWED.match(name)]
    if foreign:
        sys.exit(f"{path.name} holds what does not belong there: {foreign}")
    modules = {Path(name).name.split(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    expected = MODULES if "_core_v2" in modules else {"_core_base", "_cpu"}
    if modules != expected:
        sys.exit(f"{path.name} holds the modules {sorted(modules)}, expected {sorted(expected)}")
    sources = {name.removeprefix("preluflow/") for name in names if name.endswith(".py")}
    tree = Path(__file__).parent.parent / "python" / "preluflow"
    files = {str(file.relative_to(tree)): file for file in tree.rglob("*.py")}
    if files.keys() - sources:
        sys.exit(f"{path.name} lacks {sorted(files.keys() - sources)}")
    archive = zipfile.ZipFile(path)
    other = [name for name, file in files.items() if archive.read(f"preluflow/{name}") != file.read_bytes()]
    if other:
        sys.exit(f"{path.name} has other contents than the tree in {sorted(other)}")
    if path.stat().st_size > LIMIT:
        sys.exit(f"{path.name} has {path.stat().st_size} bytes, more than {LIMIT:.0f}")
    print(f"{path.name}: {path.stat().st_size} bytes, modules {sorted(modules)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
