"""What is handed on beside the code: packages, recipe, citation, cards, forms. All say the same, and machines can read them."""

import importlib.util
import json
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import scellm
from scellm.models._card import LICENSES, model_card

ROOT = Path(__file__).parents[1]
if not (ROOT / "pyproject.toml").exists():
    pytest.skip("these files are in a checkout only", allow_module_level=True)
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETTINGS = CONFIGURATION["project"], CONFIGURATION["tool"]["scellm"]
WEIGHTS = Path(scellm.__file__).parent / "models" / "weights"
CONDA = {"huggingface-hub": "huggingface_hub", "matplotlib": "matplotlib-base", "torch": "pytorch"}
"""Names that differ on conda-forge."""
CARD_FIELDS = {
    "base_model", "datasets", "language", "library_name", "license", "license_link", "license_name", "metrics", "model-index",
    "new_version", "pipeline_tag", "tags", "thumbnail",
}  # fmt: skip
"""Fields of the Hub's schema."""


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def contents():
    """The checker of `.ci`."""
    return script("contents")


def script(name):
    """A script of `.ci` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version():
    version = scellm.__version__
    assert read_yaml("CITATION.cff")["version"] == version
    assert read_yaml(".conda/recipe.yaml")["context"]["version"] == version
    assert read_yaml(".scverse/meta.yaml")["version"] == f"v{version}"
    shown = json.loads((ROOT / "docs/_static/versions.json").read_text(encoding="utf-8"))
    assert next(one["name"] for one in shown if one.get("preferred")).startswith(
        ".".join(version.split(".")[:2])
    )


def test_one_place_for_addresses_and_names():
    urls, tool = PROJECT["urls"], SETTINGS
    source, pages = urls["Source"], urls["Documentation"]
    assert urls["Issues"] == f"{source}/issues"
    assert urls["Changelog"].startswith(pages)
    entry, about, citation = (
        read_yaml(".scverse/meta.yaml"),
        read_yaml(".conda/recipe.yaml"),
        read_yaml("CITATION.cff"),
    )
    assert (entry["project_home"], entry["documentation_home"]) == (source, pages)
    assert entry["tutorials_home"].startswith(pages)
    assert (about["about"]["repository"], about["about"]["homepage"]) == (source, pages)
    assert (citation["repository-code"], citation["url"]) == (source, pages)
    assert about["extra"]["recipe-maintainers"] == entry["authors"] == tool["maintainers"]
    shown = json.loads((ROOT / "docs/_static/versions.json").read_text(encoding="utf-8"))
    assert all(one["url"].startswith(pages) for one in shown)
    pattern = r"https://[\w./-]*scellm[\w./-]*"
    for path in (".github/SECURITY.md", ".github/CODE_OF_CONDUCT.md", "README.md", "docs/conf.py"):
        found = re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"))
        assert all(link.startswith((source, pages)) for link in found), path


def test_what_is_open_before_a_release_is_said(tmp_path):
    release = script("release")
    for name in ("pyproject.toml", "scellm/_version.py", "CHANGELOG.md"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")

    def change(name, old, new):
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(re.sub(old, new, text), encoding="utf-8")

    change("pyproject.toml", "addresses-are-decided = .*", "addresses-are-decided = true")
    change("pyproject.toml", "maintainers = .*", 'maintainers = [ "somebody" ]')
    assert release.open_points(tmp_path) == []
    change("pyproject.toml", "addresses-are-decided = .*", "addresses-are-decided = false")
    change("pyproject.toml", "maintainers = .*", 'maintainers = [ "scellm-developers" ]')
    change("scellm/_version.py", "__version__ = .*", '__version__ = "0.9.0.dev0"')
    assert [point.partition(":")[0] for point in release.open_points(tmp_path)] == [
        "pyproject.toml",
        "pyproject.toml",
        "scellm/_version.py",
        "CHANGELOG.md",
    ]


def test_recipe_has_the_requirements_of_the_package():
    recipe = read_yaml(".conda/recipe.yaml")
    wanted = {f"python {PROJECT['requires-python']}"}
    for requirement in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w.-]+)(>=.*)", requirement).groups()
        wanted.add(f"{CONDA.get(name, name)} {bound}")
    assert set(recipe["requirements"]["run"]) == wanted
    assert f"python {PROJECT['requires-python']}" in recipe["requirements"]["host"]
    assert recipe["build"]["python"]["entry_points"] == [f"{k} = {v}" for k, v in PROJECT["scripts"].items()]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]


def test_recipe_is_one_that_rattler_build_takes():
    rattler_build = pytest.importorskip(
        "rattler_build", reason="needs py-rattler-build, which conda-forge builds with"
    )
    recipe = rattler_build.Stage0Recipe.from_yaml((ROOT / ".conda/recipe.yaml").read_text(encoding="utf-8"))
    rendered = recipe.render()
    assert len(rendered) == 1
    assert rendered[0].recipe.to_dict()["package"] == {"name": "scellm", "version": scellm.__version__}
    with pytest.raises(Exception, match="unknown field 'nam'"):
        rattler_build.Stage0Recipe.from_yaml("schema_version: 1\npackage:\n  nam: scellm\n")


def test_citation():
    found = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license"} <= set(found)
    assert found["license"] == PROJECT["license"]
    assert any("2306.04371" in one["url"] for one in found["references"])


def test_entry_of_the_ecosystem():
    found = read_yaml(".scverse/meta.yaml")
    needed = {
        "name",
        "description",
        "project_home",
        "documentation_home",
        "install",
        "license",
        "tags",
        "version",
        "authors",
    }
    assert needed <= set(found)
    assert found["license"] == PROJECT["license"]
    assert found["install"] == {"pypi": PROJECT["name"]}
    assert all(re.fullmatch(r"10\.\d{4,9}/[-._;()/:A-Z0-9]+", doi) for doi in found["publications"])
    assert "pytest" in found["test_command"]
    assert all(
        found[name].startswith("https://")
        for name in ("project_home", "documentation_home", "tutorials_home")
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms(path):
    form = read_yaml(path)
    if path.stem == "config":
        assert form["contact_links"]
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in form["body"])


def test_links_of_the_community_pages():
    for path in (ROOT / ".github").glob("*.md"):
        for link in re.findall(r"\]\((?!https)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


# -- model cards --------------------------------------------------------------------------------------------------


def card_problems(text):
    """What the Hub would not take of a card."""
    fields = ModelCard(text).data.to_dict()
    found = [f"unknown field {name}" for name in set(fields) - CARD_FIELDS]
    if fields.get("library_name") != "scellm":
        found.append("library_name")
    if fields.get("license") not in (*LICENSES, "other"):
        found.append(f"license {fields.get('license')}")
    if fields.get("license") == "other" and not fields.get("license_name"):
        found.append("license without a name")
    if not isinstance(fields.get("tags"), list) or not all(isinstance(tag, str) for tag in fields["tags"]):
        found.append("tags")
    return found


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in WEIGHTS.glob("*/README.md")), ids=lambda path: path.name
)
def test_shipped_cards(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card_problems(card) == []
    assert re.search(r"^# ", card, re.MULTILINE)
    assert "data" in card.lower()


@pytest.mark.parametrize("license", ["MIT", "CC-BY-4.0", "ours: ask #1", "a\nb", '"quoted"'])
def test_cards_of_saved_models(license):
    assert (
        card_problems(model_card("mine", {"cells": 3}, {"license": license, "description": "A model."})) == []
    )


def test_control_bad_cards_are_found():
    bad = "---\nlibrary_name: scellm\nlicense: ours\ntags: [3]\nmodel: x\n---\n# a\n"
    assert set(card_problems(bad)) == {"unknown field model", "license ours", "tags"}


# -- how environments are filled ----------------------------------------------------------------------------------


def test_uv_is_told_what_pip_is_told():
    found = script("uv_settings").settings(
        [
            "global.extra-index-url='\\nhttps://a.org/simple\\nhttps://b.org/simple'",
            ":env:.find-links='/wheels /more'",
            "global.find-links='/old'",
            "install.constraint='/c.txt'",
            "global.no-warn-script-location='true'",
        ]
    )
    assert found == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INDEX": "https://a.org/simple https://b.org/simple",
        "UV_CONSTRAINT": "/c.txt",
        "UV_FIND_LINKS": "/wheels,/more",
    }


# -- contents of the packages -------------------------------------------------------------------------------------


def test_what_is_needed_is_in_the_sources():
    for name in contents().NEEDED:
        assert (ROOT / name).exists(), name


def test_packages_of_the_build_configuration():
    hatchling = pytest.importorskip(
        "hatchling.builders.wheel", reason="needs hatchling, which builds the packages"
    )
    from hatchling.builders.sdist import SdistBuilder

    for builder in (hatchling.WheelBuilder(str(ROOT)), SdistBuilder(str(ROOT))):
        names = [file.distribution_path.replace("\\", "/") for file in builder.recurse_included_files()]
        assert contents().problems([*names, "LICENSE"]) == []


def test_contents_are_judged(tmp_path):
    checker = contents()
    good = [*checker.NEEDED, "scellm-0.2.0.dist-info/licenses/LICENSE"]
    assert checker.problems(good) == []
    assert checker.problems(good[1:]) == ["lacks scellm/__init__.py"]
    assert checker.problems(good[:-1]) == ["lacks the license"]
    for bad in ("tests/test_a.py", "scellm/__pycache__/a.pyc", "docs/index.md", "scellm/data/cells.h5ad"):
        assert checker.problems([*good, bad]) == [f"holds {bad}"]
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as file:
        file.writestr("tests/x.py", "")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        file.add(tmp_path / "a.whl", "scellm-0.2.0/tests/x.py")
    assert checker.names_of(tmp_path / "a.whl") == checker.names_of(tmp_path / "a.tar.gz") == ["tests/x.py"]
    assert checker.main([tmp_path / "a.whl"]) == 1


def test_extras_are_on_the_install_page():
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert [name for name in PROJECT["optional-dependencies"] if f"| `{name}` |" not in page] == []


def test_license_files_are_declared():
    assert PROJECT["license-files"] == ["LICENSE"]
    assert PROJECT["readme"] == "README.md"
