"""Fit a drug model: a Gaussian process on measured responses, calibrated on cell lines that were left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls

from ..data import GeneVocabulary
from ..data._drugs import (
    DRUG_COLUMNS,
    FINGERPRINT_BITS,
    _parse,
    descriptors,
    fingerprints,
    shared_targets,
    structure_kernel,
)
from ..models._drug_model import DrugModel
from ..models._line_reader import LineReader, Platform, fit_reader, thin
from ..models._normal_axis import fit_normal_axis
from ..nn import apply_parts, line_kernel, solve_grid, unexplained, whitener

DEPTHS = (None, 10_000, 1_000, 300, 100)
"""Counts over the genes at which left-out lines are read for the calibration; `None` as measured."""


LEARNT_LINES, LEARNT_NOISE = 0.3, 0.6
"""Weight of a covariance of lines that was learnt from responses, and what noise is then multiplied by."""


@dataclass(frozen=True, kw_only=True)
class DrugResponseConfig:
    """Weights of the covariances, and what else the fit needs; chosen on left-out lines (`docs/dev/decisions.md`).

    Parameters
    ----------
    noise
        Variance of a measurement, in units of a drug's variance over lines.
    line_self, line_kernel
        General sensitivity: of the line itself, and shared with lines of similar expression.
    pair_self
        Sensitivity to a drug: of the line itself, beside 1 for what is shared with similar lines.
    drug_self, drug_structure, drug_action
        Covariance of drugs: own, of similar structure (`data.structure_kernel`), of shared targets and class.
    between_screens
        Correlation of a line's general sensitivity in two screens, whose assays and doses differ.
    prior_lines
        Lines' worth of the average spread that a drug's own spread is shrunk with.
    folds
        Parts the lines, and the drugs, are divided into for the calibration.
    coverage
        Share of left-out measurements that mean ± 1.645 standard deviations must hold.
    """

    noise: float = 1.0
    line_self: float = 0.3
    line_kernel: float = 0.3
    pair_self: float = 0.2
    drug_self: float = 0.5
    drug_structure: float = 1.0
    drug_action: float = 0.5
    between_screens: float = 0.5
    prior_lines: float = 5.0
    folds: int = 5
    coverage: float = 0.9


@dataclass(frozen=True)
class ResponseGrid:
    """Measured ln IC50 of lines and drugs, and how drugs were brought to one scale."""

    values: np.ndarray
    """(L, D) ln IC50, 0 where not measured."""
    measured: np.ndarray
    """(L, D) bool."""

    @classmethod
    def from_table(cls, responses: pd.DataFrame, lines: pd.Index, drugs: pd.Index) -> ResponseGrid:
        """From a table with the columns `line`, `drug` and `ln_ic50`; repeated pairs are averaged.

        Raises
        ------
        KeyError
            A line or drug is not in the lists.
        ValueError
            A value is not finite.
        """
        table = responses.groupby(["line", "drug"], observed=True)["ln_ic50"].mean()
        rows = lines.get_indexer(table.index.get_level_values("line"))
        columns = drugs.get_indexer(table.index.get_level_values("drug"))
        for found, what in ((rows, "line"), (columns, "drug")):
            if (found < 0).any():
                name = table.index.get_level_values(what)[int(np.argmax(found < 0))]
                msg = f"The {what} {name!r} has responses, but is not in the table of {what}s."
                raise KeyError(msg)
        if not np.isfinite(table).all():
            pair = table.index[int(np.argmax(~np.isfinite(table)))]
            msg = f"The response of {pair} is not finite; leave out what was not measured."
            raise ValueError(msg)
        values, measured = np.zeros((len(lines), len(drugs))), np.zeros((len(lines), len(drugs)), dtype=bool)
        values[rows, columns], measured[rows, columns] = table, True
        return cls(values, measured)

    def masked(self, kept: np.ndarray) -> ResponseGrid:
        """Only the pairs that are `kept`, (L, D) bool or what broadcasts to it."""
        measured = self.measured & kept
        return ResponseGrid(np.where(measured, self.values, 0), measured)


@dataclass(frozen=True)
class Fit:
    """A solved Gaussian process."""

    mean: np.ndarray
    """(D,) ln IC50."""
    scale: np.ndarray
    """(D,) spread of ln IC50."""
    dual: np.ndarray
    """(L, D) weights of measured pairs."""
    response: np.ndarray
    """(L, D) weights of the kernel of lines, for lines that were not measured."""
    fitted: np.ndarray
    """(L, D) predicted ln IC50 of the known lines, their own measurements used."""
    structure: dict[str, Any]
    """How mean and spread follow from structure."""


def solve_response(
    similarity: np.ndarray,
    grid: ResponseGrid,
    structure: np.ndarray,
    action: np.ndarray,
    config: DrugResponseConfig,
    *,
    screens: np.ndarray | None = None,
    rounds: int = 0,
) -> Fit:
    """Solve the Gaussian process on the measured pairs.

    Drugs without any measurement get mean and spread from drugs of similar structure and action.

    Parameters
    ----------
    similarity
        (L, L) cosines of the lines' expression.
    grid
        What was measured.
    structure, action
        (D, D) kernels of drugs: `data.structure_kernel`, shared targets.
    config
        Weights.
    screens
        (D,) where each drug was measured; `None` for one screen.
    rounds
        Times the covariances of drugs and of lines are estimated from the responses themselves and the process solved
        again: for filling in missing pairs of known lines and drugs. It helps new lines little.
    """
    n_lines, n_drugs = grid.values.shape
    between = config.drug_structure * structure + config.drug_action * action
    mean, scale, learnt = _drug_scale(grid, between, structure, config)
    standardised = np.where(grid.measured, (grid.values - mean) / scale, 0)
    kernel = line_kernel(torch.from_numpy(similarity))
    eye = torch.eye(n_lines, dtype=torch.float64)
    general = torch.from_numpy(_general(np.zeros(n_drugs) if screens is None else screens, config))
    drugs = torch.from_numpy(between) + config.drug_self * torch.eye(n_drugs, dtype=torch.float64)
    pair = kernel + config.pair_self * eye
    parts = [(config.line_self * eye + config.line_kernel * kernel, general), (pair, drugs)]
    values, measured = torch.from_numpy(standardised), torch.from_numpy(grid.measured)
    dual = solve_grid(values, measured, parts, noise=config.noise)
    fitted = apply_parts(parts, dual)
    for _ in range(rounds):
        filled = torch.where(measured, values, fitted)
        drugs, lines = torch.cov(filled.T), torch.cov(filled)
        drugs, lines = (learnt / learnt.diagonal().mean() for learnt in (drugs, lines))
        parts = [(pair + LEARNT_LINES * lines, drugs)]
        dual = solve_grid(values, measured, parts, noise=config.noise * LEARNT_NOISE)
        fitted = apply_parts(parts, dual)
    response = config.line_kernel * dual @ general + dual @ drugs if not rounds else dual @ drugs
    return Fit(mean, scale, dual.numpy(), response.numpy(), mean + scale * fitted.numpy(), learnt)


def _general(screens: np.ndarray, config: DrugResponseConfig) -> np.ndarray:
    """(D, D) covariance of what lines are to all drugs of a screen."""
    return np.where(screens[:, None] == screens, 1.0, config.between_screens)


def _drug_scale(
    grid: ResponseGrid, between: np.ndarray, structure: np.ndarray, config: DrugResponseConfig
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Mean and spread of each drug; where nothing was measured, kernel ridge over similar drugs."""
    n = grid.measured.sum(0)
    seen = n > 0
    mean = np.divide(grid.values.sum(0), n, out=np.zeros(len(n)), where=seen)
    squares = np.where(grid.measured, (grid.values - mean) ** 2, 0).sum(0)
    average = squares.sum() / n.sum()
    scale = np.sqrt((squares + config.prior_lines * average) / (n + config.prior_lines))
    learnt: dict[str, Any] = {}
    for kernel, prefix in ((structure, "structure"), (between, "between")):
        inner = kernel[np.ix_(seen, seen)] + 0.5 * np.eye(int(seen.sum()))
        for values, what in ((mean, "mean"), (np.log(scale), "scale")):
            center = float(values[seen].mean())
            weights = np.zeros(len(n))
            weights[seen] = np.linalg.solve(inner, values[seen] - center)
            learnt[f"{prefix}_{what}"] = (center, weights)
    for values, what in ((mean, "mean"), (scale, "scale")):
        center, weights = learnt[f"between_{what}"]
        new = center + between[~seen] @ weights
        values[~seen] = new if what == "mean" else np.exp(new)
    return mean, scale, learnt


def fit_drug_response(
    log2_tpm: pd.DataFrame,
    responses: pd.DataFrame,
    drugs: pd.DataFrame,
    *,
    lines: pd.DataFrame | None = None,
    normal: Sequence[pd.DataFrame] = (),
    platform: pd.DataFrame | None = None,
    config: DrugResponseConfig | None = None,
    name: str = "drug-model",
    provenance: dict[str, Any] | None = None,
    rng: int = 0,
) -> DrugModel:
    """Fit a model of drug response to measured cell lines.

    Parameters
    ----------
    log2_tpm
        log2(TPM + 1), lines x genes; the index names the lines, the columns are approved gene symbols.
    responses
        Columns `line`, `drug` and `ln_ic50` (ln uM).
    drugs
        Columns `data.DRUG_COLUMNS`; more are kept. Every drug of `responses` is in `drug`.
    lines
        Columns `line`, `name` and `tissue`; `None` knows names only.
    normal
        Tables of linear expression as bulk RNA-seq sees it, normal tissues or cell types x genes, each weighing the same:
        applicability then says of cells like these that they are outside. Genes that a table lacks count as not expressed.
    platform
        How single-cell sequencing sees genes, by gene symbol, from lines that were measured both ways: `factor`, how much more
        of the gene than bulk RNA-seq does, and `spread`, the standard deviation of its log2. Other genes are seen alike, with
        the median spread. `None` takes cells for thinned bulk.
    config
        Weights; `None` takes those of the shipped model.
    name, provenance
        For the model's card.
    rng
        Seed of folds and thinning.

    Returns
    -------
    The model, calibrated by cross-validation over lines (and over drugs, for compounds it does not know).

    Raises
    ------
    ImportError
        RDKit is not installed: structures are turned into fingerprints.
    KeyError
        Columns are missing, also of `platform`, or a line or drug of `responses` is not in the other tables.
    TypeError
        A table is no DataFrame, expression or responses are no numbers, or names, targets or SMILES no text.
    ValueError
        Fewer than two folds, or than two lines or drugs a fold, lines or drugs of one name, an invalid SMILES, values that
        are not finite, negative expression, factors of `platform` that are not positive.
    """
    config = config or DrugResponseConfig()
    _check_tables(log2_tpm, responses, drugs, lines)
    if config.folds < 2:
        msg = f"DrugResponseConfig(folds={config.folds}) leaves nothing out; need at least 2."
        raise ValueError(msg)
    if min(len(log2_tpm), len(drugs)) < 2 * config.folds:
        msg = (
            f"{len(log2_tpm)} lines and {len(drugs)} drugs are too few for {config.folds} folds; need two of each per "
            "fold. Pass config=DrugResponseConfig(folds=...) with fewer."
        )
        raise ValueError(msg)
    drugs = drugs.reset_index(drop=True)
    grid = ResponseGrid.from_table(responses, pd.Index(log2_tpm.index), pd.Index(drugs["drug"]))
    has_structure = (drugs["smiles"] != "").to_numpy()
    bits, numbers, center, spread = structures(drugs["smiles"].tolist())
    structure = structure_kernel((bits, numbers), (bits, numbers)).astype(np.float64)
    action = shared_targets(drugs).astype(np.float64)
    expression = log2_tpm.to_numpy(np.float64)
    vocabulary = GeneVocabulary.default()
    names = vocabulary.match(log2_tpm.columns).symbols
    if (names == "").any():
        unknown = log2_tpm.columns[names == ""][:5].tolist()
        msg = f"{int((names == '').sum())} columns are no protein-coding genes: {unknown}."
        raise ValueError(msg)
    expression = expression[:, np.argsort([vocabulary._row_of_name[name] for name in names])]
    symbols = vocabulary.subset(names).symbols
    seen = None if platform is None else _platform(platform, symbols)
    reader = fit_reader(expression, platform=seen, rng=rng)
    if normal:
        profiles = [table.reindex(columns=symbols, fill_value=0).to_numpy(np.float64) for table in normal]
        reader |= fit_normal_axis(expression, profiles, reader, platform=seen, rng=rng)
    similarity = LineReader(reader).kernel_similarity
    screens = drugs["screen"].to_numpy(dtype=str)
    fit = solve_response(similarity, grid, structure, action, config, screens=screens)
    calibration, error, pearson = calibrate(
        expression, grid, structure, action, config, screens=screens, platform=seen, rng=rng
    )
    compound = _compound_error(similarity, grid, structure, config, has_structure, rng=rng)
    if lines is None:
        lines = pd.DataFrame({"line": log2_tpm.index, "name": log2_tpm.index, "tissue": ""})
    table = drugs.assign(n_lines=grid.measured.sum(0), pearson=pearson)
    if "panel" not in table:
        table["panel"] = True
    learnt = {f"structure_{what}": fit.structure[f"structure_{what}"] for what in ("mean", "scale")}
    return DrugModel(
        vocabulary=vocabulary.subset(names),
        lines=lines.set_index("line").loc[log2_tpm.index].reset_index(names="line"),
        drugs=table,
        tensors={
            **reader,
            "response": fit.response.astype(np.float32),
            "dual": fit.dual.astype(np.float32),
            "mean": fit.mean.astype(np.float32),
            "scale": fit.scale.astype(np.float32),
            "error": error.astype(np.float32),
            "fingerprints": np.packbits(bits, axis=1),
            "descriptors": numbers.astype(np.float32),
            "descriptor_center": center.astype(np.float32),
            "descriptor_spread": spread.astype(np.float32),
            **{key: weights.astype(np.float32) for key, (_, weights) in learnt.items()},
        },
        settings={
            **dataclasses.asdict(config),
            **calibration,
            "compound_error": compound,
            **{key: center for key, (center, _) in learnt.items()},
        },
        provenance=provenance or {},
        name=name,
    )


def _check_tables(
    log2_tpm: pd.DataFrame, responses: pd.DataFrame, drugs: pd.DataFrame, lines: pd.DataFrame | None
) -> None:
    """That tables are tables, with the columns, names and values that a fit needs; raises as `fit_drug_response` does."""
    needed = {
        "log2_tpm": (),
        "responses": ("line", "drug", "ln_ic50"),
        "drugs": DRUG_COLUMNS,
        "lines": ("line",),
    }
    tables = {"log2_tpm": log2_tpm, "responses": responses, "drugs": drugs, "lines": lines}
    for what, table in tables.items():
        if table is None and what == "lines":
            continue
        if not isinstance(table, pd.DataFrame):
            msg = f"{what}= must be a DataFrame, found {type(table).__name__}."
            raise TypeError(msg)
        if missing := [column for column in needed[what] if column not in table]:
            msg = f"The table of {what} lacks the columns {missing}."
            raise KeyError(msg)
    known = [("line", "log2_tpm", log2_tpm.index), ("drug", "drugs", pd.Index(drugs["drug"]))]
    for what, where, names in (
        known if lines is None else [*known, ("line", "lines", pd.Index(lines["line"]))]
    ):
        if names.has_duplicates:
            msg = f"The {what} {names[names.duplicated()][0]!r} is twice in {where}=; each needs a name of its own."
            raise ValueError(msg)
    if lines is not None and len(unknown := log2_tpm.index.difference(lines["line"], sort=False)):
        msg = f"The line {unknown[0]!r} of log2_tpm= is not in lines=."
        raise KeyError(msg)
    if text := [column for column in log2_tpm if not pd.api.types.is_numeric_dtype(log2_tpm[column].dtype)]:
        msg = f"log2_tpm= must hold numbers; {text[0]!r} holds {log2_tpm[text[0]].dtype}."
        raise TypeError(msg)
    if not pd.api.types.is_numeric_dtype(responses["ln_ic50"].dtype):
        msg = f"responses['ln_ic50'] must hold numbers (ln uM), found {responses['ln_ic50'].dtype}."
        raise TypeError(msg)
    wrong = ~(np.isfinite(values := log2_tpm.to_numpy(np.float64)) & (values >= 0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        msg = (
            f"log2_tpm= holds {values[row, column]} for the gene {log2_tpm.columns[column]!r} of the line "
            f"{log2_tpm.index[row]!r}; log2(TPM + 1) is finite and not negative."
        )
        raise ValueError(msg)
    for column in ("drug", "name", "synonyms", "target", "drug_class", "smiles"):
        for drug, text in zip(drugs["drug"], drugs[column], strict=True):
            if not isinstance(text, str):
                msg = f'The {column} of the drug {drug!r} must be text, "" where nothing is known; found {text!r}.'
                raise TypeError(msg)
    for drug, text in zip(drugs["drug"], drugs["smiles"], strict=True):
        if text and (parsed := _parse(text))[0] is None:
            msg = f"The drug {drug!r} has no valid SMILES, {text!r}: {parsed[1]}"
            raise ValueError(msg)


def _platform(table: pd.DataFrame, symbols: Sequence[str]) -> Platform:
    """Factor and spread of each gene."""
    if missing := [column for column in ("factor", "spread") if column not in table]:
        msg = f"platform= lacks the columns {missing}."
        raise KeyError(msg)
    found = table.reindex(symbols)
    factor = found["factor"].fillna(1.0).to_numpy(np.float64)
    spread = found["spread"].fillna(table["spread"].median()).to_numpy(np.float64)
    if not (np.isfinite(factor) & (factor > 0) & np.isfinite(spread) & (spread >= 0)).all():
        msg = "platform= holds factors that are finite and positive, and spreads that are finite and not negative."
        raise ValueError(msg)
    return Platform(factor, spread)


def structures(smiles: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fingerprints (D, 2048) and standardised descriptors (D, 9), zero for ""; their centre and spread (9,)."""
    known = np.array([bool(text) for text in smiles])
    bits, numbers = np.zeros((len(smiles), FINGERPRINT_BITS), dtype=bool), np.zeros((len(smiles), 9))
    if not known.any():
        return bits, numbers, np.zeros(9), np.ones(9)
    texts = [text for text in smiles if text]
    bits[known], found = fingerprints(texts), descriptors(texts)
    center, spread = found.mean(0), np.maximum(found.std(0), 1e-3)
    numbers[known] = (found - center) / spread
    return bits, numbers, center, spread


def calibrate(
    expression: np.ndarray,
    grid: ResponseGrid,
    structure: np.ndarray,
    action: np.ndarray,
    config: DrugResponseConfig,
    *,
    screens: np.ndarray | None = None,
    platform: Platform | None = None,
    rng: int = 0,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Errors of lines that were left out, at several depths, and standard deviations that fit them.

    The expected squared error is base + slope * (share of variance the known lines leave), both fitted to all depths,
    times a factor per drug; all factors are then multiplied so that mean ± 1.645 standard deviations hold
    `coverage` of the left-out measurements at full depth (split conformal, :cite:p:`Lei2018`).

    Returns
    -------
    Settings; factor per drug (D,); correlation per drug over left-out lines (D,), NaN with fewer than 10.
    """
    generator = np.random.default_rng(rng)
    fold_of = generator.permutation(len(expression)) % config.folds
    errors, left = {}, {}  # by depth: (L, D) standardised errors, (L,) unexplained shares
    predicted = {depth: np.full(grid.values.shape, np.nan) for depth in DEPTHS}
    shares = {depth: np.full(len(expression), np.nan) for depth in DEPTHS}
    scales = np.zeros(grid.values.shape)
    for fold in range(config.folds):
        test, train = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        reader = LineReader(fit_reader(expression[train], platform=platform, rng=rng))
        known = ResponseGrid(grid.values[train], grid.measured[train])
        fit = solve_response(reader.kernel_similarity, known, structure, action, config, screens=screens)
        white = whitener(line_kernel(torch.from_numpy(reader.kernel_similarity)), config.noise)
        scales[test] = fit.scale
        for depth in DEPTHS:
            linear = np.exp2(expression[test]) - 1
            seen = linear if platform is None or depth is None else platform.see(linear, rng=generator)
            values = linear * 1e6 if depth is None else thin(seen, depth, rng=generator)
            similarity, _, _ = reader.read(values)
            cross = line_kernel(torch.from_numpy(np.nan_to_num(similarity))).double()
            predicted[depth][test] = fit.mean + fit.scale * (cross.numpy() @ fit.response)
            shares[depth][test] = unexplained(white, cross).numpy()
    for depth in DEPTHS:
        errors[depth] = np.where(grid.measured, (grid.values - predicted[depth]) / scales, np.nan)
        left[depth] = np.broadcast_to(shares[depth][:, None], grid.values.shape)
    every = np.concatenate([errors[depth][grid.measured] ** 2 for depth in DEPTHS])
    share = np.concatenate([left[depth][grid.measured] for depth in DEPTHS])
    (base, slope), _ = nnls(np.stack([np.ones_like(share), share], axis=1), every)
    variance = np.maximum(base + slope * left[None], 1e-4)
    ratio = errors[None] ** 2 / variance
    n = grid.measured.sum(0)
    factor = np.sqrt((np.nansum(ratio, 0) + config.prior_lines) / (n + config.prior_lines))
    held = np.abs(errors[None]) / (factor * np.sqrt(variance))
    error = factor * np.nanquantile(held, config.coverage) / 1.645
    correlations = {depth: _pearson_by_drug(grid, predicted[depth]) for depth in DEPTHS}
    settings = {
        "variance_base": float(base),
        "variance_slope": float(slope),
        "error": float(np.median(error)),
        "depths": [0 if depth is None else depth for depth in DEPTHS],
        "pearson_at_depth": [float(np.nanmean(correlations[depth])) for depth in DEPTHS],
    }
    return settings, error, correlations[None]


def _compound_error(
    similarity: np.ndarray,
    grid: ResponseGrid,
    structure: np.ndarray,
    config: DrugResponseConfig,
    has_structure: np.ndarray,
    *,
    rng: int,
) -> float:
    """Error in ln uM of the mean of a compound that is known by structure only, from drugs that were left out.

    The 90 % quantile over drugs, divided by 1.645.
    """
    fold_of = np.random.default_rng(rng).permutation(grid.values.shape[1]) % config.folds
    missed = []
    for fold in range(config.folds):
        test = (fold_of == fold) & has_structure & grid.measured.any(0)
        if not test.any():
            continue
        _, _, learnt = _drug_scale(grid.masked(fold_of != fold), structure, structure, config)
        center, weights = learnt["structure_mean"]
        truth = grid.values[:, test].sum(0) / grid.measured[:, test].sum(0)
        missed.append(np.abs(truth - center - structure[test] @ weights))
    return float(np.quantile(np.concatenate(missed), config.coverage) / 1.645)


def _pearson_by_drug(grid: ResponseGrid, predicted: np.ndarray) -> np.ndarray:
    """(D,) correlation over lines, NaN with fewer than 10 or without spread."""
    found = np.full(grid.values.shape[1], np.nan)
    for drug in range(len(found)):
        rows = grid.measured[:, drug]
        truth, guess = grid.values[rows, drug], predicted[rows, drug]
        if rows.sum() >= 10 and truth.std() > 0 and guess.std() > 0:
            found[drug] = np.corrcoef(truth, guess)[0, 1]
    return found
