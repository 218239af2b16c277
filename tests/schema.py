"""Validates approvals with a validator that is not ours: each argument is a file; a line for each that does not fit."""

import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for path in sys.argv[2:]:
    try:
        with open(path, encoding="utf-8") as file:
            problems = [problem.message for problem in validator.iter_errors(json.load(file))]
    except ValueError as error:
        problems = [f"not JSON: {error}"]
    for problem in problems[:1]:
        print(path, problem, sep="\t")
