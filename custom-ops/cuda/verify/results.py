"""Results as JSON, written whole after every measurement: what is killed keeps what it had."""

import hashlib
import json
import os
from pathlib import Path

CUSTOM_OPS = Path(__file__).resolve().parents[2]


def write_json(path, value):
    """Nobody sees half of the file."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(part, path)


def read_json(path):
    """The file's content, or {} where it is not there or not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError, TypeError):
        return {}


def digest_sources():
    """Of everything that results depend on but the driver: results of other sources are not taken up again."""
    digest = hashlib.sha256()
    for folder in ("cpu", "cuda", "include"):
        for file in sorted((CUSTOM_OPS / folder).rglob("*")):
            if file.suffix in (".cu", ".cuh", ".cc", ".h"):
                digest.update(f"{file.relative_to(CUSTOM_OPS)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class BenchResults:
    """Rows of measured cases in a file that parent and worker share, one after the other."""

    def __init__(self, path, earlier=None):
        self.path = path
        self._load(path if earlier is None else earlier)

    def _load(self, path):
        content = read_json(path)
        self.device, self.rows = content.get("device"), content.get("rows", [])
        self.running, self.sources = content.get("running"), content.get("sources")

    def reload(self):
        """What a worker has added."""
        self._load(self.path)

    def take_up(self, sources):
        """Keeps what was measured of the same sources; what failed or was left out is due again."""
        is_same = self.sources == sources
        self.rows = [row for row in self.rows if is_same and "microseconds" in row]
        self.device = self.device if self.rows else None
        self.running, self.sources = None, sources
        self.save()

    def has(self, case):
        return any(row["case"] == case.describe() for row in self.rows)

    def begin(self, case):
        self.running = case.describe()
        self.save()

    def update(self, row):
        """Replaces the row of the same case."""
        self.rows = [each for each in self.rows if each["case"] != row["case"]] + [row]
        self.save()

    def finish(self, row):
        self.running = None
        self.update(row)

    def content(self):
        return {"device": self.device, "sources": self.sources, "running": self.running, "rows": self.rows}

    def save(self):
        write_json(self.path, self.content())
