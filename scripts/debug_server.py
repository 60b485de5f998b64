"""The debug binary on a data directory of its own, for scripts that test it from outside."""

import hashlib
import hmac
import json
import os
import secrets
import subprocess
import time
import urllib.request
from pathlib import Path

from python_tool import CACHE

PASSWORD = "correct horse battery staple"

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")


class CannotServe(Exception):
    """Why there is no server, or nothing on it, and what to do about it."""


class Server:
    """The debug binary on a data directory of its own."""

    def __init__(self, folder):
        binary = TARGET / "debug" / "prodgy"
        if not binary.exists():
            raise CannotServe(f"{binary} is missing: run `cargo build -p api --bin prodgy` first")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PRODGY_")}
        environment |= {
            "PRODGY_DATA_DIR": str(folder / "data"),
            "PRODGY_MODEL_DIR": str(ROOT / "models" / "all-MiniLM-L6-v2"),
            "PRODGY_ADMIN_EMAIL": "owner@example.com",
            "PRODGY_ADMIN_PASSWORD": PASSWORD,
            "PRODGY_RATE_LIMIT_PER_SECOND": "0",
            "PRODGY_SIGN_IN_LIMIT_PER_MINUTE": "0",
            "PRODGY_ACCESS_TOKEN_SECONDS": "86400",
            "PRODGY_LOG": "warn",
        }
        self.log = folder / "server.log"
        self.process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0"],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        self.session = None
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.url = line.split()[-1]
                return
        raise CannotServe(f"the server did not start: {self.log.read_text()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)

    def call(self, method, path, body=None, media_type="application/json"):
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(self.url + path, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", media_type)
        if self.session:
            request.add_header("Authorization", f"Bearer {self.session}")
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer)["data"]

    def upload(self, knowledge_base, name, text):
        cut = secrets.token_hex(16)
        body = (
            f'--{cut}\r\nContent-Disposition: form-data; name="knowledge_base_id"\r\n\r\n{knowledge_base}\r\n'
            f'--{cut}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: text/plain\r\n\r\n{text}\r\n--{cut}--\r\n"
        )
        path = "/api/knowledge-base/storage/upload"
        return self.call("POST", path, body.encode(), f"multipart/form-data; boundary={cut}")[0]["id"]

    def chat(self, question):
        """Asks the assistant, and waits for the answer. Answers which session and run it was."""
        request = urllib.request.Request(self.url + "/api/assistant/chat", data=json.dumps(question).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {self.session}")
        with urllib.request.urlopen(request, timeout=90) as answer:
            lines = answer.read().decode().splitlines()
        return json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))

    def say_in_slack(self, integration, secret, text):
        """Mentions the bot, as Slack would tell of it. Answers the id of the conversation."""
        event = {"type": "app_mention", "user": "U7", "text": text, "channel": "C1", "ts": "1700000000.000100"}
        body = json.dumps({"type": "event_callback", "event_id": f"Ev-{integration}", "event": event}).encode()
        now = str(int(time.time()))
        signed = hmac.new(secret.encode(), f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(f"{self.url}/api/communicator/webhook/{integration}", data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("X-Slack-Request-Timestamp", now)
        request.add_header("X-Slack-Signature", f"v0={signed}")
        urllib.request.urlopen(request, timeout=90).close()
        deadline = time.monotonic() + 60
        while not (found := self.call("GET", f"/api/communicator/conversations?integration_id={integration}")):
            if time.monotonic() > deadline:
                raise CannotServe("the message began no conversation")
            time.sleep(0.1)
        return found[0]["id"]

    def wait_for_file(self, file):
        deadline = time.monotonic() + 60
        while self.call("GET", f"/api/knowledge-base/storage/file/{file}")["status"] == "processing":
            if time.monotonic() > deadline:
                raise CannotServe("the file was not indexed: is the embedding model there? (scripts/fetch-model)")
            time.sleep(0.1)
