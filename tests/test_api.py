"""The contract of all public functions: signatures, docstrings, keys written, input untouched, listed in the docs."""

import ast
import dataclasses
import doctest
import functools
import importlib.util
import inspect
import re
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

import scellm
from scellm.models._parts import Part

NAMESPACES = ("pp", "tl", "pl", "get", "models", "datasets")
ADATA_FIRST = ("pp", "tl", "pl", "get")
NOT_OF_CELLS = {"pl.compare", "pl.training_history", "tl.index", "tl.pretrain"}
"""Functions of these namespaces that take something else than one AnnData first."""
POSITIONAL_WITH_DEFAULT = 2
"""Defaults are allowed up to the second positional argument, as in `embed(adata, model="scellm-small", *, ...)`."""
DOCS = Path(__file__).parents[1] / "docs"
TOP = {"__version__", "report"}
"""What `scellm` exports beside namespaces."""
SLOTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")


def public_functions() -> dict[str, Callable]:
    """Public functions by dotted name."""
    return {
        f"{namespace}.{name}": getattr(getattr(scellm, namespace), name)
        for namespace in NAMESPACES
        for name in getattr(getattr(scellm, namespace), "__all__", ())
        if inspect.isfunction(getattr(getattr(scellm, namespace), name))
    } | {"report": scellm.report}


def sections(docstring: str) -> dict[str, str]:
    """Body of each underlined section of a numpy docstring."""
    pieces = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def documented_parameters(section: str) -> list[str]:
    """Names at the margin of a Parameters section; `a, b` documents two, `a : type` one."""
    heads = [line for line in section.splitlines() if line and not line[0].isspace()]
    return [name.strip().lstrip("*") for head in heads for name in head.partition(":")[0].split(",")]


def raises_itself(function: Callable) -> bool:
    """Whether the body of a function holds a `raise`."""
    source = textwrap.dedent(inspect.getsource(function))
    return any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(source)))


def problems(function: Callable, *, adata_first: bool = False) -> list[str]:
    """What a public function lacks; empty if nothing."""
    found = []
    parameters = inspect.signature(function).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    found += [
        f"{p.name} is an option: make it keyword-only"
        for i, p in enumerate(positional)
        if p.default is not p.empty and (i >= POSITIONAL_WITH_DEFAULT or isinstance(p.default, bool))
    ]
    found += [f"{p.name} has no type" for p in parameters.values() if p.annotation is p.empty]
    if inspect.signature(function).return_annotation is inspect.Signature.empty:
        found.append("the result has no type")
    if adata_first and next(iter(parameters), None) != "adata":
        found.append("the first argument is not adata")
    if not function.__doc__:
        return [*found, "no docstring"]
    parts = sections(function.__doc__)
    documented = documented_parameters(parts.get("Parameters", ""))
    if documented != list(parameters):
        found.append(f"documents the parameters {documented}, takes {list(parameters)}")
    returns_none = inspect.signature(function).return_annotation in (None, "None")
    if "Returns" not in parts and not returns_none:
        found.append("no Returns section")
    if "Raises" not in parts and raises_itself(function):
        found.append("raises, but has no Raises section")
    return found


@pytest.mark.parametrize(("name", "function"), public_functions().items(), ids=public_functions())
def test_signature_and_docstring(name, function):
    adata_first = name.split(".")[0] in ADATA_FIRST and name not in NOT_OF_CELLS
    assert problems(function, adata_first=adata_first) == []


def good(adata: ad.AnnData, model: str = "small", *, layer: str | None = None) -> None:
    """Do something.

    Parameters
    ----------
    adata
        Cells.
    model
        Weights.
    layer
        Where.

    Raises
    ------
    ValueError
        Always.
    """
    raise ValueError(layer)


def undocumented(adata: ad.AnnData) -> int:
    return adata.n_obs


def forgets_one(adata: ad.AnnData, *, layer: str | None = None) -> int:
    """Do something.

    Parameters
    ----------
    adata
        Cells.

    Returns
    -------
    A number.
    """


def silent_about_results(
    adata: ad.AnnData,
    model: str = "small",
    layer: str = "x",
    copy: bool = False,  # noqa: FBT002
) -> int:
    """Do something.

    Parameters
    ----------
    adata, model, layer, copy
        Things.
    """
    raise ValueError(copy)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (good, []),
        (undocumented, ["no docstring"]),
        (forgets_one, ["documents the parameters ['adata'], takes ['adata', 'layer']"]),
        (
            silent_about_results,
            [
                "layer is an option: make it keyword-only",
                "copy is an option: make it keyword-only",
                "no Returns section",
                "raises, but has no Raises section",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_control_faulty_functions_are_found(function, expected):
    assert problems(function, adata_first=True) == expected


def test_control_first_argument():
    assert problems(good, adata_first=True) == []
    assert "the first argument is not adata" in problems(sections, adata_first=True)


# -- what is written into AnnData ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_model() -> scellm.models.CellLM:
    """An encoder with random weights over the packaged vocabulary."""
    vocabulary = scellm.data.GeneVocabulary.default()
    config = scellm.nn.CellLMConfig.named("tiny", n_genes=len(vocabulary))
    torch.manual_seed(0)
    return scellm.models.CellLM(
        encoder=scellm.nn.Encoder(config).eval(),
        config=config,
        tokens=scellm.data.TokenConfig(),
        vocabulary=vocabulary,
        name="tiny",
    )


ANNOTATED = {"key": "annotated", "show": False}


def with_ids(adata: ad.AnnData) -> ad.AnnData:
    """Ids of the Cell Ontology for the toy types."""
    ids = ("CL:0000236", "CL:0000624", "CL:0000623", "CL:0000576", "CL:0000625", "CL:0000451")
    names = adata.obs["cell_type"].astype(str)
    adata.obs["term"] = names.map(dict(zip(sorted(set(names)), ids, strict=False)))
    return adata


def with_head(model: scellm.models.CellLM) -> scellm.models.CellLM:
    """The same model with a head for malignancy."""
    weight, bias = np.ones(model.config.dim, np.float32), np.zeros(1, np.float32)
    part = Part(tensors={"weight": weight, "bias": bias})
    return dataclasses.replace(model, parts={"malignancy": part})


@functools.cache
def an_index() -> Path:
    """An index of toy cells."""
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    folder = Path(tempfile.mkdtemp()) / "index"
    cells = scellm.datasets.toy_cells(40, rng=1)
    return scellm.tl.index(cells, folder, columns="cell_type", min_overlap=0.01, show_progress=False)


ARGUMENTS = {
    "get.drug_response": lambda model: {"key": "predicted"},
    "get.annotation": lambda model: {"key": ANNOTATED["key"]},
    "get.embedding": lambda model: {"key": "X_pca"},
    "get.gene_importance": lambda model: {"key": "important"},
    "get.malignancy": lambda model: {"key": "called"},
    "get.search": lambda model: {"key": "looked_up"},
    "get.rank_drugs": lambda model: {"key": "ranked"},
    "pl.annotation": lambda model: ANNOTATED | {"basis": "X_pca"},
    "pl.confidence": lambda model: ANNOTATED,
    "pl.confusion_matrix": lambda model: ANNOTATED | {"truth": "cell_type"},
    "pl.copy_number": lambda model: {"key": "called", "show": False},
    "pl.drug_response": lambda model: {"key": "predicted", "show": False},
    "pl.malignancy": lambda model: {"key": "called", "basis": "X_pca", "show": False},
    "pl.markers": lambda model: ANNOTATED | {"markers": ["CD3D", "LYZ"]},
    "pl.rank_drugs": lambda model: {"key": "ranked", "show": False},
    "pl.search": lambda model: {"key": "looked_up", "show": False},
    "pl.reliability": lambda model: ANNOTATED | {"truth": "cell_type"},
    "pp.check_input": lambda model: {},
    "pp.harmonize_genes": lambda model: {},
    "tl.adapt": lambda model: {"n_components": 4, "min_overlap": 0.01},
    "tl.annotate": lambda model: {
        "model": scellm.tl.fit_reference(
            with_ids(scellm.datasets.toy_cells(40, rng=1)), "cell_type", model=model, levels="term"
        ),
        "target_error": 0.2,
    },
    "tl.drug_response": lambda model: {"groupby": "cell_type", "min_overlap": 0.05},
    "tl.drug_similarity": lambda model: {"key": "predicted"},
    "tl.embed": lambda model: {"model": model},
    "tl.fine_tune": lambda model: {
        "labels": "cell_type",
        "model": model,
        "val_by": "donor",
        "test_size": 0,
        "training": scellm.train.FineTuneOptions(min_cells=1),
        "strategy": "head",
        "baseline": False,
        "calibrate": False,
    },
    "tl.few_shot": lambda model: {
        "labels": "cell_type",
        "model": model,
        "val_by": "donor",
        "baseline": False,
        "calibrate": False,
    },
    "tl.fit_reference": lambda model: {"labels": "cell_type", "model": model},
    "tl.malignancy": lambda model: {"model": with_head(model), "sample_key": "donor"},
    "tl.gene_importance": lambda model: {"groupby": "donor", "model": model, "n_cells": 4, "n_steps": 2},
    "tl.search": lambda model: {"index": an_index(), "k": 3, "columns": "cell_type", "min_overlap": 0.01},
    "tl.rank_drugs": lambda model: {"groupby": "cell_type", "sample_key": "donor", "key": "predicted"},
}
"""Arguments beside `adata` with which each function that takes one runs on toy cells."""

NOT_ABOUT_TOYS = pytest.mark.filterwarnings(
    "ignore:.*(unlike any cancer|have no p-value):UserWarning"  # toy cells are no cancer, of two donors
)

TAKE_ADATA = {
    name: function
    for name, function in public_functions().items()
    if name.split(".")[0] in ADATA_FIRST and name not in NOT_OF_CELLS
}
IN_PLACE = {name: f for name, f in TAKE_ADATA.items() if "copy" in inspect.signature(f).parameters}


def documented_keys(function: Callable, arguments: dict) -> set[tuple[str, str]]:
    """(slot, key) pairs of a Returns section, `adata.obsm[key_added]` with the value of that argument."""
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    values = defaults | arguments
    found = re.findall(
        rf"`(?:adata\.)?({'|'.join(SLOTS)})\[(f?)([\"']?)([^\]\"']+)\3\]`",
        sections(function.__doc__)["Returns"],
    )
    return {
        (slot, key.format(**values) if formatted else key if quote else values[key])
        for slot, formatted, quote, key in found
    }


def present_keys(adata: ad.AnnData) -> set[tuple[str, str]]:
    return {(slot, key) for slot in SLOTS for key in getattr(adata, slot).keys()}


def differences(adata: ad.AnnData, before: ad.AnnData) -> list[str]:
    """Parts of an AnnData that are not as before."""
    found = [f"{slot}[{key!r}]" for slot, key in sorted(present_keys(adata) ^ present_keys(before))]
    for slot in ("obs", "var"):
        old = getattr(before, slot)
        if not getattr(adata, slot).reindex(columns=old.columns).equals(old):  # a new column is a new key
            found.append(slot)
    for name, new, old in (
        ("X", adata.X, before.X),
        ("counts", adata.layers["counts"], before.layers["counts"]),
    ):
        if new.dtype != old.dtype or new.shape != old.shape or (new != old).nnz:
            found.append(name)
    return found


@pytest.fixture
def cells() -> ad.AnnData:
    """Toy cells with counts in a layer too, something that could be an embedding, labels and drug responses as tools write them."""
    adata = scellm.datasets.toy_cells(12)
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["X_pca"] = np.arange(24, dtype=np.float32).reshape(12, 2)
    adata.obs["annotated"] = adata.obs["cell_type"]
    adata.obs["annotated_confidence"] = np.linspace(0.4, 1, 12, dtype=np.float32)
    adata.uns["annotated"] = {
        "scellm_version": "0",
        "classes": np.array(list(adata.obs["annotated"].cat.categories)),
    }
    adata.uns["looked_up"] = {"columns": np.array(["type"]), "n_indexed": 3}
    adata.obs["looked_up_type"] = adata.obs["cell_type"]
    adata.obs["looked_up_type_share"] = adata.obs["looked_up_unusual"] = np.linspace(0, 1, 12)
    adata.uns["important"] = {
        "groups": np.array(["donor0"]),
        "genes": np.array(["LYZ"]),
        "importance": np.ones((1, 1)),
        "expression": np.ones((1, 1)),
    }
    adata.uns["annotated_colors"] = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]
    adata.obsm["predicted"] = adata.obsm["X_pca"] + 1
    adata.obs["predicted_uncertainty"] = np.float32(1)
    adata.obs["predicted_applicability"] = np.linspace(0.5, 1.5, 12, dtype=np.float32)
    adata.uns["predicted"] = {
        "scellm_version": "0",
        "drugs": np.array(["Erlotinib", "Nutlin-3a (-)"]),
        "groupby": "",
        "spread": np.ones(2),
        **{field: np.array(["EGFR", "MDM2"]) for field in ("drug_class", "target", "smiles", "pearson")},
    }
    adata.obs["called"] = adata.obs["called_expression"] = adata.obs["called_copy_number"] = np.linspace(
        0, 1, 12
    )
    adata.obs["called_call"] = ["normal", "malignant"] * 6
    adata.obs["called_label"] = adata.obs["called_clone"] = "1"
    adata.obsm["called_profile"] = np.tile(np.linspace(-1, 1, 4, dtype=np.float32), (12, 1))
    adata.uns["called"] = {
        "samples": {"sample": np.array([""]), "n_cells": np.array([12])},
        "arms": {"clone": np.array(["1"]), "arm": np.array(["1p"])},
        "chromosome": np.array(["1", "1", "2", "2"]),
        "start": np.arange(4),
    }
    pairs = ("effect", "low", "high", "effect_sd", "p_value", "p_adjusted", "target_expressed", "n_samples")
    adata.uns["ranked"] = {
        "groups": np.array(["B cell"]),
        **{field: adata.uns["predicted"][field] for field in ("drugs", "drug_class", "target")},
        **{field: np.ones((1, 2)) for field in pairs},
    }
    return adata


def test_every_function_that_takes_cells_is_run_here():
    assert set(ARGUMENTS) == set(TAKE_ADATA), "give the new function its arguments in ARGUMENTS"


@NOT_ABOUT_TOYS
@pytest.mark.parametrize(("name", "function"), IN_PLACE.items(), ids=IN_PLACE)
@pytest.mark.parametrize("own_key", [False, True], ids=["default-key", "own-key"])
def test_documented_keys_are_written_and_no_others(name, function, own_key, cells, tiny_model):
    arguments = ARGUMENTS[name](tiny_model) | ({"key_added": "mine"} if own_key else {})
    before = cells.copy()
    assert function(cells, **arguments) is None
    documented = documented_keys(function, arguments)
    assert documented
    assert present_keys(cells) - present_keys(before) == documented
    assert differences(cells, before) == [f"{slot}[{key!r}]" for slot, key in sorted(documented)]


@NOT_ABOUT_TOYS
@pytest.mark.parametrize(("name", "function"), IN_PLACE.items(), ids=IN_PLACE)
def test_copy_leaves_the_input_untouched(name, function, cells, tiny_model):
    arguments = ARGUMENTS[name](tiny_model)
    before = cells.copy()
    copy = function(cells, **arguments, copy=True)
    assert differences(cells, before) == []
    assert isinstance(copy, ad.AnnData)
    assert present_keys(copy) - present_keys(before) == documented_keys(function, arguments)
    assert not np.shares_memory(copy.X.data, cells.X.data)


@pytest.mark.parametrize("name", sorted(set(TAKE_ADATA) - set(IN_PLACE)))
def test_functions_without_copy_leave_the_input_untouched(name, cells, tiny_model, capsys):
    before = cells.copy()
    arguments = ARGUMENTS[name](tiny_model)
    result = TAKE_ADATA[name](cells, **arguments)
    # a function that returns something else may leave its report
    keys = set() if isinstance(result, ad.AnnData) else documented_keys(TAKE_ADATA[name], arguments)
    assert set(differences(cells, before)) <= {f"{slot}[{key!r}]" for slot, key in keys}
    if isinstance(result, ad.AnnData):
        assert documented_keys(TAKE_ADATA[name], {}) <= present_keys(result)


def test_control_differences_are_found(cells):
    before = cells.copy()
    assert differences(cells, before) == []
    cells.obsm["extra"] = np.zeros((12, 1))
    cells.obs["donor"] = "someone"
    cells.obs["extra"] = 1
    cells.X.data[0] += 1
    cells.layers["counts"] = cells.layers["counts"].astype(np.float64)
    assert differences(cells, before) == ["obs['extra']", "obsm['extra']", "obs", "X", "counts"]


# -- examples -------------------------------------------------------------------------------------------------


def examples() -> dict[str, doctest.DocTest]:
    """Docstrings with examples, of all that the package exports."""
    finder = doctest.DocTestFinder(recurse=False)
    found = {test.name: test for test in finder.find(scellm.report, "report", globs={"scellm": scellm})}
    for namespace in sorted(set(scellm.__all__) - TOP):
        module = getattr(scellm, namespace)
        for name in getattr(module, "__all__", ()):
            for test in finder.find(getattr(module, name), f"{namespace}.{name}", globs={"scellm": scellm}):
                if test.examples:
                    found[test.name] = test
    return found


@pytest.mark.parametrize("example", examples().values(), ids=examples())
def test_examples_give_what_they_show(example):
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=report.append, clear_globs=False)
    assert runner.failures == 0, "".join(report)


# -- the API pages of the documentation -----------------------------------------------------------------------


def api_pages():
    """The generator of the API pages, from `docs/_ext`."""
    path = DOCS / "_ext" / "api_pages.py"
    if not path.exists():
        pytest.skip("docs/ is not here; the API pages are checked in a checkout")
    spec = importlib.util.spec_from_file_location("api_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_namespace_has_an_api_page():
    assert set(api_pages().NAMESPACES) == set(scellm.__all__) - TOP


def test_every_public_name_is_on_its_page():
    pages = api_pages().pages()
    assert re.search(r"^ +report$", pages["index.md"], flags=re.MULTILINE)
    for namespace in set(scellm.__all__) - TOP:
        for name in getattr(getattr(scellm, namespace), "__all__", ()):
            assert re.search(rf"^ +{name}$", pages[f"{namespace}.md"], flags=re.MULTILINE), (
                f"{namespace}.{name}"
            )
            assert f"]({namespace}.md)" in pages["index.md"]


def test_control_a_new_public_name_changes_the_page(monkeypatch):
    monkeypatch.setattr(scellm.datasets, "__all__", ["more_cells", "toy_cells"])
    monkeypatch.setattr(scellm.datasets, "more_cells", good, raising=False)
    page = api_pages().pages()["datasets.md"]
    assert re.search(r"^ +more_cells$", page, flags=re.MULTILINE)
    assert re.search(r"^ +toy_cells$", page, flags=re.MULTILINE)


def test_written_pages_follow_the_package(tmp_path):
    (tmp_path / "gone.md").write_text("a namespace that is no more")
    api_pages().write_pages(tmp_path)
    assert not (tmp_path / "gone.md").exists()
    assert "toy_cells" in (tmp_path / "datasets.md").read_text(encoding="utf-8")


# -- what acts and what does not ------------------------------------------------------------------------------

MOST_PARAMETERS = 20
"""Of any public function."""


@pytest.mark.parametrize(("name", "function"), public_functions().items(), ids=public_functions())
def test_parameters_are_few(name, function):
    assert len(inspect.signature(function).parameters) <= MOST_PARAMETERS, name


def test_labels_need_a_reference(cells):
    with pytest.raises(ValueError, match="labels='x' is about a reference, and none is given"):
        scellm.tl.annotate(cells, labels="x")


@pytest.mark.parametrize(
    "option",
    [
        {"max_epochs": 3},
        {"patience": 2},
        {"batch_size": 4},
        {"learning_rate": 0.1},
        {"lora_rank": 2},
        {"gene_dropout": 0},
    ],
    ids="-".join,
)
def test_options_of_training_need_epochs(option, cells):
    training = scellm.train.FineTuneOptions(**option)
    with pytest.raises(ValueError, match=f"{next(iter(option))}=.* has no effect with strategy='head'"):
        scellm.tl.fine_tune(cells, "cell_type", strategy="head", training=training)


def test_what_users_type_first(cells, tiny_model):
    model = scellm.tl.fine_tune(
        cells,
        "cell_type",
        model=tiny_model,
        strategy="head",
        baseline=False,
        calibrate=False,
        val_by="donor",
        test_size=0,
        training=scellm.train.FineTuneOptions(min_cells=1),
    )
    scellm.tl.annotate(cells, model)
    assert cells.uns["scellm_cell_type"]["mode"] == "fine-tuned"
