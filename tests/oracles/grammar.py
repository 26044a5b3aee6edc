"""Holds texts that were drawn within tests/golden/reply.schema.json, one a line, against the jsonschema package.

    pip install jsonschema==4.25.1
    SISKIN_GRAMMAR_TEXTS=/tmp/texts cargo test -p siskin-compiler --test grammar
    python tests/oracles/grammar.py /tmp/texts
"""

import json
import pathlib
import sys

import jsonschema


def main(path):
    schema = json.loads((pathlib.Path(__file__).parent.parent / "golden" / "reply.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    lines = pathlib.Path(path).read_text().split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        for error in validator.iter_errors(json.loads(line)):
            raise SystemExit(f"line {number}: {error.message}: {line}")
    print(f"{len(lines)} texts are valid, {len(set(lines))} different ones")


if __name__ == "__main__":
    main(sys.argv[1])
