"""The one door for files: whole or not at all, nothing of others is lost, links are not followed."""

import errno
import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest

import scellm
from scellm import _files
from scellm._files import check_folder, check_room, is_full, parse_json, replacing, restore, tidy, tidy_inside


def killed(code: str, folder: Path) -> None:
    """Run code in a process that kills itself."""
    code = f"import os, pathlib\nfrom scellm._files import replacing\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr


def test_a_file_is_there_when_it_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    with replacing(target) as part:
        part.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), replacing(target) as part:
        _interrupted(part)
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def _interrupted(part: Path) -> None:
    part.write_text("half")
    raise KeyboardInterrupt


@pytest.mark.skipif(_files.fcntl is None, reason="needs locks")
def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_live_one_are_not(tmp_path):
    target = tmp_path / "a.txt"
    killed(
        "with replacing(pathlib.Path('a.txt')) as part:\n    part.write_text('half'); os.kill(os.getpid(), 9)",
        tmp_path,
    )
    assert len(list(tmp_path.iterdir())) == 1
    with replacing(target) as live:
        live.write_text("of a run that still writes")
        tidy(target)
        assert live.exists()
        assert len(list(tmp_path.iterdir())) == 1  # the dead one is gone
        tidy_inside(tmp_path)
        assert live.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(_files.fcntl is None, reason="needs locks")
def test_what_a_kill_between_two_renames_put_aside_comes_back(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    killed(
        "move = pathlib.Path.replace\n"
        "def replace(self, to):\n"
        "    move(self, to)\n"
        "    os.kill(os.getpid(), 9)\n"
        "pathlib.Path.replace = replace\n"
        "with replacing(pathlib.Path('model')) as part:\n    part.mkdir()",
        tmp_path,
    )
    assert not folder.exists()
    restore(folder)
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_a_like_name_is_not_ours(tmp_path):
    for name in (".a.txt.0123abcd", ".a.txt.zzzzzzzz.scellm", ".b.txt.0123abcd.scellm", ".a.txt.scellm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    (tmp_path / ".a.txt.0123abcd.scellm").mkdir()  # no lock in it: somebody else's
    (tmp_path / ".a.txt.0123abcd.scellm" / "thesis").touch()
    tidy(tmp_path / "a.txt")
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError("Can't write data (file write failed: errno = 28, error message = 'No space left')"), True),
        (RuntimeError("unable to flush: No space left on device"), True),
        (OSError("unable to open"), False),
    ],
    ids=["errno", "hdf5", "text", "other"],
)
def test_a_full_disk_is_known_and_named(tmp_path, error, expected):
    assert is_full(error) == expected
    with pytest.raises(type(error) if not expected else OSError) as raised, replacing(tmp_path / "a"):
        raise error
    assert ("The disk is full" in str(raised.value)) == expected
    assert list(tmp_path.iterdir()) == []


def test_room_is_looked_at_before(tmp_path):
    check_room(tmp_path / "a", 10, 10)
    with pytest.raises(OSError, match="too full to write .*a: 3 MB are needed .*, 1 MB are free") as raised:
        check_room(tmp_path / "a", 3_000_000, 1_000_000)
    assert raised.value.errno == errno.ENOSPC


def test_links_and_pipes_in_folders_are_named(tmp_path):
    (tmp_path / "a").write_text("12345")
    assert check_folder(tmp_path) == 5
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(ValueError, match=r"holds a link to a \(link\)"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a": NaN}', "NaN is no number"),
        ("[1]", "JSON list"),
        ("{", "not readable"),
    ],
    ids=["deep", "nan", "list", "cut"],
)
def test_json_of_strangers(text, message):
    with pytest.raises(ValueError, match=rf"x\.json.*{message}.* Copy it."):
        parse_json(text.encode(), Path("x.json"), "Copy it.")
    assert parse_json(b'{"a": 1}', Path("x.json"), "") == {"a": 1}


# -- where results are written ------------------------------------------------------------------------------------


@pytest.fixture
def cells(tmp_path) -> Path:
    """A file of cells, and one of somebody else beside it."""
    adata = scellm.datasets.toy_cells(20, n_vars=300)
    adata.write_h5ad(tmp_path / "mine.h5ad")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def write(source: Path, target: Path) -> None:
    """Write a small result."""
    from scellm.data import check_target, write_results

    check_target(source, target)
    write_results(source, target, {"obsm": {"X": np.ones((20, 2))}, "uns": {"X": {"a": 1}}})


@pytest.mark.parametrize("what", ["folder", "text", "link to nothing"])
def test_what_is_no_anndata_is_not_replaced(cells, what):
    target = cells.with_name("out.h5ad")
    if what == "folder":
        target.mkdir()
        (target / "thesis").touch()
    elif what == "text":
        target.write_text("years of work")
    else:
        target.symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="it is not replaced. Choose another name"):
        write(cells, target)
    assert what != "folder" or (target / "thesis").exists()
    assert what != "text" or target.read_text() == "years of work"


def test_an_anndata_is_replaced(cells):
    write(cells, target := cells.with_name("mine.h5ad"))
    assert ad.read_h5ad(target).obsm["X"].shape == (20, 2)


@pytest.mark.filterwarnings("ignore")  # of the zarr format
def test_a_zarr_folder_is_replaced_only_if_it_is_an_anndata(cells):
    adata = ad.read_h5ad(cells)
    for name in ("a.zarr", "b.zarr"):
        adata.write_zarr(cells.with_name(name))
    write(cells.with_name("a.zarr"), cells.with_name("b.zarr"))
    assert ad.read_zarr(cells.with_name("b.zarr")).obsm["X"].shape == (20, 2)
    (cells.with_name("b.zarr") / "thesis").touch()
    with pytest.raises(FileExistsError, match="other things than one .thesis"):
        write(cells.with_name("a.zarr"), cells.with_name("b.zarr"))
    write(cells.with_name("b.zarr"), cells.with_name("b.zarr"))  # a copy of itself keeps it
    assert (cells.with_name("b.zarr") / "thesis").exists()


def test_a_full_disk_is_said_before_anything_is_computed(cells):
    from types import SimpleNamespace

    from scellm.data import check_target

    with pytest.raises(OSError, match="The disk is too full"):
        check_target(cells, cells, lambda _: SimpleNamespace(free=1000))


@pytest.mark.parametrize("kind", ["external", "soft"])
@pytest.mark.parametrize("slot", ["obsm", "uns"])
def test_nothing_is_written_through_links(cells, kind, slot):
    before = cells.with_name("mine.h5ad").read_bytes()
    with h5py.File(cells, "r+") as file:
        del file[slot]
        file[slot] = h5py.ExternalLink("mine.h5ad", slot) if kind == "external" else h5py.SoftLink("/layers")
    with pytest.raises(ValueError, match=rf"cells\.h5ad: /?{slot} is a link to"):
        write(cells, cells)
    assert cells.with_name("mine.h5ad").read_bytes() == before
    assert sorted(path.name for path in cells.parent.iterdir()) == ["cells.h5ad", "mine.h5ad"]
