"""Check an sdist: every file under version control but those left out on purpose, letter by letter, and nothing else.

python .ci/check_sdist.py dist/preluflow-*.tar.gz
"""

import subprocess
import sys
import tarfile
from pathlib import Path

import tomllib

TREE = Path(__file__).parent.parent


def main(path: Path) -> None:
    """Exit with a message if something is wrong."""
    left_out = tomllib.loads((TREE / "pyproject.toml").read_text())["tool"]["scikit-build"]["sdist"]["exclude"]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=TREE, capture_output=True, text=True, check=True).stdout
    apart = tuple(f"{folder}/" for folder in left_out)
    expected = {name for name in tracked.split("\0") if name and not name.startswith(apart)}
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.isfile()]
        held = {member.name.split("/", 1)[1]: archive.extractfile(member).read() for member in members}
    held.pop("PKG-INFO")
    if held.keys() != expected:
        sys.exit(f"{path.name} lacks {sorted(expected - held.keys())} and has besides {sorted(held.keys() - expected)}")
    other = [name for name in expected if held[name] != (TREE / name).read_bytes()]
    if other:
        sys.exit(f"{path.name} has other contents than the tree in {sorted(other)}")
    print(f"{path.name}: {path.stat().st_size} bytes, {len(held)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
