"""Recipes as TOML files: an architecture and the stages it is trained in."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from .._fields import check_fields
from ..nn import CellLMConfig
from ._recipe import GeneInit, PretrainConfig, check_gene_init
from ._start import growth_problems

PACKAGED = files("scellm.train") / "recipes"
"""Recipes that come with the package."""
MAX_BYTES = 2**20
"""Size of the largest recipe that is read."""


@dataclass(frozen=True)
class Stage:
    """One run of a recipe; it starts from the end of the one before."""

    name: str
    """Folder of its checkpoints."""
    recipe: PretrainConfig
    config: Mapping[str, Any]
    """Fields of the architecture that differ in this stage."""
    gene_init: GeneInit = "random"
    """Where gene embeddings start, as in `tl.pretrain`; of the first stage."""


@dataclass(frozen=True)
class RecipeFile:
    """A recipe, checked as a whole before anything is read."""

    name: str
    """Name of the model."""
    config: Mapping[str, Any]
    """Fields of `CellLMConfig`, and `base`, the named configuration they change."""
    stages: tuple[Stage, ...]
    max_genes: int = 2048
    """Longest cell the finished model reads."""
    min_overlap: float = 0.10
    """Share of the vocabulary each dataset must hold."""
    dtype: str = "float32"
    """Type the weights are stored in."""
    time_limit: float | None = None
    """Seconds of training; the stages with a `max_time` share what is left when they begin, in proportion to that."""
    data: tuple[str, ...] = ()
    """Data, if the caller names none: paths, relative to the recipe."""

    def changed(self, changes: Mapping[str, Any]) -> RecipeFile:
        """The recipe with other fields of `PretrainConfig` in every stage."""
        stages = (
            dataclasses.replace(stage, recipe=dataclasses.replace(stage.recipe, **changes))
            for stage in self.stages
        )
        return dataclasses.replace(self, stages=tuple(stages))

    def architecture(self, stage: Stage, n_genes: int) -> CellLMConfig:
        """The encoder of a stage."""
        fields = {**self.config, **stage.config}
        named = CellLMConfig.named(fields.pop("base", "transformer"), n_genes=n_genes)
        return CellLMConfig.from_dict({**named.to_dict(), **fields})


def read_recipe(recipe: str | os.PathLike[str]) -> RecipeFile:
    """Read a recipe: a TOML file, or the name of one that comes with the package.

    Raises
    ------
    FileNotFoundError
        Neither a file nor a known name; the known ones are listed.
    ValueError
        No TOML, an unknown key (the nearest is offered), or a value that is none.
    """
    path = Path(recipe).expanduser()
    if path.suffix != ".toml":
        names = sorted(x.name.removesuffix(".toml") for x in PACKAGED.iterdir() if x.name.endswith(".toml"))
        if str(recipe) not in names:
            msg = f"There is no recipe {str(recipe)!r}: pass a .toml file, or one of {names}, which come with scellm."
            raise FileNotFoundError(msg)
        return parse_recipe((PACKAGED / f"{recipe}.toml").read_text(encoding="utf-8"), f"recipe {recipe}")
    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    if (size := path.stat().st_size) > MAX_BYTES:
        msg = f"{path} has {size / 1e6:,.1f} MB; a recipe has at most {MAX_BYTES / 1e6:,.1f} MB."
        raise ValueError(msg)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        msg = f"{path} is no text in UTF-8 ({error}); save it as such."
        raise ValueError(msg) from error
    read = parse_recipe(text, str(path))
    return dataclasses.replace(read, data=tuple(str(path.parent / part) for part in read.data))


def parse_recipe(text: str, where: str) -> RecipeFile:
    """A recipe from its text; `where` names it in messages."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        msg = f"{where} is no TOML: {reason}."
        raise ValueError(msg) from error
    try:
        return _checked(content, where)
    except (TypeError, OverflowError, AttributeError) as error:  # a value of another kind than its field
        msg = f"{where}: a value has the wrong kind ({error})."
        raise ValueError(msg) from error
    except ValueError as error:
        if where in str(error):
            raise
        msg = f"{where}: {error}"
        raise ValueError(msg) from error


def _checked(content: dict[str, Any], where: str) -> RecipeFile:
    """A recipe from its tables."""
    known = [field.name for field in dataclasses.fields(RecipeFile) if field.name != "stages"]
    check_fields(content, [*known, "stage"], where)
    stages = content.pop("stage", [])
    if not isinstance(stages, list) or not stages:
        msg = f"{where} has no [[stage]]; at least one is needed, with the fields of PretrainConfig."
        raise ValueError(msg)
    if "name" not in content:
        msg = f"{where} has no name; give one to the model, as in name = 'scellm-mine'."
        raise ValueError(msg)
    _check_name(content["name"], "name", where)
    _check_kinds(content, _KINDS, where)
    if content.get("dtype", "float32") not in ("float32", "float16", "bfloat16"):
        msg = f"{where}: dtype is {content['dtype']!r}; choose 'float32', 'float16' or 'bfloat16'."
        raise ValueError(msg)
    config = content.pop("config", "transformer")
    if not isinstance(config, str | dict):
        msg = f"{where}: config is {config!r}; give a name such as 'small', or a table of fields."
        raise ValueError(msg)
    config = {"base": config} if isinstance(config, str) else dict(config)
    content["data"] = tuple(content.get("data", ()))
    read = RecipeFile(
        config=config, stages=tuple(_stage(stage, i, where) for i, stage in enumerate(stages)), **content
    )
    before = None
    for stage in read.stages:
        config = read.architecture(stage, n_genes=1)  # unknown fields show now
        if before is not None and (problems := growth_problems(before, config)):
            msg = (
                f"{where}: stage {stage.name!r} cannot go on from the one before ({', '.join(problems)}): only depth and cell_depth may "
                "grow. Write what all stages share under the first config of the recipe."
            )
            raise ValueError(msg)
        before = config
    names = [stage.name.lower() for stage in read.stages]  # some systems do not tell cases apart
    if len(set(names)) < len(names):
        msg = f"{where}: two stages have one name; their checkpoints would be mixed up."
        raise ValueError(msg)
    if read.name.lower() in names:
        msg = (
            f"{where}: the model and a stage are both named {read.name!r}; each is a folder of the same place. Give one of them another "
            "name."
        )
        raise ValueError(msg)
    return read


def _stage(fields: dict[str, Any], number: int, where: str) -> Stage:
    """One `[[stage]]`."""
    if not isinstance(fields, dict):
        msg = f"{where}: stage {number + 1} is {fields!r}; write it as a table, [[stage]]."
        raise ValueError(msg)
    own = {"name", "config", "gene_init"}
    known = [field.name for field in dataclasses.fields(PretrainConfig)]
    what = f"stage {number + 1} of {where}"
    check_fields(fields, [*known, *own], what)
    _check_kinds(fields, _STAGE_KINDS, what)
    gene_init = check_gene_init(fields.get("gene_init", "random"))
    recipe = PretrainConfig.from_dict({name: value for name, value in fields.items() if name not in own})
    name = _check_name(fields.get("name", f"stage{number + 1}"), "name", what)
    return Stage(name, recipe, fields.get("config", {}), gene_init)


def _check_name(name: Any, field: str, where: str) -> str:
    """A name that becomes a folder of the output: plain, and never a way out of it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        msg = (
            f"{where}: {field} is {name!r}. It names a folder, so it begins with a letter or digit and has letters, "
            "digits, '-', '_' and '.' only, as in 'scellm-mine'."
        )
        raise ValueError(msg)
    return name


def _check_kinds(fields: Mapping[str, Any], kinds: Mapping[str, str], where: str) -> None:
    """That values are of the kind their fields need, and no number is infinite."""
    for name, value in fields.items():
        kind = kinds.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {
            "list": isinstance(value, list) and all(isinstance(entry, str) for entry in value),
            "text": isinstance(value, str),
            "table": isinstance(value, dict),
            "truth": isinstance(value, bool),
            "whole": isinstance(value, int) and number and value >= 1,
            "share": number and 0 <= value <= 1,
            "positive": number and value > 0,
        }
        if kind is not None and not fits[kind]:
            msg = f"{where}: {name} is {value!r}; it must be {_WORDS[kind]}."
            raise ValueError(msg)
        if isinstance(value, float) and not math.isfinite(value):
            msg = f"{where}: {name} is {value!r}; it must be a finite number."
            raise ValueError(msg)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WORDS = {
    "list": "a list of texts, as in ['one', 'two']",
    "text": "text",
    "table": "a table of fields",
    "truth": "true or false",
    "whole": "a whole number of at least 1",
    "share": "a number from 0 to 1",
    "positive": "a number above 0",
}
_KINDS = {"max_genes": "whole", "min_overlap": "share", "data": "list", "time_limit": "positive"}
_STAGE_KINDS = {
    "config": "table",
    "gene_init": "text",
    "freeze": "list",
    "type_key": "text",
    "cancer_key": "text",
    "learn_temperature": "truth",
    "exclude_same_type": "truth",
}
