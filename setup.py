"""Packaging. Every value is read from settings.ini: edit there, not here."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
SPDX = {"apache2": "Apache-2.0", "mit": "MIT", "bsd3": "BSD-3-Clause"}


def words(key: str) -> list[str]:
    """A setting that is a list, split at white space."""
    return settings[key].split()


class BuildWithRuns(build_py):
    """Also put the recorded runs, book/runs, in the package.

    A notebook alone in Colab has only the wheel, and still plots them.
    An editable install reads them where they are.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, settings["lib_path"], "runs")
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(ROOT.glob("book/runs/*.jsonl")):
            self.copy_file(str(path), str(target / path.name))


setup(
    name=settings["dist_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license_expression=SPDX[settings["license"]],
    license_files=["LICENSE"],
    keywords=words("keywords"),
    python_requires=f">={settings['min_python']}",
    packages=find_packages(
        include=[settings["lib_path"], f"{settings['lib_path']}.*"]
    ),
    install_requires=words("requirements"),
    extras_require={
        "app": words("app_requirements"),
        "data": words("data_requirements"),
        "dev": words("dev_requirements"),
        "export": words("export_requirements"),
        "lab": words("lab_requirements"),
    },
    entry_points={"console_scripts": words("console_scripts")},
    cmdclass={"build_py": BuildWithRuns},
    zip_safe=False,
)
