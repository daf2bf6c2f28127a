"""What is open before a release: `python .ci/release.py`. Prints one line for each, and exits with 1 if there are any."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACEHOLDERS = ("scellm-developers",)
"""Names that stand for people who are not named yet."""


def open_points(root: Path) -> list[str]:
    """What keeps this checkout from being released."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["scellm"]
    text = (root / "scellm/_version.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "(.+)"', text).group(1)
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = []
    if not settings["addresses-are-decided"]:
        found.append("pyproject.toml: the addresses in [project.urls] are not decided ([tool.scellm])")
    if not settings["maintainers"] or set(PLACEHOLDERS) & set(settings["maintainers"]):
        found.append("pyproject.toml: maintainers in [tool.scellm] are no people yet")
    if re.search(r"[a-z]", version):
        found.append(f"scellm/_version.py: {version} is no release")
    if not re.search(rf"(?m)^## {re.escape(version)} - [\d-]+$", changelog):
        found.append(f"CHANGELOG.md: no entry of {version} with a date")
    return found


if __name__ == "__main__":
    points = open_points(ROOT)
    print("\n".join(points))
    sys.exit(bool(points))
