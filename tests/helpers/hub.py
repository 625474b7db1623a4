"""A server on this machine that answers what huggingface_hub asks the hub when it uploads and downloads a model."""

import base64
import http.server
import json
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Keeps what is uploaded; every file travels within the commit, as small files do on the hub."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        """Content by "owner/model/resolve/main/path"."""


class HubHandler(http.server.BaseHTTPRequestHandler):
    """The hub's HTTP interface, as much of it as `push_to_hub` and `from_pretrained` use."""

    server: Hub

    def do_POST(self) -> None:
        content = self._body()
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            self._json({"url": f"{self.server.url}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(content)["files"]
            ]
            self._json({"files": files})
        else:
            model = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    name = f"{model}/resolve/main/{line['value']['path']}"
                    self.server.files[name] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{self.server.url}/{model}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_HEAD(self) -> None:
        self._file()

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):  # asked by huggingface_hub before 1.0
            self._json({"id": self.path.split("/revision/")[0], "sha": COMMIT, "xetEnabled": False})
            return
        content = self._file()
        if content is not None:
            self.wfile.write(content)

    def _file(self) -> bytes | None:
        content = self.server.files.get(self.path.removeprefix("/").replace(f"/{COMMIT}/", "/main/"))
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass
