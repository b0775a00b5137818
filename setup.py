"""Puts the files of a workspace, which stand at the top of the repository, into a wheel."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class WithTemplate(build_py):
    """Also copies what `pipeline/template.py` names."""

    def run(self) -> None:
        """Build, then copy; an editable installation finds the files where they stand."""
        super().run()
        if self.editable_mode:
            return
        template = runpy.run_path(str(HERE / "pipeline" / "template.py"))
        target = Path(self.build_lib) / template["FOLDER"].relative_to(HERE)
        shutil.rmtree(target, ignore_errors=True)
        for part in template["PARTS"]:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (HERE / part).is_dir() else shutil.copyfile
            copy(HERE / part, target / part)


setup(cmdclass={"build_py": WithTemplate})
