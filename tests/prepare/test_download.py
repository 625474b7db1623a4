import hashlib
import http.server
from pathlib import Path

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.prepare import download
from ssdd_lightning.prepare.download import Obtaining, Remote, fetch
from tests.helpers.server import FileServer

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def remote(server: FileServer) -> Remote:
    (server.folder / "a.tar").write_bytes(CONTENT)
    return Remote("a.tar", f"{server.url}/a.tar", hashlib.md5(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHUNK", 10_000)


def test_downloads_once(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    path = fetch(remote, tmp_path / "new" / "folder", progress=False)
    assert path.read_bytes() == CONTENT
    assert fetch(remote, tmp_path / "new" / "folder", progress=False) == path
    assert server.asked == [0]
    assert [file.name for file in path.parent.iterdir()] == ["a.tar"]


def test_goes_on_where_the_connection_broke(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    server.cut = 130_000
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    assert server.asked == [0, 130_000, 260_000]


def test_goes_on_where_an_earlier_run_was_killed(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:100_001])
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    assert server.asked == [100_001]


def test_a_part_that_lacks_nothing(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.tar.part").write_bytes(CONTENT)
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "a.tar.part").write_bytes(b"x" * 1000)
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT


def test_a_connection_that_stays_broken_keeps_what_came(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    server.cut = 0
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:50_000])
    with pytest.raises(InputError, match=r"stopped at 50000 of 300000 bytes \(the connection broke\); run the same"):
        fetch(remote, tmp_path, progress=False)
    assert (tmp_path / "a.tar.part").read_bytes() == CONTENT[:50_000]
    assert not (tmp_path / "a.tar").exists()


def test_a_wrong_checksum_leaves_nothing_behind(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    (server.folder / "a.tar").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(InputError, match=rf"has the MD5 [0-9a-f]{{32}}, expected {remote.md5}; it was removed"):
        fetch(remote, tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").iterdir())


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"download of http://127\.0\.0\.1:9/a stopped at 0 bytes \(.*refused"):
        fetch(Remote("a", "http://127.0.0.1:9/a", "0"), tmp_path, progress=False)


def test_a_server_that_lacks_the_file(server: FileServer, tmp_path: Path) -> None:
    server.RequestHandlerClass = _Missing
    with pytest.raises(InputError, match=r"the server answers 404 Gone fishing"):
        fetch(Remote("b", f"{server.url}/b", "0"), tmp_path, progress=False)


class _Missing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404, "Gone fishing")

    def log_message(self, *args: str | int) -> None:
        pass


def test_an_unwritable_folder(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*a\.tar\.part"):
        fetch(remote, tmp_path / "file", progress=False)


def test_what_is_given_is_taken_and_checked(remote: Remote, tmp_path: Path) -> None:
    given = tmp_path / "elsewhere" / "mine.tar"
    given.parent.mkdir()
    given.write_bytes(CONTENT)
    obtaining = Obtaining(tmp_path / "downloads", progress=False)
    assert obtaining.obtain(remote, given, "--voc") == given
    given.rename(given.with_name("a.tar"))
    assert obtaining.obtain(remote, given.parent, "--voc") == given.with_name("a.tar")
    given.with_name("a.tar").write_bytes(CONTENT[:-5])
    with pytest.raises(InputError, match=rf"a\.tar has the MD5 \w+, expected {remote.md5}.*`--no-checksum`"):
        obtaining.obtain(remote, given.parent, "--voc")
    lax = Obtaining(tmp_path / "downloads", checksum=False, progress=False)
    assert lax.obtain(remote, given.parent, "--voc") == given.with_name("a.tar")
    with pytest.raises(InputError, match=r"--voc: .*nowhere does not exist"):
        obtaining.obtain(remote, tmp_path / "nowhere", "--voc")


def test_without_leave_nothing_is_downloaded(remote: Remote, server: FileServer, tmp_path: Path) -> None:
    obtaining = Obtaining(tmp_path, progress=False)
    assert not obtaining.available(remote, None)
    with pytest.raises(InputError, match="give it with `--voc`, or download it with `--download`"):
        obtaining.obtain(remote, None, "--voc")
    assert server.asked == []
    allowed = Obtaining(tmp_path, download=True, progress=False)
    assert allowed.obtain(remote, None, "--voc").read_bytes() == CONTENT
    assert obtaining.obtain(remote, None, "--voc") == tmp_path / "a.tar"
