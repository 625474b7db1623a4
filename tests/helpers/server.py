"""A server of files on this machine that breaks connections when told to."""

import functools
import http.server
from pathlib import Path
from typing import Any


class FileServer(http.server.ThreadingHTTPServer):
    """Hands out the files of a folder, `cut` bytes an answer; `asked` are the bytes that answers began with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(RangeHandler, directory=str(folder)))
        self.folder, self.url = folder, f"http://127.0.0.1:{self.server_port}"
        self.asked: list[int] = []
        self.cut: int | None = None
        self.ranges = True


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Hands out files, from the byte asked for on; after `server.cut` bytes of an answer the connection breaks."""

    server: FileServer

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range") if self.server.ranges else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.server.asked.append(start)
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut])

    def log_message(self, *args: Any) -> None:
        pass
