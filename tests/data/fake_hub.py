"""A data set hub on this machine for tests: answers paths-info and resolve as huggingface.co does, with ranges."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class FakeHub(ThreadingHTTPServer):
    """Serves `files` {path: bytes} of any repository; redirects to a second address, as the hub does to its CDN.

    `cut`: how many answers still break off half-way. `wrong`: paths whose announced hash is not theirs.
    `small`: paths announced with a git blob id only. `requests`: (path, Range header) of each download.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.wrong, self.small, self.requests, self.status = files, 0, set(), set(), [], 200
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        infos = []
        for path in form["paths"]:
            if path in self.server.files:
                data = self.server.files[path] + (b"!" if path in self.server.wrong else b"")
                git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                info = {"type": "file", "path": path, "size": len(self.server.files[path]), "oid": git}
                if path not in self.server.small:
                    info["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                infos.append(info)
        self.answer(self.server.status, json.dumps(infos).encode() if self.server.status == 200 else b"")

    def do_HEAD(self):
        self.answer(200, next(data for path, data in self.server.files.items() if self.path.endswith(path)))

    def do_GET(self):
        if not self.path.startswith("/cdn/"):
            self.send_response(302)
            self.send_header("Location", f"/cdn{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, data = next((p, d) for p, d in self.server.files.items() if self.path.endswith(p))
        wanted = self.headers.get("Range")
        self.server.requests.append((path, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.answer(206 if wanted else 200, data[start:], start, len(data))

    def answer(self, status, data, start=0, whole=0):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.end_headers()
        if self.command == "GET" and self.server.cut:
            self.server.cut -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(data)
