"""The wheel holds all that a user needs: `make wheel`.

Builds it, installs it without dependencies into a fresh environment that sees the packages of this one and no
repository, and begins a workspace in an empty folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
PACKAGES = ("schemas", "pipeline", "flows")
SEED_IMAGES = 364
COMMANDS = (
    "init",
    "taxonomy check",
    "status",
    "plan",
    "run collect",
    "run generate",
    "profile use rehearsal",
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a program without what leads it to the repository, and give what it printed."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


def tracked(*folders: str) -> list[str]:
    """The tracked files that are there, below folders of the repository."""
    listed = run("git", "ls-files", "-z", *folders, cwd=REPOSITORY).split("\0")
    return [name for name in listed if name and (REPOSITORY / name).is_file()]


def build_wheel(scratch: Path) -> Path:
    """The wheel of what is tracked; a build in the repository would take up what an earlier one left."""
    source = scratch / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, source / name)
    command = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", scratch, ".")
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *command, cwd=source)
    (wheel,) = scratch.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Every file of the packages is in it, and every file of a workspace."""
    from pipeline.template import FOLDER, PARTS

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = FOLDER.relative_to(REPOSITORY)
    wanted = {*tracked(*PACKAGES), *(f"{inside}/{name}" for name in tracked(*PARTS))}
    if lacking := sorted(wanted - names):
        raise SystemExit(f"{wheel.name} lacks {len(lacking)} files, such as {', '.join(lacking[:5])}")
    print(f"{wheel.name}: {len(names):,} files, {wheel.stat().st_size / 2**20:.1f} MiB")


def environment_of(wheel: Path, scratch: Path) -> Path:
    """The folder of programs of a fresh environment with the wheel in it."""
    venv = scratch / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=scratch)
    python = venv / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=scratch).strip()
    # Before the other packages are seen: among them pip would find us, installed as editable.
    install = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps")
    run(python, *install, wheel, cwd=scratch)
    # What a .pth names is searched last, and no .pth in there is read, such as that of the repository.
    (Path(site) / "locked.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    where = run(python, "-c", "import flows.cli; print(flows.cli.__file__)", cwd=scratch).strip()
    if not Path(where).is_relative_to(site):
        raise SystemExit(f"the fresh environment imports {where}, not the wheel")
    return venv / "bin"


def main() -> None:
    """Build, install, begin a workspace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="put the wheel here, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holisafe-wheel-") as folder:
        scratch = Path(folder)
        wheel = build_wheel(scratch)
        check_contents(wheel)
        programs = environment_of(wheel, scratch)
        workspace = scratch / "workspace"
        workspace.mkdir()
        for command in COMMANDS:
            said = run(programs / "holisafe", *command.split(), cwd=workspace, COLUMNS="110")
            print(f"holisafe {command}: {said.strip().splitlines()[-1].strip()}", flush=True)
        images = sum(path.suffix in {".png", ".jpg"} for path in (workspace / "data" / "seed").rglob("*"))
        if images != SEED_IMAGES:
            raise SystemExit(f"{images} seed images, not {SEED_IMAGES}")
        for stage in ("collect", "generate"):
            if not (workspace / "data" / stage / "images.parquet").is_file():
                raise SystemExit(f"{stage} left no images")
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, arguments.keep)
    print("The wheel is whole.")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main()
