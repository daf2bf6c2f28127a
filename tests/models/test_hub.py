"""Names, folders and repositories: downloads from a small Hugging Face Hub on loopback, cached, cut off, altered."""

import hashlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from scellm.models import _bundle, _hub, list_models, load, save
from scellm.models._manifest import CONTENTS, MANIFEST, sha256_of
from scellm.models._parts import Part, write_part

REPO = "biolab/tiny-cells"

# -- the part of the Hub's HTTP interface that huggingface_hub uses to download -----------------------------------

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/?]+))?$")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")


class Hub:
    """Repositories, what was asked for, and the faults to make."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        """Files of each (repository, commit)."""
        self.revisions: dict[tuple[str, str], str] = {}
        """Commit of each (repository, branch or tag)."""
        self.gated: set[str] = set()
        self.cut: dict[str, int] = {}
        """Bytes of a file after which the connection breaks; it is never whole."""
        self.failing = False
        """Answer everything with 503."""
        self.login_page = False
        """Answer everything with 200 and HTML, as captive portals do."""
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and Range header of every request."""
        self.endpoint = ""
        self.is_down = False
        self.stop = lambda: None

    def push(self, repo: str, folder: Path, *, revision: str = "main") -> str:
        """Put the files of a folder into a new commit and point a branch at it."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        commit = hashlib.sha1(repr((repo, sorted(files.items()))).encode()).hexdigest()
        self.commits[repo, commit] = files
        self.revisions[repo, revision] = commit
        return commit

    def fetched(self) -> list[str]:
        """Names of files that were downloaded, not only asked about."""
        return [
            path.rpartition("/")[2]
            for method, path, _ in self.requests
            if method == "GET" and "/resolve/" in path
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if hub.is_down:  # connections kept from before end now
            self.close_connection = True
            return None
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if hub.failing:
            return self._send(503, b"busy")
        if hub.login_page:
            return self._send(
                200, b"<html>Please log in to the hotel's network</html>", {"Content-Type": "text/html"}
            )
        asked = _API.match(path) or _FILE.match(path)
        if asked is None:
            return self._send(404, b"no such page")
        repo, revision = asked["repo"], asked["revision"] or "main"
        if repo not in {name for name, _ in hub.commits}:
            return self._send(
                401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            )
        if repo in hub.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Restricted"})
        commit = hub.revisions.get((repo, revision), revision)
        if (repo, commit) not in hub.commits:
            return self._send(
                404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "No revision"}
            )
        files = hub.commits[repo, commit]
        groups = asked.groupdict()
        if "file" in groups:
            return self._file(files, groups["file"], commit)
        body = _tree(files) if groups["what"] == "tree" else _info(repo, commit, files)
        return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, files: dict[str, bytes], name: str, commit: str) -> None:
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if name not in files:
            return self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        content = files[name]
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        first = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if self.command == "GET" and name in self.hub.cut:
            return self._cut(content, headers)
        return self._send(206 if first else 200, content[first:], headers)

    def _cut(self, content: bytes, headers: dict[str, str]) -> None:
        """Promise the whole file, send its beginning and hang up; hang up at once when asked again."""
        self.close_connection = True
        name = self.path.rpartition("/")[2]
        sent, self.hub.cut[name] = self.hub.cut[name], 0
        if sent:
            self._send(200, content, headers, sent=sent)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])


def _info(repo: str, commit: str, files: dict[str, bytes]) -> dict:
    return {
        "_id": "0",
        "id": repo,
        "modelId": repo,
        "sha": commit,
        "private": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": name} for name in files],
    }


def _tree(files: dict[str, bytes]) -> list[dict]:
    return [
        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        for name, content in files.items()
    ]


@contextmanager
def serve(hub: Hub) -> Iterator[None]:
    """Serve on a free port of loopback until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"

    def stop() -> None:
        hub.is_down = True
        server.shutdown()
        thread.join()
        server.server_close()

    hub.stop = stop
    try:
        yield
    finally:
        if not hub.is_down:
            stop()


# -- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """Any connection to another machine fails the test."""
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            pytest.fail(f"a test asked for {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    with serve(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def published(hub, bundle):
    """The commit of `REPO`, which holds the tiny model and files that are nobody's business."""
    (bundle / "training.log").write_text("loss 1.0")
    (bundle / "optimizer.pt").write_bytes(b"x" * 100)
    return hub.push(REPO, bundle)


@pytest.fixture
def shipped(monkeypatch, saved_once, tmp_path):
    """The folder of shipped models, with one in it."""
    folder = tmp_path / "package" / "weights"
    shutil.copytree(saved_once, folder / "scellm-tiny")
    monkeypatch.setattr(_hub, "shipped_folder", lambda: folder)
    return folder


# -- downloads ----------------------------------------------------------------------------------------------------


def test_download(hub, published, model, embedding):
    loaded = load(REPO)
    assert np.array_equal(embedding(loaded), embedding(model))
    assert (loaded.name, loaded.revision) == (REPO, published)
    assert sorted(hub.fetched()) == sorted([*CONTENTS, MANIFEST])  # and neither the log nor the pickle


def test_parts_are_downloaded_where_there_are_any(hub, bundle):
    part = Part(tensors={"centre": np.ones(3, np.float32)}, meta={"classes": ["B"]})
    write_part(bundle, "cell_type", part)
    hub.push(REPO, bundle)
    assert load(REPO).parts["cell_type"].meta == part.meta
    assert sorted(hub.fetched()) == sorted([*CONTENTS, MANIFEST, "cell_type.json", "cell_type.safetensors"])
    assert load(REPO, local_files_only=True).parts["cell_type"].meta == part.meta


def test_cache_that_lacks_a_part_is_completed(hub, bundle, tmp_path):
    cache = tmp_path / "huggingface" / "hub"
    write_part(bundle, "cell_type", Part(meta={"classes": ["B"]}))
    commit = hub.push(REPO, bundle)
    load(REPO)
    (cache / "models--biolab--tiny-cells" / "snapshots" / commit / "cell_type.json").unlink()
    with pytest.raises(FileNotFoundError, match="no complete copy of the repository"):
        load(REPO, local_files_only=True)
    assert load(REPO).parts["cell_type"].meta == {"classes": ["B"]}


def test_downloaded_once(hub, published, embedding):
    first = embedding(load(REPO))
    hub.requests.clear()
    assert np.array_equal(embedding(load(REPO)), first)
    assert hub.requests != []  # asked whether there is a newer one
    assert hub.fetched() == []


def test_commit_in_the_cache_needs_no_question(hub, published):
    load(REPO, revision=published)
    hub.requests.clear()
    assert load(REPO, revision=published).revision == published
    assert hub.requests == []


def test_new_commit_is_downloaded_where_it_differs(hub, published, bundle, model):
    load(REPO)
    model.card = "# Second card\n"
    save(model, bundle.with_name("second"))
    commit = hub.push(REPO, bundle.with_name("second"))
    loaded = load(REPO)
    assert (loaded.card, loaded.revision) == (model.card, commit)
    assert load(REPO, revision=published).card != model.card


def test_revision_is_passed_on(hub, published, bundle, model):
    model.card = "# Experiment\n"
    save(model, bundle.with_name("second"))
    commit = hub.push(REPO, bundle.with_name("second"), revision="v2")
    assert load(REPO, revision="v2").card == "# Experiment\n"
    assert load(REPO, revision="v2").revision == commit
    assert load(REPO).revision == published


def test_without_connection_the_cache_is_used_with_a_warning(hub, published, embedding):
    first = embedding(load(REPO))
    hub.stop()
    text = rf"{hub.endpoint} cannot be reached .*comes from the cache, commit {published}"
    with pytest.warns(UserWarning, match=text):
        loaded = load(REPO)
    assert np.array_equal(embedding(loaded), first)
    assert loaded.revision == published


@pytest.mark.parametrize("fault", ["failing", "login_page"])
def test_faulty_server_is_no_connection(hub, published, fault):
    load(REPO)
    setattr(hub, fault, True)
    with pytest.warns(UserWarning, match="comes from the cache"):
        assert load(REPO).revision == published


def test_local_files_only_asks_nobody_and_warns_of_nothing(hub, published):
    load(REPO)
    hub.requests.clear()
    assert load(REPO, local_files_only=True).revision == published
    assert hub.requests == []


def test_offline_setting_means_local_files_only(hub, published, monkeypatch):
    load(REPO)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load(REPO).revision == published
    assert hub.requests == []


def test_network_can_be_insisted_on(hub, published):
    load(REPO)
    hub.stop()
    with pytest.raises(ConnectionError, match=rf"{hub.endpoint} cannot be reached"):
        load(REPO, local_files_only=False)


def test_nothing_cached_and_no_connection(hub, published):
    hub.stop()
    text = r"cannot be reached \(.*\), and `.*` holds no complete copy of 'biolab/tiny-cells'. Check the connection"
    with pytest.raises(ConnectionError, match=text):
        load(REPO)


@pytest.mark.parametrize("revision", [None, "v2", "0" * 40], ids=["main", "tag", "commit"])
def test_nothing_cached_and_local_files_only(hub, published, revision):
    if revision:
        load(REPO)
    with pytest.raises(
        FileNotFoundError, match=r"No folder .* and no complete copy of the repository 'biolab/tiny-cells'"
    ):
        load(REPO, revision=revision, local_files_only=True)


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_cache_is_where_the_environment_says(hub, published, monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    load(REPO)
    cache = tmp_path / "elsewhere" / ("hub" if variable == "HF_HOME" else "")
    assert (cache / "models--biolab--tiny-cells" / "snapshots" / published / MANIFEST).is_file()


# -- what must be refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTENTS)
def test_altered_file_in_the_repository(hub, bundle, name):
    expected = sha256_of(bundle / name)
    (bundle / name).write_bytes((bundle / name).read_bytes() + b" ")
    hub.push(REPO, bundle)
    text = rf"{name}` is not the file the manifest describes: SHA-256 is .*, expected {expected}. Delete `.*tiny-cells`"
    with pytest.raises(ValueError, match=text):
        load(REPO)


def test_altered_file_in_the_cache_and_its_remedy(hub, published):
    load(REPO)
    cached = _hub.cache_folder() / "models--biolab--tiny-cells"
    weights = (cached / "snapshots" / published / "model.safetensors").resolve()
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(ValueError, match="not the file the manifest describes") as error:
        load(REPO)
    advice = re.search(r"Delete `(.*?)`", str(error.value))[1]
    assert Path(advice) == cached
    shutil.rmtree(advice)
    assert load(REPO).revision == published


@pytest.mark.parametrize("name", ["model.safetensors", "genes.tsv", MANIFEST])
def test_interrupted_download_leaves_no_half_model(hub, published, monkeypatch, name):
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub waits before it tries again
    monkeypatch.setattr(_bundle, "_read_encoder", lambda *_, **__: pytest.fail("half a model was loaded"))
    hub.cut[name] = 100
    with pytest.raises(
        ConnectionError, match=rf"download of '{REPO}' .*broke off .*Nothing was loaded; call again"
    ):
        load(REPO)
    with pytest.raises(FileNotFoundError, match="no complete copy"):
        load(REPO, local_files_only=True)
    assert REPO not in list_models()["name"].tolist()


def test_second_try_after_an_interruption_works(hub, published, monkeypatch, embedding, model):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cut["model.safetensors"] = 5000
    with pytest.raises(ConnectionError, match="broke off"):
        load(REPO)
    hub.cut.clear()
    hub.requests.clear()
    assert np.array_equal(embedding(load(REPO)), embedding(model))
    assert "model.safetensors" in hub.fetched()


def test_unknown_repository(hub, published):
    text = r"No model 'biolab/tiny-cell': there is no folder of that name here and no repository on http"
    with pytest.raises(ValueError, match=text):
        load("biolab/tiny-cell")


def test_unknown_revision(hub, published):
    with pytest.raises(
        ValueError, match=r"repository 'biolab/tiny-cells' has no revision 'v9'; see http.*/commits/main"
    ):
        load(REPO, revision="v9")


def test_restricted_repository(hub, published):
    hub.gated.add(REPO)
    with pytest.raises(
        ValueError, match=r"'biolab/tiny-cells' is restricted. Accept its conditions .*hf auth login"
    ):
        load(REPO)


def test_unknown_is_unknown_even_with_a_cached_copy(hub, published):
    load(REPO)
    hub.commits.clear()  # deleted or made private: an answer, not a broken connection
    hub.revisions.clear()
    with pytest.raises(ValueError, match="No model 'biolab/tiny-cells'"):
        load(REPO)


@pytest.mark.parametrize(
    ("kept", "added", "text"),
    [
        (
            ["README.md"],
            "pytorch_model.bin",
            r"not a scellm model: 'model.safetensors', .*convert_openbiomed",
        ),
        (
            ["README.md", "model.safetensors"],
            "merges.txt",
            r"not a scellm model: .*it holds 'README.md', 'merges.txt'",
        ),
    ],
    ids=["pickle", "another-kind"],
)
def test_repository_of_another_kind_is_not_downloaded(hub, bundle, kept, added, text):
    for path in bundle.iterdir():
        if path.name not in kept:
            path.unlink()
    (bundle / added).write_text("")
    hub.push(REPO, bundle)
    with pytest.raises(ValueError, match=text):
        load(REPO)
    assert hub.fetched() == []


@pytest.mark.parametrize("name", ["bio--lab/x", "biolab/.."], ids=["dashes", "dots"])
def test_impossible_repository_name(hub, name):
    with pytest.raises(ValueError, match=r"No model '.*': no folder of that name, and not a repository name"):
        load(name)


# -- folders and names --------------------------------------------------------------------------------------------


def test_shipped_model(shipped):
    loaded = load("scellm-tiny")
    assert (loaded.name, loaded.revision) == ("tiny", None)


def test_damaged_shipped_model_says_reinstall(shipped):
    (shipped / "scellm-tiny" / "genes.tsv").write_text("x" * 10_000)
    with pytest.raises(ValueError, match=r"genes.tsv` is not the file .*--force-reinstall"):
        load("scellm-tiny")


def test_folder_comes_before_the_shipped_model(shipped, model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model.name = "mine"
    save(model, "scellm-tiny")
    assert load("scellm-tiny").name == "mine"


def test_folder_of_results_does_not_hide_the_shipped_model(shipped, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scellm-tiny").mkdir()
    (tmp_path / "scellm-tiny" / "umap.png").write_bytes(b"")
    assert load("scellm-tiny").name == "tiny"
    with pytest.raises(FileNotFoundError, match=r"not a whole model: .* missing; it holds 'umap.png'"):
        load(Path("scellm-tiny"))


def test_folder_that_looks_like_a_repository_is_a_folder(bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    bundle.rename(tmp_path / "lab" / "cells")
    assert load("lab/cells").name == "tiny"


def test_unknown_name_lists_the_known(shipped, hub, published):
    load(REPO)
    text = (
        "No model is named 'scellm-tinny'. Did you mean 'scellm-tiny'? "
        "Known on this machine: 'scellm-tiny', 'biolab/tiny-cells'; a folder or a Hugging Face repository"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        load("scellm-tinny")


@pytest.mark.parametrize(
    "given", [None, 3, object(), b"scellm-tiny", ["scellm-tiny"]], ids=lambda g: type(g).__name__
)
def test_neither_name_nor_path(shipped, given):
    text = (
        rf"found .* \({type(given).__name__}\). Pass a name from `scellm.models.list_models\(\)` \('scellm-tiny'\), "
        "the path of a model folder, or a Hugging Face repository 'organization/name'."
    )
    with pytest.raises(TypeError, match=text):
        load(given)


def test_an_encoder_is_no_name(model):
    with pytest.raises(TypeError, match=r"\(Encoder\). Pass a name from") as caught:
        load(model.encoder)
    assert len(str(caught.value)) < 400


def test_empty_name_is_unknown(shipped):
    with pytest.raises(ValueError, match="No model is named ''. Known on this machine: 'scellm-tiny'"):
        load("")


@pytest.mark.parametrize(
    "path",
    ["./nowhere", "../nowhere", "/no/where", "no/such/where", "~/where", Path("where"), Path("no/where")],
    ids=str,
)
def test_path_that_is_not_there(path):
    with pytest.raises(
        FileNotFoundError, match=r"There is no model folder `.*where` \(looked for `/.*where`\)"
    ):
        load(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.safetensors", r"is a file; a model is a folder: pass the folder that holds it"),
        (
            "checkpoint.pth",
            r"is a file; a model is a folder: convert a published CellLM checkpoint .*convert_openbiomed",
        ),
    ],
)
def test_file_instead_of_a_folder(tmp_path, name, text):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=text):
        load(tmp_path / name)


def test_revision_of_a_folder(bundle):
    with pytest.raises(
        ValueError, match=r"revision='main' was given for .* only Hugging Face repositories have"
    ):
        load(bundle, revision="main")


# -- list_models --------------------------------------------------------------------------------------------------


def test_list_without_building_anything(shipped, hub, published, monkeypatch):
    n_parameters = load(REPO).n_parameters
    hub.requests.clear()
    monkeypatch.setattr(_bundle, "Encoder", lambda *_: pytest.fail("an encoder was built"))
    table = list_models()
    assert table["name"].tolist() == ["scellm-tiny", REPO]
    assert table["where"].tolist() == ["shipped", "cached"]
    assert table["revision"].tolist() == ["", published]
    assert (table["n_parameters"] == n_parameters).all()
    assert (table[["dim", "n_genes", "context"]] == [16, 12, 8]).all(axis=None)
    assert table["size_mb"].between(0.02, 0.1).all()
    assert (table["description"] == "Random weights for tests.").all()
    assert hub.requests == []


def test_list_of_nothing_has_its_columns(monkeypatch, tmp_path):
    monkeypatch.setattr(_hub, "shipped_folder", lambda: tmp_path / "none")
    table = list_models()
    assert table.empty
    assert table.columns[:2].tolist() == ["name", "where"]


def test_description_from_the_card(shipped, model):
    model.provenance = {}
    model.card = "---\nlicense: cc0-1.0\n---\n\n# Cells\n\n| a |\n|---|\n\nBlood cells\nof mice.\n\nMore.\n"
    save(model, shipped / "blood")
    assert list_models().set_index("name").loc["blood", "description"] == "Blood cells of mice."


def test_damaged_model_is_left_out_of_the_list_with_a_warning(shipped, saved_once):
    shutil.copytree(saved_once, shipped / "broken")
    (shipped / "broken" / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"'broken' was left out of the list: .*config.json` is truncated"):
        assert list_models()["name"].tolist() == ["scellm-tiny"]
