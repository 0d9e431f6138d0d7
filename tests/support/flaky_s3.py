"""An S3 server that forwards requests to a real one and fails those that a test chooses."""

import http.client
import re
from collections import Counter
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote


def s3_url(endpoint: str, folder: str = "lgd/folder") -> str:
    """Return the address of a folder (bucket/path) of the S3 server at `endpoint`."""
    return f"s3://{folder}?endpoint_override={quote(endpoint, safe='')}&scheme=http&region=us-east-1"


class FlakyS3(BaseHTTPRequestHandler):
    """Forwards requests to a real S3 server. Tests set its class variables.

    upstream: address of the real server. failing: regular expression of the requests that fail. failures: how many
    times each of them fails: with the status 503, without a response, or with half of the content of an object.
    rejection: status and error code for all requests. received: how many times each request came."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    failing = ""
    failures = 0
    rejection: tuple[int, str] | None = None
    received: Counter[str]

    def answer(self) -> None:
        body = self.body()
        request = f"{self.command} {re.sub('uploadId=[^&]+', '', self.path)} {self.headers.get('range')}"
        self.received[request] += 1
        if self.rejection:
            status, code = self.rejection
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>error {code}</Message></Error>"
            return self.reply(status, {"content-type": "application/xml"}, text.encode())
        fails = self.received[request] <= self.failures and re.match(self.failing, request) is not None
        if fails and self.received[request] % 2:
            return self.reply(503, {}, b"")
        connection = http.client.HTTPConnection(self.upstream.removeprefix("http://"))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        self.reply(response.status, dict(response.headers), content, cut=fails)

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
            return  # the request was done, but its response is lost
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
        """Print nothing."""


FlakyEndpoint = tuple[type[FlakyS3], str]  # the class whose variables a test sets, and the address
