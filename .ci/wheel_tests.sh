#!/usr/bin/env bash
# Part of the suite against an installed scellm, without most extras and away from the sources: bash .ci/wheel_tests.sh PYTHON
# Datasets, results and the command line: short, as the whole suite has run against the same code before.
set -euo pipefail
cd "$(dirname "$0")/.."

TESTS="tests/datasets tests/get tests/test_cli.py"
elsewhere="$(mktemp -d)"
trap 'rm -rf "$elsewhere"' EXIT
cp -r --parents $TESTS pyproject.toml "$elsewhere"
cd "$elsewhere"
"$1" - <<'CODE'
import pathlib
import sys

import scellm

found = pathlib.Path(scellm.__file__)
print(found)
if not found.is_relative_to(sys.prefix):
    sys.exit("This is not the installed package.")
CODE
"$1" -m pytest -q tests
