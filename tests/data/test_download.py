"""Downloading from a local server: interruptions, wrong checksums, a full disk, hostile archives; nothing stays half"""

import errno
import hashlib
import http.server
import io
import random
import re
import shutil
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from filelock import FileLock

from vgbench.cli import data as data_command
from vgbench.cli.main import main
from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.data import download as downloading
from vgbench.data import fetch as fetching
from vgbench.data.archives import unpack
from vgbench.data.download import Plan, download, plan_for
from vgbench.data.fetch import Source, fetch

BODY = bytes(range(256)) * 2048  # 512 KiB


class Server:
    """Serves ``content``; ``behaviour`` says how badly. Every request's headers are kept."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.requests: list[dict[str, str]] = []
        self.cut: list[int] = []  # after so many bytes the connection of the next request ends
        self.status: list[int] = []  # answers of the next requests
        self.ranges = True
        self.etag = '"one"'
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(handler.headers))
        if self.status and (status := self.status.pop(0)) != 200:
            handler.send_error(status)
            return
        body = self.content.get(handler.path[1:])
        if body is None:
            handler.send_error(404)
            return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and self.ranges and handler.headers.get("If-Range", self.etag) == self.etag:
            start = int(asked[1])
            if start >= len(body):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(body)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) - start))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        end = start + self.cut.pop(0) if self.cut else len(body)
        handler.wfile.write(body[start:end])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "PAUSE", 0.001)
    monkeypatch.setattr(fetching, "BLOCK", 1 << 16)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started = Server()
    started.content["a.bin"] = BODY
    yield started
    started.server.shutdown()
    started.server.server_close()


def source_of(server: Server, **known: object) -> Source:
    return Source(key="a.bin", url=server.url("a.bin"), makes="folder/a.bin", **known)  # type: ignore[arg-type]


def everything(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_file_arrives_whole_and_alone(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    plan = Plan([source_of(server, sha256=hashlib.sha256(BODY).hexdigest())])
    made = download(plan, tmp_path, lambda *step: steps.append(step))
    assert made == [tmp_path / "folder/a.bin"] and made[0].read_bytes() == BODY
    assert everything(tmp_path) == {"folder/a.bin"} and steps[-1] == ("a.bin", len(BODY), len(BODY))
    assert download(plan, tmp_path) == [] and len(server.requests) == 1


def test_interruptions_are_continued_where_they_were(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 200_000]
    download(Plan([source_of(server)]), tmp_path)
    assert (tmp_path / "folder/a.bin").read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-", "bytes=300000-"]
    assert server.requests[1]["If-Range"] == '"one"'


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.cut, server.status = [100_000], [200, *[503] * 5]
    with pytest.raises(UserError, match=r"server says 503 \(5 times\); 0.1 MB are kept, call again to go on"):
        download(Plan([source_of(server)]), tmp_path)
    assert not (tmp_path / "folder").exists()  # nothing half under its own name
    download(Plan([source_of(server)]), tmp_path)
    assert (tmp_path / "folder/a.bin").read_bytes() == BODY
    assert server.requests[-1]["Range"] == "bytes=100000-" and everything(tmp_path) == {"folder/a.bin"}


def test_a_changed_file_is_not_glued_to_an_old_half(server: Server, tmp_path: Path) -> None:
    server.cut, server.status = [100_000], [200, *[503] * 5]
    with pytest.raises(UserError, match="kept"):
        download(Plan([source_of(server)]), tmp_path)
    server.content["a.bin"], server.etag = BODY[::-1], '"two"'
    download(Plan([source_of(server)]), tmp_path)
    assert (tmp_path / "folder/a.bin").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("summed", [False, True])
def test_servers_without_ranges_or_versions(server: Server, tmp_path: Path, summed: bool) -> None:
    server.ranges, server.etag, server.cut = summed, "", [100_000]
    known = {"sha256": hashlib.sha256(BODY).hexdigest()} if summed else {}
    download(Plan([source_of(server, **known)]), tmp_path)
    assert (tmp_path / "folder/a.bin").read_bytes() == BODY
    # without a version, halves are joined only if a checksum will tell
    assert server.requests[1].get("Range") == ("bytes=100000-" if summed else None)


def test_a_part_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    work = tmp_path / ".downloads"
    work.mkdir()
    (work / "a.bin.part").write_bytes(BODY + b"more")
    target = fetch(source_of(server, md5=hashlib.md5(BODY).hexdigest()), tmp_path / "a.bin", work)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_wrong_checksum(server: Server, tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=f"wrong {kind} {hashlib.new(kind, BODY).hexdigest()}, expected 00"):
        download(Plan([source_of(server, **{kind: "00"})]), tmp_path)
    assert not (tmp_path / "folder").exists() and not list(tmp_path.rglob("*.part"))


def test_missing_file_names_address_and_place(server: Server, tmp_path: Path) -> None:
    del server.content["a.bin"]
    with pytest.raises(UserError, match=r"/a.bin: the server says 404 .* by hand as folder/a.bin") as error:
        download(Plan([source_of(server)]), tmp_path)
    assert "\n" not in str(error.value) and len(server.requests) == 1


def test_no_server_at_all(server: Server, tmp_path: Path) -> None:
    source = Source(key="x", url="http://127.0.0.1:9/x", makes="x")
    with pytest.raises(UserError, match=r"127.0.0.1:9/x: .*refused.*\(5 times\)"):
        download(Plan([source]), tmp_path)
    with pytest.raises(UserError, match="not a web address"):
        download(Plan([Source(key="x", url="file:///etc/passwd", makes="x")]), tmp_path)


def test_no_space_is_seen_before_and_during(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"0.00 GB are needed and 0.00 GB are free"):
            download(Plan([source_of(server)]), tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:

        def crowded(key: str, done: int, total: int | None) -> None:
            raise full

        with pytest.raises(UserError, match="the disk is full; free some space and call again"):
            download(Plan([source_of(server)]), tmp_path, crowded)
    assert not (tmp_path / "folder").exists()
    download(Plan([source_of(server)]), tmp_path)
    assert (tmp_path / "folder/a.bin").read_bytes() == BODY


def test_two_downloads_at_once(server: Server, tmp_path: Path) -> None:
    work = tmp_path / ".downloads"
    work.mkdir()
    with (
        FileLock(work / "a.bin.lock"),
        pytest.raises(UserError, match="another process is downloading"),
    ):
        download(Plan([source_of(server)]), tmp_path)


def zip_of(members: dict[str, bytes], **options: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        if link is not None:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            opened.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_archives_join_what_is_there(server: Server, tmp_path: Path, pack: object) -> None:
    server.content["a.bin"] = pack({"refcoco/refs(unc).p": b"1", "refcoco/deep/x": b"2"})  # type: ignore[operator]
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco/mine.txt").write_text("kept")
    source = Source(key="a.zip", url=server.url("a.bin"), makes="refcoco/refs(unc).p", unpack=".")
    download(Plan([source]), tmp_path)
    assert everything(tmp_path) == {"refcoco/refs(unc).p", "refcoco/deep/x", "refcoco/mine.txt"}


def linked_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        opened.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of({"good": b"1", "../evil": b"1"}), r"names a file outside of itself \('../evil'\)"),
        (zip_of({"/evil": b"1"}), "names a file outside"),
        (zip_of({"a\\..\\..\\evil": b"1"}), "names a file outside"),
        (tar_of({"good": b"1", "x/../../evil": b"1"}), "names a file outside"),
        (tar_of({"good": b"1"}, link="/etc/passwd"), "holds a link or device"),
        (linked_zip(), "holds a link"),
        (zip_of({"bomb": bytes(64 << 20)}), "refused, not a dataset"),
        (tar_of({"bomb": bytes(64 << 20)}), "refused, not a dataset"),
        (zip_of({"good": BODY})[:-40], "not a whole archive"),
        (tar_of({"good": random.Random(0).randbytes(100_000)})[:-400], "not a whole archive"),
        (b"<html>sign in</html>", "not a whole archive"),
    ],
    ids=[  # the contents themselves hold the time of day
        *("zip-parent", "zip-absolute", "zip-backslash", "tar-parent", "tar-link", "zip-link", "zip-bomb", "tar-bomb"),
        *("zip-truncated", "tar-truncated", "html"),
    ],
)
def test_hostile_or_damaged_archives_leave_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    work = tmp_path / "root" / ".downloads"
    work.mkdir(parents=True)
    archive = work / "x.zip"
    archive.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        unpack(archive, tmp_path / "root", work)
    assert "\n" not in str(error.value)
    assert everything(tmp_path) <= {"root/.downloads/x.zip"}


def test_unpacking_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "x.zip"
    archive.write_bytes(zip_of({"folder/good": BODY}))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="the disk is full"):
        unpack(archive, tmp_path / "out", tmp_path)
    assert everything(tmp_path) == {"x.zip"}


def test_addresses_are_well_formed() -> None:
    known = yaml.safe_load(files("vgbench.datasets").joinpath("downloads.yaml").read_text())
    used: set[str] = set()
    for name, entry in known["datasets"].items():
        for layout in [None, *entry["layouts"]]:
            plan = plan_for(registry.datasets.load(name), layout)
            used |= {source.key for source in plan.sources}
            assert plan.sources or plan.by_hand
    assert used == set(known["files"])
    for key, entry in known["files"].items():
        source = Source(key=key, **entry)
        assert source.url.startswith(("https://", "http://images.cocodataset.org/"))
        assert not Path(source.makes).is_absolute() and ".." not in source.makes
        assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256), key
        assert source.md5 is None or re.fullmatch("[0-9a-f]{32}", source.md5), key
        assert source.dead is None or source.dead not in source.url.split("id_/")[0]


def test_command_asks_and_fetches(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (
        b'[{"image": "val2017/000000000139.jpg", "height": 9, "width": 9, "normal_caption": "a", "solution": null}]'
    )
    server.content["a.bin"] = content
    source = Source(key="x.json", url=server.url("a.bin"), makes="refcocos/refcocos_test.json", dead="http://old/x")
    monkeypatch.setattr(downloading, "plan_for", lambda *arguments: Plan([source], ["images: ask the authors"]))
    given = ["data", "download", "dataset=refcocos", f"data_root={tmp_path}"]
    assert main(given) == 2  # nobody is there to ask
    captured = capsys.readouterr()
    assert "licence: annotations: MIT" in captured.out and "instead of http://old/x" in captured.out
    assert "by hand: images" in captured.out and "add --yes" in captured.err and everything(tmp_path) == set()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(given) == 1 and everything(tmp_path) == set()
    assert main([*given, "--yes"]) == 0 and everything(tmp_path) == {"refcocos/refcocos_test.json"}
    capsys.readouterr()
    assert main(given) == 0 and "there already: refcocos/refcocos_test.json" in capsys.readouterr().out
    assert main(["data", "build", "dataset=refcocos", f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path}"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=refcocos"], "data_root= is missing"),
        (["dataset=refshapes", "data_root=x"], "no official address of refshapes"),
        (["dataset=refcoco", "data_root=x", "layout=seqtr"], "layout=seqtr: cannot be fetched"),
        (["dataset=refcoco", "data_root=x", "part=some"], "use annotations, images or all"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "download", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_every_data_action_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["data", "--help"])
    text = capsys.readouterr().out
    assert all(f"vgbench data {action}" in text for action in data_command.actions())


def test_a_filtered_set_has_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = tmp_path / "clean.json"
    listing.write_text('{"name": "clean", "by": "sent_id", "exclude": {"val": [1]}}')
    given = ["dataset=refcoco", f"dataset.filter={listing}", f"data_root={tmp_path / 'data'}"]
    assert main(["data", "download", *given]) == 2
    captured = capsys.readouterr()
    assert "to fetch: refcoco" in captured.out and "add --yes" in captured.err
