"""Holds texts that were drawn within tests/golden/reply.schema.json, each the `text` of a line's object, against the jsonschema package.

    pip install -r tests/oracles/requirements-grammar.txt
    SISKIN_GRAMMAR_TEXTS=/tmp/texts.jsonl cargo test -p siskin-compiler --test grammar
    python tests/oracles/grammar.py /tmp/texts.jsonl

`cargo xtask bench grammar` does it with those of a board.
"""

import json
import pathlib
import sys

import jsonschema


def main(path):
    schema = json.loads((pathlib.Path(__file__).parent.parent / "golden" / "reply.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    lines = pathlib.Path(path).read_text().split("\n")[:-1]
    texts = [json.loads(line)["text"] for line in lines]
    for number, text in enumerate(texts, 1):
        for error in validator.iter_errors(json.loads(text)):
            raise SystemExit(f"line {number}: {error.message}: {text}")
    print(f"{len(texts)} texts are valid, {len(set(texts))} different ones")


if __name__ == "__main__":
    main(sys.argv[1])
