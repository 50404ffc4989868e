"""The documents and their schemas: written from the records, up to date, and strict where they can be."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jsonschema
import pytest
from helpers import check_document, made_up_comparison

from rdxcli.records import Result, plain
from rdxcli.schemas import kinds, schema

ROOT = Path(__file__).resolve().parents[2]


def test_the_files_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_schemas", ROOT / "docs" / "make_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = module.pages()
    assert {path.name for path in module.FOLDER.glob("*.json")} == set(pages)
    for name, text in pages.items():
        assert (module.FOLDER / name).read_text("utf-8") == text, "run `make docs`"


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.kind)
def test_an_empty_record_keeps_to_its_schema(kind: type[Result]) -> None:
    made = schema(kind)
    jsonschema.Draft202012Validator.check_schema(made)
    document = kind(method="m", parameters={}, seed=0).to_document("outputs/x")
    jsonschema.validate(document, made)
    for name in made["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in document.items() if key != name}, made)


def test_a_comparison_keeps_to_its_schema_and_a_wrong_one_does_not() -> None:
    import json

    document = made_up_comparison().to_document("outputs/x")
    check_document(json.dumps(document))
    for changes in ({"n": "many"}, {"schema_version": 0}, {"concepts": [{"closer_in": "a"}]}, {"notes": [1]}):
        with pytest.raises(jsonschema.ValidationError):
            check_document(json.dumps(plain({**document, **changes})))
