"""Check what built files hold: `python .ci/contents.py dist/*`. All that the package needs is in, and nothing else."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

NEEDED = (
    "scellm/__init__.py",
    "scellm/py.typed",
    "scellm/_cli.py",
    "scellm/data/genes/human.tsv.gz",
    "scellm/data/genes/mouse.tsv.gz",
    "scellm/tumors/tables/normal_panel.npz",
    "scellm/train/recipes/small.toml",
    *(
        f"scellm/models/weights/scellm-small/{name}"
        for name in ("README.md", "config.json", "manifest.json", "model.safetensors")
    ),
    *(
        f"scellm/models/weights/scellm-drug/{name}"
        for name in ("README.md", "config.json", "manifest.json", "model.safetensors")
    ),
)
UNWANTED = re.compile(
    r"(^|/)(tests?|docs|tutorials|benchmarks|\.git\w*|\.ci|\.conda|shared)/|__pycache__|\.pyc$|\.ipynb$|\.h5ad$"
)
LARGEST = 60e6
"""Bytes; PyPI takes 100 MB."""


def names_of(path: Path) -> list[str]:
    """Files in a wheel or sdist, the folder of an sdist left out."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as file:
            return file.namelist()
    with tarfile.open(path) as file:
        return [name.partition("/")[2] for name in file.getnames()]


def problems(names: list[str]) -> list[str]:
    """What is missing or should not be there."""
    found = [f"lacks {name}" for name in NEEDED if name not in names]
    found += [f"holds {name}" for name in names if UNWANTED.search(name)]
    if not any(name.endswith("LICENSE") for name in names):
        found.append("lacks the license")
    return found


def main(paths: list[Path]) -> int:
    """Print what is wrong; 1 if anything is."""
    code = 0
    for path in paths:
        wrong = problems(names_of(path))
        size = path.stat().st_size
        wrong += [f"has {size / 1e6:.0f} MB"] if size > LARGEST else []
        print(
            f"{path.name}: {size / 1e6:.1f} MB, {len(names_of(path))} files, {'; '.join(wrong) or 'as it should be'}"
        )
        code |= bool(wrong)
    return code


if __name__ == "__main__":
    sys.exit(main([Path(word) for word in sys.argv[1:]]))
