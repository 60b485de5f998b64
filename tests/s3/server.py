#!/usr/bin/env python3
"""An S3 server for tests: moto's, on a free port, with what a test must be able to do to a server.

    server.py --state FILE [--port PORT] [--with-parent]

The last line of the start is `listening on PORT`. The server keeps everything in memory; on SIGTERM it
writes it to FILE, and a server that is started with that FILE goes on with it: a store that was stopped
and started. With --with-parent it ends when its standard input does. Requests must be signed with the credentials below, as S3 demands.

What a test does to it, all by POST with a query, outside of S3:

    /-/bucket?name=N[&versioned=1]  makes a bucket      /-/inside?bucket=N        what is in it, as JSON
    /-/fail?count=N&method=M&part=1 answers the next N requests of method M (and to parts alone) with 500
    /-/cut?count=N                  ends the next N answers to GET in their middle
    /-/slow?ms=N                    lets every request wait first
    /-/age?bucket=B&hours=N         lets every object be older      /-/empty  removes every bucket
    /-/copy?from=B&to=C             makes bucket C what B is
    /-/change?holds=T               changes a bit in every object whose name holds T
    /-/careless?on=1                ignores If-None-Match, as a store does that knows no conditional puts
"""

import argparse
import datetime
import json
import os
import pickle
import signal
import threading
import time
from urllib.parse import parse_qs

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

ACCESS_KEY, SECRET_KEY, REGION = "test-access-key", "test-secret-key", "us-east-1"


def backend():
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


def refusal(status, code, message):
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return status, [("Content-Type", "application/xml")], body.encode()


def signature_fault(environ):
    """What is wrong with the signature of a request; None where it is good."""
    said = environ.get("HTTP_AUTHORIZATION", "")
    if not said.startswith("AWS4-HMAC-SHA256 "):
        return refusal("403 Forbidden", "AccessDenied", "Access Denied")
    fields = dict(part.strip().split("=", 1) for part in said[len("AWS4-HMAC-SHA256 ") :].split(","))
    key, _, region, service, _ = fields["Credential"].split("/")
    if key != ACCESS_KEY:
        return refusal("403 Forbidden", "InvalidAccessKeyId", "The access key is unknown")
    headers = {}
    for name in fields["SignedHeaders"].split(";"):
        variable = name.upper().replace("-", "_")
        headers[name] = environ.get(variable if name in ("content-type", "content-length") else "HTTP_" + variable, "")
    path, _, query = environ["RAW_URI"].partition("?")
    request = AWSRequest(environ["REQUEST_METHOD"], f"http://{environ['HTTP_HOST']}{path}", headers=headers)
    if query:
        request.params = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
    request.context["timestamp"] = headers.get("x-amz-date", "")
    auth = S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, region)
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    if signature != fields["Signature"]:
        return refusal("403 Forbidden", "SignatureDoesNotMatch", "The signature does not match")
    return None


class Faults:
    """What a test has asked for."""

    def __init__(self):
        self.lock = threading.Lock()
        self.fail = {"count": 0, "method": None, "part": False}
        self.cut = 0
        self.slow = 0.0
        self.careless = False

    def fails(self, environ):
        with self.lock:
            fits = self.fail["count"] > 0 and self.fail["method"] in (None, environ["REQUEST_METHOD"])
            if self.fail["part"]:
                fits = fits and "partNumber" in environ.get("QUERY_STRING", "")
            self.fail["count"] -= fits
            return fits

    def cuts(self, environ):
        with self.lock:
            fits = self.cut > 0 and environ["REQUEST_METHOD"] == "GET"
            self.cut -= fits
            return fits


class Server:
    def __init__(self):
        self.app = create_backend_app("s3")
        self.faults = Faults()
        # moto looks and writes in two steps; S3 does both at once where it is asked to.
        self.conditional = threading.Lock()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"].startswith("/-/"):
            status, headers, body = self.asked(environ)
            return self.answer(start_response, status, headers, body)
        time.sleep(self.faults.slow)
        fault = signature_fault(environ)
        if fault is None and self.faults.fails(environ):
            fault = refusal("500 Internal Server Error", "InternalError", "Asked for by a test")
        if fault is not None:
            self.read_body(environ)
            return self.answer(start_response, *fault)
        if self.faults.careless:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if "HTTP_IF_NONE_MATCH" in environ:
            with self.conditional:
                return list(self.app(environ, start_response))
        if not self.faults.cuts(environ):
            return self.app(environ, start_response)
        return Cut(self.app(environ, start_response))

    @staticmethod
    def read_body(environ):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        while length > 0:
            read = environ["wsgi.input"].read(min(length, 1 << 20))
            if not read:
                break
            length -= len(read)

    @staticmethod
    def answer(start_response, status, headers, body):
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def asked(self, environ):
        what = environ["PATH_INFO"].removeprefix("/-/")
        query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        body = {}
        if what == "bucket":
            backend().create_bucket(query["name"], REGION)
            if "versioned" in query:
                backend().put_bucket_versioning(query["name"], "Enabled")
        elif what == "fail":
            with self.faults.lock:
                fail = {"count": int(query["count"]), "method": query.get("method"), "part": "part" in query}
                self.faults.fail = fail
        elif what == "cut":
            self.faults.cut = int(query["count"])
        elif what == "slow":
            self.faults.slow = int(query["ms"]) / 1000
        elif what == "careless":
            self.faults.careless = query["on"] == "1"
        elif what == "age":
            by = datetime.timedelta(hours=float(query["hours"]))
            for key in backend().buckets[query["bucket"]].keys.values():
                key.last_modified -= by
        elif what == "copy":
            if query["to"] not in backend().buckets:
                backend().create_bucket(query["to"], REGION)
            backend().buckets[query["to"]].keys.clear()
            for key in list(backend().buckets[query["from"]].keys.values()):
                backend().put_object(query["to"], key.name, key.value)
        elif what == "change":
            for bucket in backend().buckets.values():
                for key in list(bucket.keys.values()):
                    if query["holds"] in key.name:
                        value = bytearray(key.value)
                        value[len(value) // 2] ^= 1
                        backend().put_object(bucket.name, key.name, bytes(value))
        elif what == "empty":
            backend().reset()
        elif what == "inside":
            bucket = backend().buckets[query["bucket"]]
            body = {"keys": sorted(bucket.keys.keys()), "uploads": len(bucket.multiparts)}
        else:
            return refusal("404 Not Found", "NotFound", what)
        return "200 OK", [("Content-Type", "application/json")], json.dumps(body).encode()


class Cut:
    """The first half of an answer."""

    def __init__(self, answer):
        self.answer = answer

    def __iter__(self):
        whole = b"".join(self.answer)
        yield whole[: len(whole) // 2]
        raise ConnectionAbortedError("asked for by a test")


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


def state_of(buckets):
    return {
        name: [(key.name, key.value, key.last_modified) for key in bucket.keys.values()]
        for name, bucket in buckets.items()
    }


def restore(state):
    for name, keys in state.items():
        backend().create_bucket(name, REGION)
        for key, value, modified in keys:
            backend().put_object(name, key, value).last_modified = modified


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--with-parent", action="store_true")
    arguments = parser.parse_args()
    application = Server()
    if os.path.exists(arguments.state):
        with open(arguments.state, "rb") as file:
            restore(pickle.load(file))
    server = make_server("127.0.0.1", arguments.port, application, threaded=True, request_handler=Handler)
    server.daemon_threads = True

    def stop(*_):
        # Not on the thread that serves: it would wait for itself.
        threading.Thread(target=server.shutdown).start()

    def follow_parent():
        while os.read(0, 4096):
            pass
        os._exit(0)

    if arguments.with_parent:
        threading.Thread(target=follow_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, stop)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    with open(arguments.state + ".new", "wb") as file:
        pickle.dump(state_of(backend().buckets), file)
    os.rename(arguments.state + ".new", arguments.state)


if __name__ == "__main__":
    main()
