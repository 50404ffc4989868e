"""Write the JSON Schema of every document to docs/schema (`make docs`)."""

import json
from pathlib import Path

from rdxcli.schemas import kinds, schema

FOLDER = Path(__file__).resolve().parent / "schema"


def pages() -> dict[str, str]:
    """Text of each schema by file name."""
    return {
        f"{name}.json": json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n" for name, kind in kinds().items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
