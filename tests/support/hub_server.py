"""A Hub over a folder, which speaks as much of its API as huggingface_hub's client needs to download and, without Xet, to upload.

The folder holds models/org/name/… and datasets/org/name/…; a commit is a digest of a repository's files. It can refuse, cut
off, damage and delay, and it records what was asked for.
"""

import base64
import hashlib
import json
import math
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from topxgen.common import hub_files

MAX_READ = 1 << 30
LFS = (".safetensors", ".bin", ".parquet", ".model", ".pt", ".ckpt")  # what the Hub keeps with Git LFS
TOKEN, USER = "hf_token", "me"  # of the only user who may upload


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.gated: set[str] = set()  # repositories that only TOKEN opens
        self.created: dict[str, bool] = {}  # repositories -> whether they were asked to be private
        self.full: set[str] = set()  # repositories that take no more files
        self.cut: dict[str, int] = {}  # file -> how many of its next transfers end in the middle
        self.damaged: dict[str, int] = {}  # file -> how many of its next transfers have a flipped bit
        self.stalled: dict[str, threading.Event] = {}  # file -> its transfers wait in the middle until this is set
        self.waiting = threading.Event()  # one of them does
        self.sent: list[str] = []  # files that were sent to their ends, behind the repository
        self.asked: list[str] = []  # methods and paths
        self.pages: dict[str, bytes] = {}  # what other servers have, by path
        self.large: dict[str, bytes] = {}  # uploads by SHA-256, before the commit that names their files
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, kind: str, name: str) -> dict[str, Path] | None:
        folder = self.root / kind / name
        if not folder.is_dir():
            return None
        return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}

    def at(self, kind: str, name: str, revision: str) -> str:
        """The folder of a repository at a revision or commit: NAME@REVISION if there is one."""
        others = [path.relative_to(self.root / kind).as_posix() for path in (self.root / kind).glob(f"{name}@*")]
        return next((one for one in others if revision in (one.rpartition("@")[2], self.commit(kind, one))), name)

    def commit(self, kind: str, name: str) -> str:
        listed = [(path, _digests(file)) for path, file in self.files(kind, name).items()]
        return hashlib.sha1(repr(listed).encode()).hexdigest()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for event in self.stalled.values():
            event.set()
        self.shutdown()
        self.server_close()


@contextmanager
def client_of(root: Path, monkeypatch):
    """A Hub over `root` that the Hub's own client in this process takes for the real one, as a user who may upload."""
    with HubServer(root) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield server


def _parameters(files: dict[str, Path]) -> dict[str, int]:
    """By dtype, as the Hub counts them in headers."""
    found: dict[str, int] = {}
    for path, file in files.items():
        for dtype, shape in (hub_files.tensors(file) or {}).values() if path.endswith(".safetensors") else ():
            found[dtype] = found.get(dtype, 0) + math.prod(shape)
    return found


def _digests(path: Path) -> tuple[int, str, str]:
    """(size, SHA-256, object id of Git) of a file; of one with holes, which is only listed, made up."""
    data = path.read_bytes() if path.stat().st_size < MAX_READ else b"large"
    if data == b"large":
        return path.stat().st_size, "0" * 64, "0" * 40
    return len(data), hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.server.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, b'{"error": "Invalid user token."}')
        if path == "/api/validate-yaml":  # of a card
            return self._send(200, b'{"warnings": [], "errors": []}')
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or USER}/{asked['name']}"
            kind = f"{asked.get('type') or 'model'}s"
            self.server.created.setdefault(name, asked.get("visibility") == "private")
            (self.server.root / kind / name).mkdir(parents=True, exist_ok=True)
            place = name if kind == "models" else f"{kind}/{name}"
            return self._send(200, json.dumps({"name": name, "url": f"{self.server.url}/{place}"}).encode())
        if path.endswith(".git/info/lfs/objects/batch"):
            link = {"upload": {"href": f"{self.server.url}/large"}}
            found = [one | {"actions": link} for one in json.loads(body)["objects"]]
            return self._send(200, json.dumps({"transfer": "basic", "objects": found}).encode())
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit)/main", path):
            return self._take(match[1], match[2], match[3], body)
        return self._send(404, b"")

    def do_PUT(self) -> None:
        body = self._body()
        self.server.large[hashlib.sha256(body).hexdigest()] = body
        self._send(200, b"")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _take(self, kind: str, name: str, step: str, body: bytes) -> None:
        if step == "preupload":
            modes = [{"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LFS) else "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]  # fmt: skip
            return self._send(200, json.dumps({"files": modes}).encode())
        if name in self.server.full:
            return self._send(507, b'{"error": "no space"}')
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] in ("file", "lfsFile"):
                path = self.server.root / kind / name / value["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                large = line["key"] == "lfsFile"
                path.write_bytes(self.server.large[value["oid"]] if large else base64.b64decode(value["content"]))
        commit = self.server.commit(kind, name)
        url = f"{self.server.url}/{name}/commit/{commit}"
        return self._send(200, json.dumps({"commitUrl": url, "commitOid": commit}).encode())

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            return self._send(200 if known else 401, json.dumps({"type": "user", "name": USER}).encode())
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path):
            return self._api(match[1], match[2], match[3] or "")
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind = "datasets" if match[1] else "models"
            return self._resolve(kind, self.server.at(kind, match[2], match[3]), match[4], body)
        if path in self.server.pages:
            return self._send(200, self.server.pages[path], {}, ("", path), body)
        return self._send(200 if path == "/" else 404, b"")

    def _refused(self, kind: str, name: str) -> bool:
        if self.server.files(kind, name) is None:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return True
        if name in self.server.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(403, b'{"error": "Access is restricted"}', {"X-Error-Code": "GatedRepo"})
            return True
        return False

    def _api(self, kind: str, name: str, rest: str) -> None:
        if rest == "/auth-check":
            return None if self._refused(kind, name) else self._send(200, b"{}")
        if self.server.files(kind, name) is None:
            return self._refused(kind, name)
        name = self.server.at(kind, name, rest.removeprefix("/revision/"))
        siblings, tree = [], []
        for path, file in self.server.files(kind, name).items():
            size, sha256, oid = _digests(file)
            lfs = {"size": size, "sha256": sha256, "pointerSize": 134} if path.endswith(LFS) else None
            siblings.append({"rfilename": path, "size": size, "blobId": oid} | ({"lfs": lfs} if lfs else {}))
            own = {"lfs": {"size": size, "oid": sha256, "pointerSize": 134}} if lfs else {}
            tree.append({"type": "file", "path": path, "size": size, "oid": oid} | own)
        if rest.startswith("/tree/"):
            return self._send(200, json.dumps(tree).encode())
        counts = _parameters(self.server.files(kind, name))
        gated = "manual" if name in self.server.gated else False
        info = {
            "id": name,
            "sha": self.server.commit(kind, name),
            "siblings": siblings,
            "gated": gated,
            "safetensors": {"parameters": counts, "total": sum(counts.values())},
            "private": self.server.created.get(name, False),
        }
        return self._send(200, json.dumps(info | {"downloads": 0, "likes": 0, "tags": []}).encode())

    def _resolve(self, kind: str, name: str, path: str, body: bool) -> None:
        if self._refused(kind, name):
            return
        file = self.server.files(kind, name).get(path)
        commit = {"X-Repo-Commit": self.server.commit(kind, name)}
        if file is None:
            return self._send(404, b"", commit | {"X-Error-Code": "EntryNotFound"})
        size, sha256, oid = _digests(file)
        etag = sha256 if path.endswith(LFS) else oid
        headers = commit | {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(size)}
        start, end, code = 0, size, 200
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end, code = int(span[1]), min(int(span[2] or size) + 1, size), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        with open(file, "rb") as opened:
            opened.seek(start)
            data = bytearray(opened.read(end - start) if body else b"")
        if body and self._once(self.server.damaged, path):
            data[len(data) // 2] ^= 1
        self._send(code, bytes(data), headers, (name, path) if body else None, body)

    def _once(self, table: dict[str, int], path: str) -> bool:
        table[path] = table.get(path, 0) - 1
        return table[path] >= 0

    def _send(
        self,
        code: int,
        data: bytes,
        headers: dict | None = None,
        sent: tuple[str, str] | None = None,
        body: bool = True,
    ) -> None:
        self.send_response(code)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        half = len(data) // 2
        self.wfile.write(data[:half])
        self.wfile.flush()
        path = sent[1] if sent else ""
        if sent and self._once(self.server.cut, path):
            self.close_connection = True
            self.connection.close()
            return
        if event := self.server.stalled.get(path):
            self.server.waiting.set()
            event.wait()
        self.wfile.write(data[half:])
        if sent:
            self.server.sent.append("/".join(sent))
