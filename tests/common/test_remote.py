"""Paths and URLs read alike; what cannot be read is named with the way out."""

import io
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcgns.common import remote
from cmcgns.common.errors import UserError
from cmcgns.common.remote import NamedBytes, is_url, join, location_of, not_here, open_url, read_bytes
from cmcgns.data.images.read import read_image
from cmcgns.data.manifest import read_manifest
from cmcgns.data.pairs.loader import make_loader
from cmcgns.data.shards.index import open_shards
from cmcgns.data.shards.stream import training_order
from cmcgns.data.shards.write import write_shards
from cmcgns.training.run_folder import RunFolder
from support.shards import STORED, array_of, images_of, jpeg, pair_dataset, write_prepared

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def surroundings(empty_cache, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def memory():
    yield fsspec.filesystem("memory")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def web(tmp_path):
    """A plain web server, which knows no ranges, over a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def copyfile(self, source, outputfile):
            with suppress(ConnectionError):  # a reader that has enough hangs up
                super().copyfile(source, outputfile)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def dripping():
    """A server that sends answers piece by piece: path /before/between/piece/times, seconds and bytes."""
    over = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            before, between, piece, times = map(float, self.path.strip("/").split("/"))
            with suppress(ConnectionError):
                over.wait(before)
                self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
                for _ in range(int(times)):
                    self.wfile.write(b"x" * int(piece))
                    self.wfile.flush()
                    over.wait(between)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("path", ["0/0.05/1/2000", "100/0/1/1"], ids=["body", "header"])
def test_pitfall_files_a_server_that_drips_is_given_up(dripping, path, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 1.0)
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"{path}: given up after 1 seconds \(\d+ bytes had come\)"):
        read_bytes(f"{dripping}/{path}", 10_000)
    assert 0.9 < time.monotonic() - started < 10


def test_a_slow_server_that_goes_on_is_waited_for(dripping, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.5)
    monkeypatch.setattr(remote, "SLOWEST", 1000)
    assert len(read_bytes(f"{dripping}/0/0.1/2000/15", 100_000)) == 30_000


def test_a_path_and_every_url_give_the_same_bytes(tmp_path, memory, web):
    content = np.random.default_rng(0).bytes(200_000)
    (tmp_path / "a b.bin").write_bytes(content)
    memory.pipe("/folder/a.bin", content)
    places = (tmp_path / "a b.bin", f"file://{tmp_path}/a b.bin", "memory://folder/a.bin", f"{web}/a%20b.bin")
    for place in places:
        assert read_bytes(place, 200_000) == content
        with open_url(place) as file:
            assert file.read(7) == content[:7]
        with pytest.raises(UserError, match="more than the bound of 199,999 bytes"):
            read_bytes(place, 199_999)


def test_a_missing_file_is_named(tmp_path, web):
    for place in (tmp_path / "no.bin", "memory://no.bin", f"file://{tmp_path}/no.bin", f"{web}/no.bin"):
        with pytest.raises(UserError, match=r"no\.bin: no such file"):
            read_bytes(place, 10)


@pytest.mark.parametrize(
    ("url", "package"), [("s3://bucket/x.jpg", "s3fs"), ("gs://bucket/x.jpg", "gcsfs"), ("az://c/x.jpg", "adlfs")]
)
def test_a_missing_package_is_named(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"{url}: reading .*:// needs a package: pip install {package}"):
        read_bytes(url, 10)


@pytest.mark.parametrize(
    "url", ["nothing://x", "zip://a.jpg::http://x/y.zip", "reference://x", "memory://a::file://b"]
)
def test_other_protocols_and_chains_are_refused(url):
    with pytest.raises(UserError, match="not a URL that is read here"):
        read_bytes(url, 10)


def test_a_folder_or_a_dead_server_is_a_message(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read: .*Is a directory"):
        read_bytes(tmp_path, 10)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/x: cannot be read \(tried 3 times\): Cannot connect"):
        read_bytes("http://127.0.0.1:9/x", 10)


def test_a_dropped_connection_is_tried_again(monkeypatch):
    answers = iter([ConnectionResetError("gone"), io.BytesIO(b"content")])

    def opened(_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(remote, "open_url", opened)
    assert read_bytes("http://x/y", 10) == b"content"


def test_urls_that_went_through_path_are_mended(tmp_path):
    for url in ("s3://bucket/a/b", "http://host:80/a", "memory://a", f"file://{tmp_path}/x", "ftp://a/b"):
        assert location_of(url) == url
        assert location_of(Path(url)) == url
    for path in ("data/pairs.csv", "/a/b", "C:/x", "x:/y", str(tmp_path / "odd:/y")):
        assert location_of(Path(path)) == path
        assert not is_url(location_of(path))
    assert join("s3://bucket/a/", "x.tar") == "s3://bucket/a/x.tar"
    assert join("a/b", "x.tar") == "a/b/x.tar"


def test_a_folder_that_looks_like_a_url_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:" / "y").mkdir(parents=True)
    assert location_of(Path("odd:/y")) == "odd:/y"


@pytest.mark.parametrize("data", ["ftp://host/a", Path("ftp://host/a"), "gopher://host/a"])
def test_a_protocol_that_is_not_read_is_named_with_those_that_are(data):
    with pytest.raises(
        UserError, match=r"^(ftp|gopher)://host/a/shards\.json: not a URL that is read here .*https://"
    ):
        open_shards(data)


def test_where_no_url_is_read_that_is_said(tmp_path):
    for url in ("ftp://host/a", Path("s3://host/a"), "https://host/a"):
        assert not_here(url).startswith("; a URL is not read here")
    for path in ("a/b", tmp_path, "C:/x"):
        assert not_here(path) == ""
    with pytest.raises(UserError, match=r"no such manifest; .*; a URL is not read here"):
        read_manifest(Path("s3://host/a"))
    with pytest.raises(UserError, match=r"config\.yaml is missing; a URL is not read here"):
        RunFolder(Path("s3://host/a")).read_recipe()


def test_an_object_in_memory_never_shows_as_one():
    assert repr(NamedBytes(b"", "shard 3, study 7")) == "shard 3, study 7"
    with pytest.raises(OSError, match=r"cannot identify image file shard 3"):
        Image.open(NamedBytes(b"text", "shard 3"))


def test_an_image_of_a_url_is_the_one_of_the_file(tmp_path, memory):
    (tmp_path / "x.jpg").write_bytes(jpeg(77))
    memory.pipe("/x.jpg", jpeg(77))
    memory.pipe("/bad.jpg", b"text")
    assert np.array_equal(read_image("memory://x.jpg", 16), read_image(tmp_path / "x.jpg", 16))
    with pytest.raises(UserError, match=r"memory://bad\.jpg: not a PNG"):
        read_image("memory://bad.jpg", 16)
    with Image.open(NamedBytes(jpeg(), "name")) as image:
        assert image.size == (STORED, STORED)


@pytest.fixture
def shards(tmp_path):
    prepared = write_prepared(tmp_path / "prepared", {"train": 13, "val": 2})
    write_shards(prepared, tmp_path / "shards", per_shard=3)
    return tmp_path / "shards"


def test_shards_of_a_url_are_those_of_the_folder(shards, memory):
    for file in shards.iterdir():
        memory.pipe(f"/bucket/set/{file.name}", file.read_bytes())
    expected = array_of(shards.parent / "prepared")
    for location in ("memory://bucket/set", "memory://bucket/set/", Path("memory://bucket/set"), f"file://{shards}"):
        images = images_of(location)
        assert np.array_equal(images[np.arange(15)], expected)
        assert images.folder.index.read_bytes() == (shards / "shards.json").read_bytes()


def test_the_manifest_is_copied_once_and_again_when_it_is_damaged(shards, memory):
    for file in shards.iterdir():
        memory.pipe(f"/set/{file.name}", file.read_bytes())
    manifest = open_shards("memory://set").manifest
    memory.rm("/set/manifest.parquet")
    assert open_shards("memory://set").manifest == manifest, "it is not asked for again"
    memory.pipe("/set/manifest.parquet", (shards / "manifest.parquet").read_bytes())
    manifest.write_bytes(b"half")
    assert open_shards("memory://set").manifest.read_bytes() == (shards / "manifest.parquet").read_bytes()
    memory.pipe("/set/manifest.parquet", b"other")
    manifest.write_bytes(b"half")
    with pytest.raises(UserError, match=r"memory://set/manifest\.parquet: missing, or not the one"):
        open_shards("memory://set")


def test_a_url_without_shards_is_named(web):
    for location in ("memory://nothing", f"{web}/nothing"):
        with pytest.raises(
            UserError, match=r"shards\.json: no such file \(a URL is expected to be a folder of shards\)"
        ):
            open_shards(location)


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_over_http_gives_the_batches_of_the_folder(shards, web, workers):
    """The parent has read from the server before the workers start, which must not hang."""
    near = pair_dataset(images_of(shards), shards, workers=workers)
    far = pair_dataset(images_of(f"{web}/shards"), shards, workers=workers)
    assert len(far.images[np.array([0])]) == 1
    expected = list(make_loader(near, training_order(near, 2, 5), workers))
    found = list(make_loader(far, training_order(far, 2, 5), workers))
    assert [batch.study_ids for batch in found] == [batch.study_ids for batch in expected]
    assert all((a.images == b.images).all() for a, b in zip(found, expected, strict=True))


def test_a_shard_that_is_missing_on_the_server_is_named(shards, web):
    (shards / "train-000000.tar").unlink()
    images = images_of(f"{web}/shards")
    with pytest.raises(UserError, match=rf"{web}/shards/train-000000\.tar: no such file"):
        images[np.flatnonzero(images.shard_of_row == 0)[:1]]
