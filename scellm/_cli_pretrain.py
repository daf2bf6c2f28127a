"""The command `scellm pretrain`; run alone or by torchrun."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from ._cli_options import as_setting, shows_bars

EXAMPLES = """\
examples:
  scellm pretrain tiny cells.h5ad -o run              a recipe that comes with scellm, on your cells
  scellm pretrain my_recipe.toml corpus.scellm.h5 -o run
  scellm pretrain my_recipe.toml corpus.scellm.h5 -o run   again, after an interruption: goes on
  scellm pretrain small corpus.scellm.h5 -o run --set batch_size=16384 --set memory_budget=40GiB
  scellm pretrain gpu corpus.scellm.h5 -o run --time-limit 600
  torchrun --nproc-per-node 8 -m scellm pretrain small corpus.scellm.h5 -o run

The folder gets a folder of checkpoints and a log.csv for each stage, and at the end the model under its name;
`scellm embed cells.h5ad --model run/NAME` uses it.

exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong usage, 130 interrupted
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """What `pretrain` takes."""
    command.add_argument(
        "recipe", metavar="RECIPE", help="a .toml file, or the name of one that comes with scellm"
    )
    command.add_argument(
        "data",
        metavar="IN",
        nargs="*",
        help=".h5ad files, folders of them, packed files, annbatch collections (default: those the recipe names)",
    )
    command.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="folder for checkpoints, logs, model"
    )
    command.add_argument(
        "--resume",
        choices=("auto", "never", "must", "force"),
        default="auto",
        help="go on from the newest checkpoint: if there is one; refuse if there is one; refuse if there is none; "
        "even if corpus or recipe have changed (default: %(default)s)",
    )
    command.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=as_setting,
        help="change a key of every stage, as it would stand in the recipe; may be given several times",
    )
    command.add_argument("--layer", help="layer with counts or log1p values (default: X)")
    command.add_argument(
        "--gene-key", metavar="COLUMN", help="column of var with gene names (default: found)"
    )
    command.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)"
    )
    command.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=float,
        help="time of training, reading included; the stages with a max_time share it (default: as the recipe says)",
    )
    command.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=600.0,
        help="end when another process of torchrun does not answer for so long (default: %(default)s)",
    )
    command.add_argument("--quiet", action="store_true", help="no progress bars; warnings stay")


def run(options: argparse.Namespace) -> int:
    """Train a recipe; all work is `tl.pretrain`'s."""
    from .train import processes
    from .train._recipe import PretrainConfig
    from .train._recipe_file import read_recipe

    recipe = read_recipe(options.recipe)
    changes = dict(options.set)
    PretrainConfig.from_dict(changes)  # a mistyped key shows before anything is read
    recipe = recipe.changed(changes)
    if options.time_limit is not None:
        recipe = dataclasses.replace(recipe, time_limit=options.time_limit)
    from .tl._run_recipe import run_recipe

    try:
        with processes(timeout=options.timeout) as world:
            run_recipe(
                recipe,
                options.data,
                options.output,
                resume=options.resume,
                device=options.device,
                layer=options.layer,
                gene_key=options.gene_key,
                show_progress=shows_bars(quiet=options.quiet),
            )
            if world.rank == 0 and not options.quiet:
                print(f"{options.output / recipe.name}: the model. Use it with `scellm embed --model`.")
    except KeyboardInterrupt:
        print("scellm: interrupted; the same command goes on from the newest checkpoint.", file=sys.stderr)
        return 130
    return 0
