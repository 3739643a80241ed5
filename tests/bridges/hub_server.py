"""A small stand-in for the Hub: repositories in memory, the calls of huggingface_hub that push and fetch need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

SHA = "a" * 40


class HubServer(ThreadingHTTPServer):
    """``repositories``: "models/org/name" or "datasets/org/name" -> file -> content. ``tokens``: what was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()
        self.unknown: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code: str, status: int = 404) -> None:
        self._answer({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            wish = json.loads(body)
            name = f"{wish['organization']}/{wish['name']}" if wish.get("organization") else wish["name"]
            self.server.repositories.setdefault(f"models/{name}", {})
            return self._answer({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        if parts == ["api", "validate-yaml"]:
            return self._answer({"errors": [], "warnings": []})
        place = "/".join(parts[1:4])
        if place not in self.server.repositories:
            return self._missing("RepoNotFound")
        if parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if parts[4] == "commit":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.server.repositories[place][entry["value"]["path"]] = content
            url = f"{self.server.address}/{'/'.join(parts[2:4])}/commit/{SHA}"
            return self._answer({"success": True, "commitOid": SHA, "commitUrl": url, "hookOutput": ""})
        self.server.unknown.append(self.path)
        self._missing("EntryNotFound")
        return None

    def do_GET(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization", ""))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api":
            place = "/".join(parts[1:4])
            files = self.server.repositories.get(place)
            if files is None:
                self.server.unknown.append(self.path)
                return self._missing("RepoNotFound")
            if parts[4:5] == ["tree"]:
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return self._answer(entries)
            siblings = [{"rfilename": name} for name in files]
            name = "/".join(parts[2:4])
            return self._answer(
                {"id": name, "modelId": name, "sha": SHA, "siblings": siblings, "tags": [], "private": False}
            )
        kind = "models"
        if parts[0] == "datasets":
            kind, parts = "datasets", parts[1:]
        files = self.server.repositories.get(f"{kind}/{'/'.join(parts[:2])}")
        if files is None or parts[2] != "resolve":
            self.server.unknown.append(self.path)
            return self._missing("RepoNotFound")
        content = files.get("/".join(parts[4:]))
        if content is None:
            return self._missing("EntryNotFound")
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._answer(content, headers={"ETag": etag, "X-Repo-Commit": SHA})

    do_HEAD = do_GET
