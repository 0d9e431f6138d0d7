"""An S3 server that stands before a real one and does badly what a test wants to be done badly."""

import http.client
import re
from collections import Counter
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote


def s3_url(endpoint: str, folder: str = "lgd/folder") -> str:
    return f"s3://{folder}?endpoint_override={quote(endpoint, safe='')}&scheme=http&region=us-east-1"


class FlakyS3(BaseHTTPRequestHandler):
    """Stands before a real S3 server. Of every request like `faulty` it fails the first `faults` attempts: it answers
    503, ends the connection without an answer, or, of an object's content, in the middle. With a `refusal` it only
    gives that."""

    protocol_version = "HTTP/1.1"
    behind = ""
    faults = 0
    faulty = ""
    refusal: tuple[int, str] | None = None
    seen: Counter[str]

    def answer(self) -> None:
        body = self.body()
        request = f"{self.command} {re.sub('uploadId=[^&]+', '', self.path)} {self.headers.get('range')}"
        self.seen[request] += 1
        if self.refusal:
            status, code = self.refusal
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said {code}</Message></Error>"
            return self.reply(status, {"content-type": "application/xml"}, text.encode())
        faulty = self.seen[request] <= self.faults and re.match(self.faulty, request) is not None
        if faulty and self.seen[request] % 2:
            return self.reply(503, {}, b"")
        connection = http.client.HTTPConnection(self.behind.removeprefix("http://"))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        self.reply(response.status, dict(response.headers), content, cut=faulty)

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        self.close_connection = cut
        if cut and self.command != "GET":
            return  # done, but the answer is lost
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", headers.get("Content-Length", str(len(content))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *args: object) -> None:
        """Nothing: the tests count."""


FlakyEndpoint = tuple[type[FlakyS3], str]  # what a test sets its behavior by, and its address
