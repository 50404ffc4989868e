"""What `make site` makes besides the pages that are written: tutorials as they run, and a page of the schemas.

Names that MkDocs calls; see its documentation of hooks.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent


def _runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tutorial", DOCS / "run_tutorial.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schemas() -> str:
    """The page of the documents' schemas: a table of the fields of each."""
    parts = [
        "# Schemas\n",
        "Every document that `--json` prints and that an artifact keeps has a schema (JSON Schema, 2020-12), made from"
        " the code. Fields are only added within a `schema_version`.\n",
    ]
    for path in sorted((DOCS / "schema").glob("*.json")):
        schema = json.loads(path.read_text("utf-8"))
        parts.append(
            f"## {path.stem}\n\n[{path.name}](schema/{path.name})\n\n| field | required | what |\n|---|---|---|"
        )
        required = set(schema.get("required", []))
        for name, field in schema.get("properties", {}).items():
            text = re.sub(r"\s+", " ", field.get("description", "")).replace("|", "\\|")
            parts.append(f"| `{name}` | {'yes' if name in required else ''} | {text} |")
        parts.append("")
    return "\n".join(parts)


def on_config(config: Any) -> Any:
    """Put pages that the navigation does not name at the end of their section."""
    for title, pages in (("Tutorials", DOCS.glob("tutorials/*.py")), ("Methods", DOCS.glob("methods/*.md"))):
        section = next(entry[title] for entry in config["nav"] if title in entry)
        names = [path.relative_to(DOCS).with_suffix(".md").as_posix() for path in sorted(pages)]
        section += [name for name in names if name not in section]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    files.append(File.generated(config, "schemas.md", content=schemas()))
    runner = _runner()
    runner.prepare()
    for path in sorted(runner.TUTORIALS.glob("*.py")):
        with tempfile.TemporaryDirectory() as folder:
            page, _ = runner.run(path, Path(folder))
            files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page))
            for picture in sorted(Path(folder).glob("*.png")):
                made = File.generated(config, f"tutorials/{picture.name}", content=picture.read_bytes())
                files.append(made)
    return files
