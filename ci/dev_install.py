"""Makes the source tree importable in this Python's environment, without building anything.

Writes hpcore.pth (python/), the metadata that scikit-build-core derives from pyproject.toml (so
that entry points are found) and the `hpcore` command. The native modules are built in place by
ci/build.sh, so nothing runs at import.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """#!{python}
import sys

from hpcore.cli.main import main

sys.exit(main())
"""


def write_metadata(site: Path) -> Path:
    """Replaces hpcore's .dist-info in `site`; returns its path."""
    from scikit_build_core.build import prepare_metadata_for_build_wheel

    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, prepare_metadata_for_build_wheel(folder))
        for old in site.glob("hpcore-*.dist-info"):
            shutil.rmtree(old)
        return Path(shutil.copytree(made, site / made.name))


def main() -> None:
    """Installs; prints what was installed."""
    site = Path(sysconfig.get_path("purelib"))
    command = Path(sysconfig.get_path("scripts"), "hpcore")
    (site / "hpcore.pth").write_text(f"{ROOT / 'python'}\n")
    command.write_text(SCRIPT.format(python=sys.executable))
    command.chmod(0o755)
    info = write_metadata(site)
    (info / "INSTALLER").write_text("hpcore-make\n")
    files = [
        site / "hpcore.pth",
        command,
        *(p for p in info.rglob("*") if p.is_file()),
        info / "RECORD",
    ]
    record = dict.fromkeys(os.path.relpath(path, site) for path in files)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in record))
    print(f"{info.name.removesuffix('.dist-info')} from {ROOT / 'python'}")


if __name__ == "__main__":
    main()
