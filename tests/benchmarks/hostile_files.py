"""A hundred damaged and hostile files: each must end in an error that names it, and nothing else may change.

    python tests/benchmarks/hostile_files.py [words of names]

Each file is opened in a process of its own with a limit of time and memory. The last column is what went wrong: a
crash, a hang, a changed file of somebody else, silence, or an error that names no file.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
from safetensors.numpy import load_file, save_file

import scellm
from scellm.train._recipe_file import read_recipe

SECONDS = 60
MEMORY = 4 * 2**30
"""Bytes a file may take beyond what the process has."""
SHIPPED = Path(scellm.__file__).parent / "models" / "weights"
DEEP = "[" * 200_000


@dataclass(frozen=True)
class Case:
    """A file and what is done with it."""

    name: str
    make: Callable[[Path], Path]
    use: Callable[[Path], Any]


@cache
def small() -> scellm.models.CellLM:
    """The shipped model."""
    return scellm.models.load("scellm-small")


@cache
def toy() -> ad.AnnData:
    """Cells that can be embedded."""
    return scellm.datasets.toy_cells(60, n_vars=6000)


@cache
def of_somebody() -> bytes:
    """A file of somebody else."""
    mine = toy().copy()
    mine.obsm["X_pca"] = np.ones((60, 2), np.float32)
    with tempfile.TemporaryDirectory() as name:
        mine.write_h5ad(path := Path(name) / "mine.h5ad")
        return path.read_bytes()


# -- what is done with each ---------------------------------------------------------------------------------------


def embed(path: Path) -> None:
    """Embed into another file."""
    scellm.tl.embed(path, small(), output=path.with_name(f"out{path.suffix}"), show_progress=False)


def corpus(path: Path) -> None:
    """Read all cells for training."""
    found = scellm.data.Corpus.build(path, min_overlap=0.05)
    for number, size in enumerate(found.sizes):
        found.counts(number, np.arange(size))
    for key in found.label_keys:
        found.labels(key)


def model(path: Path) -> None:
    """Load a model and all of its parts."""
    for part in (found := scellm.models.load(path)).parts:
        found.parts[part]


def annotate(path: Path) -> None:
    """Use the reference of a model."""
    scellm.tl.annotate(toy().copy(), model=path)


# -- h5ad -----------------------------------------------------------------------------------------------------------


def h5ad(
    change: Callable[[h5py.File], Any], *, dense: bool = False, csc: bool = False
) -> Callable[[Path], Path]:
    """An h5ad file that was changed."""

    def make(folder: Path) -> Path:
        cells = toy().copy()
        cells.X = cells.X.toarray() if dense else cells.X.tocsc() if csc else cells.X
        cells.write_h5ad(path := folder / "cells.h5ad")
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def put(name: str, value: Any) -> Callable[[h5py.File], None]:
    """Replace an array."""

    def change(file: h5py.File) -> None:
        new = value(file) if callable(value) else value
        del file[name]
        file[name] = new

    return change


def at(name: str, i: Any, value: Any) -> Callable[[h5py.File], None]:
    """Change entries of an array."""

    def change(file: h5py.File) -> None:
        file[name][i] = value

    return change


def attribute(name: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    """Change an attribute."""
    return lambda file: file[name].attrs.__setitem__(key, value)


def cut(name: str, n: int) -> Callable[[h5py.File], None]:
    """Keep the first entries of an array, and its attributes; of text that may be missing, of its two arrays."""

    def change(file: h5py.File) -> None:
        if isinstance(file[name], h5py.Group):  # anndata 0.13
            for part in list(file[name]):
                cut(f"{name}/{part}", n)(file)
            return
        values, attributes = file[name][:n], dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)

    return change


def array_metadata(folder: Path) -> Path:
    """What says how the values of X are stored, in either format of zarr."""
    data = folder / "X" / "data"
    return next(data / name for name in (".zarray", "zarr.json") if (data / name).exists())


def bomb(n: int) -> Callable[[h5py.File], None]:
    """A row of n values of which none is in the file."""

    def change(file: h5py.File) -> None:
        for part, kind in (("data", "f4"), ("indices", "i4")):
            del file[f"X/{part}"]
            file["X"].create_dataset(part, shape=(n,), dtype=kind, chunks=(2**20,), compression="gzip")
        pointer = file["X/indptr"][:].astype(np.int64)
        pointer[-1] = n
        put("X/indptr", pointer)(file)

    return change


def empty_array(name: str, n: int, kind: str) -> Callable[[h5py.File], None]:
    """An array that claims n entries and holds none."""

    def change(file: h5py.File) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, shape=(n,), dtype=kind, chunks=(2**16,), compression="gzip")
        file[name].attrs.update(attributes)

    return change


def outside(name: str, inside: str) -> Callable[[h5py.File], None]:
    """An external link to the file of somebody else."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink("mine.h5ad", inside)

    return change


def virtual(file: h5py.File) -> None:
    """X is a window into another file."""
    del file["X"]
    layout = h5py.VirtualLayout(shape=(60, 6000), dtype="f4")
    layout[:] = h5py.VirtualSource("mine.h5ad", "X", shape=(60, 6000))
    file.create_virtual_dataset("X", layout)
    file["X"].attrs["encoding-type"] = "array"


def stored_outside(file: h5py.File) -> None:
    """X takes its bytes from any file."""
    del file["X"]
    file.create_dataset("X", shape=(60, 6000), dtype="u1", external=[("mine.h5ad", 0, 360_000)])
    file["X"].attrs["encoding-type"] = "array"


def soft(file: h5py.File) -> None:
    """obsm is a link to layers."""
    del file["obsm"]
    file["obsm"] = h5py.SoftLink("/layers")


H5AD: dict[str, tuple[Callable, dict[str, bool]]] = {
    "shape of 10^12 rows": (attribute("X", "shape", np.array([10**12, 6000])), {}),
    "shape of 10^12 columns": (attribute("X", "shape", np.array([60, 10**12])), {}),
    "shape of 30 rows": (attribute("X", "shape", np.array([30, 6000])), {}),
    "negative shape": (attribute("X", "shape", np.array([-60, 6000])), {}),
    "shape of three numbers": (attribute("X", "shape", np.array([60, 6000, 1])), {}),
    "shape is text": (attribute("X", "shape", "60x6000"), {}),
    "no shape": (lambda file: file["X"].attrs.__delitem__("shape"), {}),
    "unknown encoding": (attribute("X", "encoding-type", "strange"), {}),
    "CSR said to be CSC": (attribute("X", "encoding-type", "csc_matrix"), {}),
    "pointer jumps": (at("X/indptr", 5, 2 * 10**9), {}),
    "pointer negative": (at("X/indptr", 5, -100), {}),
    "pointer goes back": (at("X/indptr", 6, 1), {}),
    "pointer starts late": (at("X/indptr", 0, 7), {}),
    "pointer ends early": (at("X/indptr", -1, 10), {}),
    "pointer cut": (cut("X/indptr", 20), {}),
    "pointer of text": (put("X/indptr", np.array([b"a"] * 61)), {}),
    "pointer of fractions": (put("X/indptr", lambda file: file["X/indptr"][:] + 0.5), {}),
    "pointer in two dimensions": (put("X/indptr", np.zeros((61, 2), np.int64)), {}),
    "pointer of 10^11 rows": (empty_array("X/indptr", 10**11, "i8"), {}),
    "no pointer": (lambda file: file["X"].__delitem__("indptr"), {}),
    "data cut": (cut("X/data", 100), {}),
    "indices cut": (cut("X/indices", 100), {}),
    "no data": (lambda file: file["X"].__delitem__("data"), {}),
    "data of text": (put("X/data", lambda file: np.array([b"x"] * len(file["X/data"]))), {}),
    "negative column": (at("X/indices", slice(0, 50), -1), {}),
    "negative column in the last row": (at("X/indices", -1, -6000), {}),
    "column too large": (at("X/indices", 3, 10**8), {}),
    "column one too large": (at("X/indices", 3, 6000), {}),
    "columns of fractions": (put("X/indices", lambda file: file["X/indices"][:] + 0.5), {}),
    "10^9 values in a row": (bomb(10**9), {}),
    "10^11 values in a row": (bomb(10**11), {}),
    "CSC with negative rows": (at("X/indices", slice(0, 5), -1), {"csc": True}),
    "CSC with rows too large": (at("X/indices", 3, 60), {"csc": True}),
    "CSC pointer jumps": (at("X/indptr", 5, 2 * 10**9), {"csc": True}),
    "dense of other rows": (cut("X", 30), {"dense": True}),
    "dense in one dimension": (put("X", np.zeros(60)), {"dense": True}),
    "dense of text": (put("X", np.full((60, 6000), b"a")), {"dense": True}),
    "obs of 10^11 names": (empty_array("obs/_index", 10**11, "S8"), {}),
    "var of 10^11 names": (empty_array("var/_index", 10**11, "S8"), {}),
    "obs cut": (cut("obs/_index", 20), {}),
    "var cut": (cut("var/_index", 20), {}),
    "no index of var": (lambda file: file["var"].__delitem__("_index"), {}),
    "index is a missing column": (attribute("var", "_index", "absent"), {}),
    "column order of nothing": (attribute("obs", "column-order", np.array(["gone"], dtype=object)), {}),
    "var is an array": (put("var", np.zeros(3)), {}),
    "obs is gone": (lambda file: file.__delitem__("obs"), {}),
    "obsm is an array": (put("obsm", np.zeros(3)), {}),
    "external link as obsm": (outside("obsm", "obsm"), {}),
    "external link as uns": (outside("uns", "uns"), {}),
    "external link as X": (outside("X", "X"), {}),
    "external link as obs": (outside("obs", "obs"), {}),
    "external link deep in uns": (outside("uns/a/b", "uns"), {}),
    "external link as the key": (outside("obsm/X_scellm", "obsm/X_pca"), {}),
    "soft link as obsm": (soft, {}),
    "virtual X": (virtual, {}),
    "X stored outside": (stored_outside, {}),
}


def broken_bytes(start: float, stop: float) -> Callable[[Path], Path]:
    """A part of the bytes is zero."""

    def make(folder: Path) -> Path:
        path = h5ad(lambda file: None)(folder)
        content = bytearray(path.read_bytes())
        begin, end = int(start * len(content)), int(stop * len(content))
        content[begin:end] = bytes(end - begin)
        path.write_bytes(content)
        return path

    return make


def truncated(folder: Path) -> Path:
    """Half a file."""
    path = h5ad(lambda file: None)(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def as_text(folder: Path) -> Path:
    """No HDF5 at all."""
    (path := folder / "cells.h5ad").write_text("gene,cell\n")
    return path


def fifo(folder: Path) -> Path:
    """A pipe that nobody writes to."""
    os.mkfifo(path := folder / "cells.h5ad")
    return path


# -- zarr -----------------------------------------------------------------------------------------------------------


def zarr(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    """A zarr folder that was changed."""

    def make(folder: Path) -> Path:
        toy().copy().write_zarr(path := folder / "cells.zarr")
        change(path)
        return path

    return make


def metadata(name: str, **fields: Any) -> Callable[[Path], None]:
    """Change what a zarr array says of itself."""

    def change(path: Path) -> None:
        (path / ".zmetadata").unlink(missing_ok=True)
        file = next(p for p in (path / name / ".zarray", path / name / "zarr.json") if p.exists())
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def chunk(path: Path, name: str, content: bytes) -> None:
    """Change the first chunk of an array."""
    file = next(
        p for p in sorted((path / name).rglob("*")) if p.is_file() and not p.name.startswith((".z", "zarr"))
    )
    file.write_bytes(content)


ZARR: dict[str, Callable[[Path], Any]] = {
    "zarr: link to a file": lambda z: (z / "uns" / "leak").symlink_to(z.parent / "mine.h5ad"),
    "zarr: link to itself": lambda z: (z / "loop").symlink_to("."),
    "zarr: link to /": lambda z: (z / "obsm" / "root").symlink_to("/"),
    "zarr: link as chunk": lambda z: (z / "X" / "data" / "9").symlink_to(z.parent / "mine.h5ad"),
    "zarr: obsm is a link": lambda z: (shutil.rmtree(z / "obsm"), (z / "obsm").symlink_to(z.parent)),
    "zarr: pipe as chunk": lambda z: os.mkfifo(z / "X" / "data" / "9"),
    "zarr: chunk of noise": lambda z: chunk(z, "X/data", b"noise"),
    "zarr: pointer of noise": lambda z: chunk(z, "X/indptr", bytes(10)),
    "zarr: no chunks": metadata("X/indptr", chunks=[0]),
    "zarr: pointer of 10^12": metadata("X/indptr", shape=[10**12], chunks=[10**12]),
    "zarr: chunks of 10^12": metadata("X/data", chunks=[10**12]),
    "zarr: unknown codec": metadata("X/data", compressor={"id": "evil"}, codecs=[{"name": "evil"}]),
    "zarr: pickled objects": metadata("X/data", filters=[{"id": "pickle"}], dtype="|O", data_type="evil"),
    "zarr: metadata cut": lambda z: array_metadata(z).write_text("{"),
    "zarr: metadata nested deep": lambda z: array_metadata(z).write_text(DEEP),
    "zarr: index gone": lambda z: shutil.rmtree(z / "var" / "_index"),
}


# -- model folders --------------------------------------------------------------------------------------------------


def folder_of(change: Callable[[Path], Any], name: str = "scellm-small") -> Callable[[Path], Path]:
    """A shipped model that was changed, with a manifest that fits."""

    def make(folder: Path) -> Path:
        shutil.copytree(SHIPPED / name, path := folder / "stranger")
        change(path)
        seal(path)
        return path

    return make


def seal(path: Path) -> None:
    """Write the manifest, and the hash of the weights, again."""
    manifest = json.loads((SHIPPED / "scellm-small" / "manifest.json").read_text())
    digest = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}
    for facts in (path / "reference.json", path / "malignancy.json"):
        if facts.exists() and facts.read_bytes()[:1] == b"{":
            saved = json.loads(facts.read_text()) | {"weights": digest["model.safetensors"]}
            facts.write_text(json.dumps(saved))
            digest[facts.name] = hashlib.sha256(facts.read_bytes()).hexdigest()
    if (path / "manifest.json").read_bytes()[:1] != b"{":
        return
    manifest["files"] = {
        name: {"sha256": text, "size": (path / name).stat().st_size}
        for name, text in digest.items()
        if name != "manifest.json"
    }
    (path / "manifest.json").write_text(json.dumps(manifest))


def fields(section: str, file: str = "config.json", **values: Any) -> Callable[[Path], None]:
    """Change numbers of a configuration."""

    def change(path: Path) -> None:
        content = json.loads((path / file).read_text())
        content[section] = content[section] | values
        (path / file).write_text(json.dumps(content))

    return change


def arrays(change: Callable[[dict], Any], file: str = "model.safetensors") -> Callable[[Path], None]:
    """Change arrays."""

    def do(path: Path) -> None:
        change(tensors := load_file(path / file))
        save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path / file)

    return do


def entry(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    """Change one array."""
    return lambda tensors: tensors.__setitem__(name, change(tensors[name]))


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Replace a file."""
    return lambda path: (path / name).write_bytes(content.encode() if isinstance(content, str) else content)


def genes(n: int) -> Callable[[Path], None]:
    """A vocabulary of n genes."""
    rows = "".join(f"{i}\t\tG{i}\n" for i in range(n))
    return text("genes.tsv", f"gene_id\tensembl_id\tsymbol\n{rows}")


REF = "reference.safetensors"
MODELS: dict[str, Callable[[Path], Any]] = {
    "model: depth 10^7": fields("encoder", depth=10**7),
    "model: dim 10^18": fields("encoder", dim=10**18),
    "model: dim 256.5": fields("encoder", dim=256.5),
    "model: dim true": fields("encoder", dim=True),
    "model: dim as text": fields("encoder", dim="256"),
    "model: heads 0": fields("encoder", heads=0),
    "model: attention is a list": fields("encoder", attention=["softmax"]),
    "model: target sum 0": fields("tokens", target_sum=0),
    "model: target sum NaN": fields("tokens", target_sum=float("nan")),
    "model: context of 10^30": fields("tokens", max_genes=10**30),
    "model: deep config": text("config.json", DEEP),
    "model: deep manifest": text("manifest.json", DEEP),
    "model: genes are no text": text("genes.tsv", b"\xff\xfe\x00"),
    "model: 100 genes": genes(100),
    "model: weights are noise": text("model.safetensors", b"noise" * 100),
    "model: weights of NaN": arrays(entry("norm.weight", lambda x: x * np.nan)),
    "model: infinite bias": arrays(entry("norm.bias", lambda x: x + np.inf)),
    "model: weights cut": arrays(entry("norm.weight", lambda x: x[:3])),
    "part: NaN": arrays(entry("weight", lambda x: x * np.nan), REF),
    "part: exemplars of 100 numbers": arrays(entry("exemplars", lambda x: x[:, :100]), REF),
    "part: no exemplars": arrays(entry("exemplars", lambda x: x[:0]), REF),
    "part: scale 0": arrays(entry("scale", lambda x: x * 0), REF),
    "part: labels beyond": arrays(entry("exemplar_labels", lambda x: x + 86), REF),
    "part: labels negative": arrays(entry("exemplar_labels", lambda x: x - 86), REF),
    "part: temperature 0": fields("meta", "reference.json", temperature=0),
    "part: temperature -1": fields("meta", "reference.json", temperature=-1.0),
    "part: one class 86 times": fields("meta", "reference.json", classes=["a"] * 86),
    "part: genes are numbers": fields("meta", "reference.json", genes=[1, 2]),
    "part: ontology ids are a number": fields("meta", "reference.json", facts={"ontology_ids": 3}),
    "part: deep facts": text("reference.json", DEEP),
    "part: malignancy NaN": arrays(entry("weight", lambda x: x * np.nan), "malignancy.safetensors"),
}
DRUGS: dict[str, Callable[[Path], Any]] = {
    "drugs: 100 of 618 genes": lambda path: (path / "genes.tsv").write_text(
        "\n".join((path / "genes.tsv").read_text().splitlines()[:102]) + "\n"
    ),
    "drugs: NaN": arrays(entry("response", lambda x: x * np.nan)),
    "drugs: lines cut": arrays(entry("line_vectors", lambda x: x[:10])),
    "drugs: scale negative": arrays(entry("scale", lambda x: -x)),
    "drugs: no response": arrays(lambda tensors: tensors.pop("response")),
    "drugs: drugs are text": fields("encoder", drugs="aspirin"),
    "drugs: settings are null": fields("encoder", settings=None),
}


# -- packed files and recipes ---------------------------------------------------------------------------------------


def packed(change: Callable[[h5py.File], Any]) -> Callable[[Path], Path]:
    """A packed file that was changed."""

    def make(folder: Path) -> Path:
        path = scellm.data.pack({"toy": toy()}, folder / "corpus.h5")
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


PACKED: dict[str, Callable[[h5py.File], Any]] = {
    "packed: 10^11 values": empty_array("datasets/0/data", 10**11, "u1"),
    "packed: 10^12 of vocabulary": empty_array("vocabulary", 10**12, "u1"),
    "packed: other version": lambda file: file.attrs.__setitem__("version", 99),
    "packed: external data": outside("datasets/0/data", "X/data"),
    "packed: external dataset": outside("datasets/0", "X"),
    "packed: values changed": at("datasets/0/data", 0, 77),
    "packed: column changed": at("datasets/0/indices", 0, 60_000),
    "packed: pointer changed": at("datasets/0/indptr", 3, 0),
    "packed: no datasets": lambda file: file.__delitem__("datasets"),
    "packed: shape of 10^12": attribute("datasets/0", "shape", np.array([10**12, 19_000])),
}
STAGE = "\n[[stage]]\nmax_steps = 2\n"
RECIPES: dict[str, str] = {
    "recipe: name leads out": f"name = '../../evil'{STAGE}",
    "recipe: stage leads out": f"name = 'mine'{STAGE}name = '../evil'\n",
    "recipe: absolute name": f"name = '/evil'{STAGE}",
    "recipe: data is text": f"name = 'mine'\ndata = 'corpus.h5'{STAGE}",
    "recipe: freeze is text": f"name = 'mine'{STAGE}freeze = 'gene'\n",
    "recipe: context is text": f"name = 'mine'\nmax_genes = '12'{STAGE}",
    "recipe: overlap of 7": f"name = 'mine'\nmin_overlap = 7{STAGE}",
    "recipe: endless batch": f"name = 'mine'{STAGE}batch_size = inf\n",
    "recipe: depth 10^12": f"name = 'mine'\nconfig = {{depth = 1000000000000}}{STAGE}",
    "recipe: nested deep": f"name = 'mine'\na = {'[' * 50_000}",
    "recipe: stages are numbers": "name = 'mine'\nstage = [1, 2]\n",
    "recipe: config is a number": f"name = 'mine'\nconfig = 3{STAGE}",
}


def recipe(content: str) -> Callable[[Path], Path]:
    """A recipe file."""

    def make(folder: Path) -> Path:
        (path := folder / "stranger.toml").write_text(content)
        return path

    return make


def cases() -> Iterator[Case]:
    """All files."""
    for name, (change, kind) in H5AD.items():
        yield Case(f"h5ad: {name}", h5ad(change, **kind), embed)
    yield Case("h5ad: half a file", truncated, embed)
    yield Case("h5ad: first bytes zero", broken_bytes(0, 0.001), embed)
    yield Case("h5ad: 2 % of zeros", broken_bytes(0.001, 0.02), embed)
    yield Case("h5ad: text", as_text, embed)
    yield Case("h5ad: pipe", fifo, embed)
    for name in ("negative column", "column too large", "pointer jumps", "10^9 values in a row"):
        yield Case(f"corpus: {name}", h5ad(H5AD[name][0]), corpus)
    yield from (Case(name, zarr(change), embed) for name, change in ZARR.items())
    for name, change in MODELS.items():
        yield Case(name, folder_of(change), annotate if name == "part: labels negative" else model)
    for name, change in DRUGS.items():
        yield Case(name, folder_of(change, "scellm-drug"), scellm.drugs.load_drug_model)
    yield from (Case(name, packed(change), corpus) for name, change in PACKED.items())
    yield from (Case(name, recipe(content), read_recipe) for name, content in RECIPES.items())


# -- running them ---------------------------------------------------------------------------------------------------


def outcome(case: Case, path: Path) -> str:
    """What a call says, as one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case.use(path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged below
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return "nothing"


def verdict(said: str, path: Path) -> str:
    """What is wrong with an outcome; "" if nothing."""
    if said == "nothing":
        return "silence"
    if not said.startswith(
        ("ValueError:", "OSError:", "FileNotFoundError:", "FileExistsError:", "KeyError:")
    ):
        return "no error that is meant for people"
    return "" if path.name in said else "the file is not named"


def everything(folder: Path) -> dict[str, str]:
    """Hash of all files of a folder, links and pipes as such."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink()
    }


def prepared(case: Case, folder: Path) -> Path:
    """The file, beside one of somebody else that must stay as it is."""
    small()  # before the fork, so that no child reads it again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (folder / "mine.h5ad").write_bytes(of_somebody())
        return case.make(folder)


def in_own_process(case: Case, path: Path) -> str:
    """The outcome in a process that may crash, hang or take all memory."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        os.write(writer, outcome(case, path)[:4000].encode())
        os._exit(0)
    os.close(writer)
    end = time.monotonic() + SECONDS
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            return "hang"
        time.sleep(0.01)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read().decode(errors="replace")
    return said or f"crash: signal {os.WTERMSIG(done[1])}"


def main(words: list[str]) -> int:
    """Try all, or those whose names hold one of the words; 1 if any fails."""
    failed = n = 0
    for case in cases():
        if words and not any(word in case.name for word in words):
            continue
        n += 1
        with tempfile.TemporaryDirectory() as name:
            path = prepared(case, Path(name))
            before = everything(Path(name))
            said = in_own_process(case, path)
            wrong = verdict(said, path) or (
                "a file was changed or made" if everything(Path(name)) != before else ""
            )
        failed += bool(wrong)
        print(f"{case.name:36} {said.replace(name, '')[:90]:90} {wrong}", flush=True)
    print(f"\n{n} files, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
