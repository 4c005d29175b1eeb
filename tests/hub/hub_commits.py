"""What the server of the tests does with what is pushed: `preupload`, Git LFS, `commit` (NDJSON), `tag` and `refs`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

LARGE = 10_000  # bytes from which on a file is large (LFS)


class Writing:
    """A part of the handler. Who writes needs the token of the repository."""

    REFS = re.compile(r"/api/models/([^/]+/[^/]+)/refs")
    WRITE = re.compile(
        r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git/info/lfs/objects)?/(preupload|commit|tag|batch|lfs)(?:/(.+))?"
    )

    def _refs(self, name: str) -> None:
        if repo := self._repo(name):
            kinds = {"branches": repo.branches, "tags": repo.tags}
            refs = {
                kind: [{"name": ref, "ref": f"refs/{ref}", "targetCommit": commit} for ref, commit in there.items()]
                for kind, there in kinds.items()
            }
            self._json({**refs, "converts": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server_.wrote.append(self.path)
        fault = next((queue.pop(0) for part, queue in self.server_.faults.items() if part in self.path and queue), "")
        match = self.WRITE.fullmatch(self.path)
        large = match is not None and match[2] == "lfs"  # its address is the permission
        repo = self.server_.repos.get(match[1]) if match and large else self._repo(match[1]) if match else None
        if match is None or repo is None:
            return
        if fault:
            self._send(int(fault), b"", {"Retry-After": "0"})
        elif large:
            self._write_lfs(repo, body, match[3])
        elif not repo.token or self.headers.get("Authorization") != f"Bearer {repo.token}":
            self._send(403, b"", {"X-Error-Message": "you need write access"})
        else:
            getattr(self, f"_write_{match[2]}")(repo, match[1], match[3], body)

    do_PUT = do_POST

    def _write_preupload(self, repo: Any, name: str, revision: str, body: bytes) -> None:
        kinds = {True: "lfs", False: "regular"}
        files = [
            {"path": file["path"], "uploadMode": kinds[file["size"] >= LARGE], "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _write_batch(self, repo: Any, name: str, _: str, body: bytes) -> None:
        objects = []
        for asked in json.loads(body)["objects"]:
            place = {"upload": {"href": f"{self.server_.url}/{name}/lfs/{asked['oid']}", "header": {}}}
            objects.append({**asked, **({} if asked["oid"] in repo.large else {"actions": place})})
        self._json({"transfer": "basic", "objects": objects})

    def _write_lfs(self, repo: Any, body: bytes, digest: str) -> None:
        assert hashlib.sha256(body).hexdigest() == digest
        repo.large[digest] = body
        self._send(200, b"")

    def _write_commit(self, repo: Any, name: str, branch: str, body: bytes) -> None:
        header, *steps = map(json.loads, body.splitlines())
        head = repo.branches[branch]
        if header["value"].get("parentCommit", head) != head:
            self._send(412, b"")
            return
        files = dict(repo.history[head])
        for step in steps:
            path = step["value"]["path"]
            if step["key"] == "deletedFile":
                del files[path]
            elif step["key"] == "lfsFile":
                files[path] = repo.large[step["value"]["oid"]]
            else:
                files[path] = base64.b64decode(step["value"]["content"])
        repo.branches[branch] = commit = repo.put(files, head)
        self._json({"commitUrl": f"{self.server_.url}/{name}/commit/{commit}", "commitOid": commit})

    def _write_tag(self, repo: Any, name: str, revision: str, body: bytes) -> None:
        tag = json.loads(body)["tag"]
        if tag in repo.tags:
            self._send(409, b"")
            return
        repo.tags[tag] = revision
        self._json({})

    def _json(self, answer: dict[str, Any]) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
