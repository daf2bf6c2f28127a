"""The claims of the paper at the scale of one core: python tests/benchmarks/paper.py DATA CORPUS RUNS [--only NAME ...].

Trains what `_paper_runs.py` lists into the folder RUNS, one model after the other; what is there is not trained again, and an
interrupted run goes on. CORPUS is the file of `training_corpus.py` without the datasets of `validation.py`. `--page` scores all
models and writes `docs/benchmarks/paper.md` with its figure. One process needs one core; start two with different `--only` on two.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from _paper_runs import RUNS, finished, train


def main() -> None:
    """Train, or score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), metavar="NAME")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options.page:
            from _paper_page import write_page

            print(write_page(options.data, options.runs))
            return
        for name in options.only:
            if not finished(options.runs / name):
                train(name, options.corpus, options.runs)
                print(name, flush=True)


if __name__ == "__main__":
    main()
