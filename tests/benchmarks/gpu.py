"""One large GPU for minutes: pack what it needs, run it there within a limit, collect what comes back.

    python tests/benchmarks/gpu.py pack CORPUS.h5 FOLDER          # here: at most 60 MB
    python FOLDER/gpu.py run --out OUT                            # there: 12 minutes, nothing is installed
    python tests/benchmarks/gpu.py collect OUT --models MODELS    # here: the model, and the page with --page

CORPUS.h5 is what `training_corpus.py` packs. The machine needs Python 3.11 or newer with torch, numpy, scipy, h5py, pandas,
safetensors and tqdm; what it lacks goes along as `--wheels`. Steps and their limits: docs/dev/gpu.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("pack", help="make the folder that travels")
    verb.add_argument("corpus", type=Path)
    verb.add_argument("folder", type=Path)
    verb.add_argument("--mb", type=float, default=60.0, help="size of all together (default: %(default)s)")
    verb.add_argument(
        "--max-counts", type=float, default=10_000, help="deeper cells are thinned (default: %(default)s)"
    )
    verb.add_argument("--wheels", type=Path, nargs="*", default=[], help="packages that are missing there")

    verb = verbs.add_parser("run", help="measure and train within a limit")
    verb.add_argument("--out", type=Path, required=True, help="folder for the pieces")
    verb.add_argument("--limit", type=float, default=720.0, help="seconds (default: %(default)s)")
    _common(verb)
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in `scellm pretrain`"
    )

    verb = verbs.add_parser("collect", help="join the pieces")
    verb.add_argument("out", type=Path)
    verb.add_argument("--models", type=Path, help="folder to put the model into")
    verb.add_argument("--page", action="store_true", help="write docs/benchmarks/gpu.md")

    for name in ("_measure", "_train"):  # the parts of `run`, each a process of its own
        verb = verbs.add_parser(name)
        verb.add_argument("target", type=Path)
        verb.add_argument("--until", type=float, required=True)
        verb.add_argument("--set", action="append", default=[])
        _common(verb)
    return parser


def _common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--recipe", default="gpu", help="name or .toml file (default: %(default)s)")
    verb.add_argument("--device", default="auto")


def main() -> int:
    options = _options().parse_args()
    if options.verb == "pack":
        from _gpu_pack import pack_folder

        found = pack_folder(
            options.corpus,
            options.folder,
            most_mb=options.mb,
            max_counts=options.max_counts,
            wheels=options.wheels,
        )
        print(
            f"{options.folder}: {found['bytes'] / 1e6:.1f} MB, {found['cells']:,} of {found['cells_of_the_corpus']:,} cells, "
            f"at most {found['max_cells']:,} of a dataset. Next, there: python {options.folder.name}/gpu.py run --out OUT"
        )
    elif options.verb == "run":
        from _gpu_run import run

        return run(options.out, options.limit, options.recipe, options.device, options.set)
    elif options.verb == "collect":
        from _gpu_collect import collect

        found = collect(options.out, options.models, page=options.page)
        for name in ("measure", "train"):
            print(f"{name}: {found['run'][name]['end']}\n{found['run'][name]['log']}".rstrip())
        print(f"model: {found['installed']}; left out: {found['left_out'] or 'nothing'}")
    else:
        _part(options)
    return 0


def _part(options: argparse.Namespace) -> None:
    from scellm._cli_options import as_setting
    from scellm.models import choose_device
    from scellm.train._recipe_file import read_recipe

    if options.verb == "_train":
        from _gpu_run import train

        changes = dict(as_setting(text) for text in options.set)
        train(options.target, options.until, options.recipe, options.device, changes)
    else:
        from _gpu_measure import N_GENES, measure

        recipe = read_recipe(options.recipe)
        architecture = recipe.architecture(recipe.stages[-1], N_GENES)
        measure(options.target, options.until, architecture, choose_device(options.device))


if __name__ == "__main__":
    sys.exit(main())
