"""Pack what pip has installed of preluflow into a wheel again, the one it was installed from.

python .ci/pack_wheel.py FOLDER     with the environment's own Python; needs the package wheel
"""

import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

PIPS_OWN = {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"}  # of these, a wheel has its own RECORD


def main(folder: Path) -> None:
    """Write FOLDER/preluflow-VERSION-TAGS.whl."""
    with tempfile.TemporaryDirectory() as unpacked:
        for file in distribution("preluflow").files or []:
            if file.parts[0].startswith("preluflow") and "__pycache__" not in file.parts and file.name not in PIPS_OWN:
                target = Path(unpacked, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file.locate(), target)
        subprocess.run([sys.executable, "-m", "wheel", "pack", unpacked, "--dest-dir", folder], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
