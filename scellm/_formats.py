"""Things that are not an AnnData, or not a file of one: what they are, and what to type to make one of them."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

READERS = {
    ".h5ad": "anndata.read_h5ad({path!r})",
    ".zarr": "anndata.io.read_zarr({path!r})",
    ".loom": "anndata.io.read_loom({path!r})",
    ".h5mu": 'mudata.read_h5mu({path!r}).mod["rna"]',
    ".h5": "scanpy.read_10x_h5({path!r})",
    ".csv": "anndata.io.read_csv({path!r})",
    ".tsv": "anndata.io.read_text({path!r})",
    ".txt": "anndata.io.read_text({path!r})",
    ".mtx": "anndata.io.read_mtx({path!r}).T",
    ".xlsx": "anndata.io.read_excel({path!r}, 0)",
}
"""How a file is read into an AnnData, by its ending."""
KINDS = {
    ".loom": "a loom file",
    ".h5mu": "a MuData file, of several modalities",
    ".h5": "10x output",
    ".csv": "a table of text",
    ".tsv": "a table of text",
    ".txt": "a table of text",
    ".mtx": "a Matrix Market file, which has neither names of genes nor of cells",
    ".xlsx": "a spreadsheet",
}
FOREIGN = {
    ".rds": "Save it from R as .h5ad, for instance with the package anndataR: write_h5ad(x, 'cells.h5ad').",
    ".rdata": "Save it from R as .h5ad, for instance with the package anndataR: write_h5ad(x, 'cells.h5ad').",
    ".h5seurat": "Convert it in R: SeuratDisk::Convert(file, dest = 'h5ad').",
}
"""Files that Python cannot read."""
CELL_RANGER = re.compile(
    r"outs|per_sample_outs|count|multi|(filtered|raw)_(feature|gene)_bc_matri(x|ces)(_h5)?|sample_filtered_feature_bc_matrix|GRCh38|hg19|hg38"
)
"""Names that Cell Ranger gives to the output of every sample."""


_OF_CELLS = "Pass the file of the cells that it is about; the table is read with pandas."
_PANDAS = {
    ".csv": "read_csv({!r}, index_col=0)",
    ".parquet": "read_parquet({!r})",
    ".tsv": "read_csv({!r}, sep='\\t', index_col=0)",
}
GROWS = 4
"""How many times larger 10x, loom and h5mu files are in memory than compressed on the disk, about."""
LARGE = 2**28
"""Bytes in memory from which on they are converted instead."""


def expand(path: str | os.PathLike[str]) -> Path:
    """The path, with `~` for the home folder."""
    return Path(path).expanduser()


def check_exists(path: Path) -> None:
    """That there is something of this name."""
    if not path.exists():
        msg = f"There is no file {path}.{_near(path)}"
        raise FileNotFoundError(msg)


def check_readable(path: str | os.PathLike[str]) -> Path:
    """The path of an h5ad file or zarr folder, `~` expanded.

    What is inside is not looked at beyond telling formats apart.
    """
    path = expand(path)
    check_exists(path)
    _check_whole(path)
    if path.suffix.lower() in (".h5ad", ".zarr") or _is_anndata(path):
        return path
    what, code = describe_path(path)
    if code and path.suffix.lower() not in READERS and path.is_file():
        msg = f"{path} is {what}. Rename it to {code!r}."
    elif code:
        stem = path.name.split(".")[0] or "cells"
        msg = f"{path} is {what}. Read it and write it as .h5ad: {code}.write_h5ad({str(path.with_name(stem + '.h5ad'))!r})."
    else:
        msg = f"{path} is neither an .h5ad file nor a .zarr folder: {what}"
    raise ValueError(msg)


def sample_name(path: Path) -> str:
    """What to call the results of a file or folder: folders and files that Cell Ranger names are called by their sample."""
    name = path.name if path.suffix == "" else path.stem
    if path.suffix not in ("", ".h5") or not CELL_RANGER.fullmatch(name):
        return name
    above = [part for part in path.resolve().parts[1:-1] if not CELL_RANGER.fullmatch(part)]
    return above[-1] if above else name


def _check_whole(path: Path) -> None:
    """Refuse an HDF5 file that was cut off, in words."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        end = re.search(r"truncated file.*stored_eof = (\d+)", str(error))
        if end is None:
            return
        sizes = f"{path.stat().st_size / 1e6:.1f} of {int(end.group(1)) / 1e6:.1f} MB are there"
        msg = f"{path} is cut off: {sizes}. Copy or download it again."
        raise ValueError(msg) from error


def is_streamed(path: Path) -> bool:
    """Whether rows are read from the disk as they are needed, or it is nothing that could be read; false for other formats."""
    return whole_of(path) is None


def whole_of(path: Path) -> Path | None:
    """The loom or h5mu file, or file or folder of Cell Ranger, that is read as a whole or converted; `None` for all else."""
    if path.is_dir() and path.suffix != ".zarr":
        return _find_10x(path)
    suffix = path.suffix.lower()
    is_whole = path.is_file() and (suffix in (".loom", ".h5mu") or (suffix == ".h5" and _is_10x(path)))
    return path if is_whole else None


def size_in_memory(whole: Path) -> int:
    """Bytes that such cells take in memory, about."""
    files = [whole] if whole.is_file() else list(whole.glob("*matrix.mtx*"))
    return GROWS * sum(file.stat().st_size for file in files)


def names_of_10x(folder: Path) -> tuple[Path, str]:
    """The matrix of a folder of Cell Ranger, and the sample's name before its files' names."""
    return next(iter(sorted(folder.glob("*matrix.mtx*")))), _prefix(folder)


def read_cells(path: str | os.PathLike[str]) -> AnnData:
    """An AnnData from an h5ad, zarr or loom file or from output of Cell Ranger.

    Parameters
    ----------
    path
        File or folder; `~` is expanded.

    Raises
    ------
    FileNotFoundError
        There is nothing of that name.
    ValueError
        It is of another format.
    """
    import anndata.io

    path = expand(path)
    _check_whole(path)
    found = _find_10x(path) if path.is_dir() and path.suffix != ".zarr" else None
    if found is not None or (path.suffix == ".h5" and path.is_file() and _is_10x(path)):
        return _read_10x(path if found is None else found)
    if path.suffix == ".loom" and path.is_file():
        return anndata.io.read_loom(path)
    path = check_readable(path)
    if path.is_dir():
        return anndata.io.read_zarr(path)
    return anndata.read_h5ad(path)


def _read_10x(place: Path) -> AnnData:
    """Genes of 10x output by their ids: symbols are not unique."""
    import scanpy as sc

    try:
        if place.is_dir():
            return sc.read_10x_mtx(place, var_names="gene_ids", prefix=_prefix(place) or None)
        with warnings.catch_warnings():  # symbols are not unique, and ids become the names
            warnings.filterwarnings("ignore", message="Variable names are not unique")
            cells = sc.read_10x_h5(place)
    except Exception as error:  # scanpy raises bare ones
        if isinstance(error, OSError | MemoryError):
            raise
        msg = f"{place} is damaged, or no 10x output after all: {str(error).rstrip('.')}. Copy it again from where it was made."
        raise ValueError(msg) from error
    cells.var["gene_symbols"] = cells.var_names
    cells.var_names = cells.var["gene_ids"].astype(str).to_numpy()
    return cells


def describe_path(path: Path) -> tuple[str, str]:
    """What a file or folder that is there seems to be, and the code that reads it, "" where there is none."""
    if path.is_dir():
        return _describe_folder(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if suffix in FOREIGN:
        return f"Python cannot read this format. {FOREIGN[suffix]}", ""
    if path.name.startswith(("matrix.mtx", "barcodes.tsv", "features.tsv", "genes.tsv")):
        return "one of the three files of 10x output, whose folder is read", _mtx_code(path.parent)
    if suffix == ".h5" and not _is_10x(path):
        return "it holds neither an AnnData nor 10x output. Write it with adata.write_h5ad.", ""
    if suffix == ".parquet" or (suffix in (".csv", ".tsv", ".txt") and path.is_file() and _is_labels(path)):
        how = _PANDAS.get(suffix, _PANDAS[".tsv"]).format(str(path))
        return f"it is a table of results or labels, not of counts. {_OF_CELLS}{how}.", ""
    if suffix in READERS:
        return KINDS.get(suffix, "a file"), READERS[suffix].format(path=str(path))
    return "write one with adata.write_h5ad.", ""


def _is_labels(path: Path) -> bool:
    """Whether a table holds columns of cells, as `--table` writes them: text among its values, or names of ours."""
    import csv
    import gzip

    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", errors="replace") as file:
        rows = csv.reader(file, delimiter="," if ".csv" in path.suffixes else "\t")
        names, values = next(rows, []), next(rows, [])
    return any(name.startswith("scellm_") for name in names) or any(map(_is_text, values[1:]))


def _is_text(value: str) -> bool:
    try:
        float(value or 0)
    except ValueError:
        return True
    return False


def _find_10x(folder: Path) -> Path | None:
    """The folder of `matrix.mtx`, or the .h5 file, of a folder of 10x output."""
    for inside in (
        folder,
        *(folder / name for name in ("filtered_feature_bc_matrix", "filtered_gene_bc_matrices")),
    ):
        for place in (inside, *sorted(inside.glob("*/"))[:5]) if inside.is_dir() else ():
            if any(place.glob("*matrix.mtx*")):
                return place
    outs = folder / "outs" if (folder / "outs").is_dir() else folder
    for name in ("filtered_feature_bc_matrix.h5", "filtered_gene_bc_matrices_h5.h5"):
        if (outs / name).is_file():
            return outs / name
    return None if outs == folder else _find_10x(outs)


def _describe_folder(folder: Path) -> tuple[str, str]:
    """Folders of 10x output, of h5ad files, and others."""
    found = _find_10x(folder)
    if found is not None:
        code = _mtx_code(found) if found.is_dir() else READERS[".h5"].format(path=str(found))
        return "a folder of 10x output", code
    if any((folder / name).exists() for name in (".zgroup", "zarr.json", ".zattrs")):
        return "it is a zarr store under a name of its own. Rename it so that it ends in .zarr.", ""
    files = sorted(one.name for one in folder.iterdir() if one.suffix in (".h5ad", ".zarr"))
    if files:
        return (
            f"it is a folder that holds {len(files)} of them. Pass each, for instance {str(folder / files[0])!r}.",
            "",
        )
    return "it is a folder without any. Pass the path of a file.", ""


def _mtx_code(folder: Path) -> str:
    """How to read a folder of `matrix.mtx`, with the sample's name that may stand before the files' names."""
    prefix = _prefix(folder)
    options = f", prefix={prefix!r}" if prefix else ""
    return f"scanpy.read_10x_mtx({str(folder)!r}{options})"


def _prefix(folder: Path) -> str:
    """The sample's name before those of the three files."""
    names = sorted(one.name for one in folder.glob("*matrix.mtx*"))
    return names[0].split("matrix.mtx")[0] if names else ""


def _is_10x(path: Path) -> bool:
    """Output of Cell Ranger 3 and later (`matrix`), or of version 2 (a group by genome)."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        if "matrix" in file:
            return True
        return any(
            isinstance(group, h5py.Group) and {"barcodes", "genes"} <= set(group) for group in file.values()
        )


def _is_anndata(path: Path) -> bool:
    """Whether an HDF5 file of another name holds an AnnData."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return "obs" in file and "var" in file


def _near(path: Path) -> str:
    """What is there instead: the folder is missing, or a name that differs in its case or ending."""
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    stem = path.stem.lower()
    near = sorted(one.name for one in path.parent.iterdir() if one.stem.lower() == stem)
    return f" There is {', '.join(near[:3])}." if near else ""


def wrong_kind(thing: Any) -> Exception:
    """The error for something that stands where an AnnData should."""
    kind = type(thing).__name__
    start = f"Need an AnnData object, found {kind}"
    if isinstance(thing, str | os.PathLike):
        return _wrong_path(thing, start)
    if thing is None:
        return TypeError(
            f"{start}. Functions of scanpy that change an object in place return None: do not assign them."
        )
    if isinstance(thing, type):
        return TypeError(f"{start}: the class {thing.__name__}, not an object of it.")
    if isinstance(thing, list | tuple | dict):
        return TypeError(f"{start}. {_several(thing)}")
    return TypeError(f"{start}. {_matrix(thing)}".strip())


def _wrong_path(path: str | os.PathLike[str], start: str) -> Exception:
    """A path where an object is wanted."""
    found = expand(path)
    if not found.exists():
        reader = READERS[".h5ad"].format(path=str(path))
        return FileNotFoundError(
            f"{start} {str(path)!r}, and there is no such file. Read a file first: adata = {reader}."
        )
    what, code = describe_path(found)
    if found.suffix.lower() in (".h5ad", ".zarr") or _is_anndata(found):
        what, code = "a path", READERS[".zarr" if found.is_dir() else ".h5ad"].format(path=str(found))
    if not code:
        return TypeError(f"{start} {str(path)!r}: {what}")
    return TypeError(f"{start} {str(path)!r}, {what}. Read it first: adata = {code}.")


def _several(things: list | tuple | dict) -> str:
    """What to do with several objects."""
    from anndata import AnnData

    values = list(things.values()) if isinstance(things, dict) else list(things)
    if values and all(isinstance(value, AnnData) for value in values):
        return "Pass the objects one by one, or join them: anndata.concat(adatas, index_unique='-')."
    return "Pass one AnnData."


def _matrix(thing: Any) -> str:
    """What to do with a table or a matrix."""
    import pandas as pd

    if isinstance(thing, pd.DataFrame):
        return "If rows are cells and columns are genes: anndata.AnnData(table); if genes are the rows: anndata.AnnData(table.T)."
    if isinstance(thing, pd.Series):
        return "Pass the object it is a column of."
    if type(thing).__name__ == "Raw" and hasattr(thing, "to_adata"):
        return "Pass the object with use_raw=True, or adata.raw.to_adata()."
    if hasattr(thing, "shape") and len(thing.shape) == 2:
        return "A matrix has no names: anndata.AnnData(X, var=pandas.DataFrame(index=gene_names)), with cells as rows."
    return ""
