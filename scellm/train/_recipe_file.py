"""Recipes as TOML files: an architecture and the stages it is trained in."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..nn import CellLMConfig
from ._recipe import GeneInit, PretrainConfig, check_fields, check_gene_init

PACKAGED = files("scellm.train") / "recipes"
"""Recipes that come with the package."""


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
        named = CellLMConfig.named(fields.pop("base", "small"), n_genes=n_genes)
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
    path = Path(recipe)
    if path.suffix != ".toml":
        names = sorted(x.name.removesuffix(".toml") for x in PACKAGED.iterdir() if x.name.endswith(".toml"))
        if str(recipe) not in names:
            msg = f"There is no recipe {str(recipe)!r}: pass a .toml file, or one of {names}, which come with scellm."
            raise FileNotFoundError(msg)
        return parse_recipe((PACKAGED / f"{recipe}.toml").read_text(encoding="utf-8"), f"recipe {recipe}")
    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    read = parse_recipe(path.read_text(encoding="utf-8"), str(path))
    return dataclasses.replace(read, data=tuple(str(path.parent / part) for part in read.data))


def parse_recipe(text: str, where: str) -> RecipeFile:
    """A recipe from its text; `where` names it in messages."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"{where} is no TOML: {error}."
        raise ValueError(msg) from error
    known = [field.name for field in dataclasses.fields(RecipeFile) if field.name != "stages"]
    check_fields(content, [*known, "stage"], where)
    stages = content.pop("stage", [])
    if not isinstance(stages, list) or not stages:
        msg = f"{where} has no [[stage]]; at least one is needed, with the fields of PretrainConfig."
        raise ValueError(msg)
    if "name" not in content:
        msg = f"{where} has no name; give one to the model, as in name = 'scellm-mine'."
        raise ValueError(msg)
    if content.get("dtype", "float32") not in ("float32", "float16", "bfloat16"):
        msg = f"{where}: dtype is {content['dtype']!r}; choose 'float32', 'float16' or 'bfloat16'."
        raise ValueError(msg)
    config = content.pop("config", "small")
    config = {"base": config} if isinstance(config, str) else dict(config)
    content["data"] = tuple(content.get("data", ()))
    read = RecipeFile(
        config=config, stages=tuple(_stage(stage, i, where) for i, stage in enumerate(stages)), **content
    )
    for stage in read.stages:
        read.architecture(stage, n_genes=1)  # unknown fields show now
    if len({stage.name for stage in read.stages}) < len(read.stages):
        msg = f"{where}: two stages have one name; their checkpoints would be mixed up."
        raise ValueError(msg)
    return read


def _stage(fields: dict[str, Any], number: int, where: str) -> Stage:
    """One `[[stage]]`."""
    own = {"name", "config", "gene_init"}
    known = [field.name for field in dataclasses.fields(PretrainConfig)]
    what = f"stage {number + 1} of {where}"
    check_fields(fields, [*known, *own], what)
    gene_init = check_gene_init(fields.get("gene_init", "random"))
    recipe = PretrainConfig.from_dict({name: value for name, value in fields.items() if name not in own})
    name = fields.get("name", f"stage{number + 1}")
    return Stage(name, recipe, fields.get("config", {}), gene_init)
