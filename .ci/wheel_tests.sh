#!/usr/bin/env bash
# Part of the suite against an installed scellm, without most extras and away from the sources: bash .ci/wheel_tests.sh PYTHON
# The main path (read, embed, annotate, few labels, results, report, command line) and what is said where an extra is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

TESTS="tests/datasets tests/get tests/models/conftest.py tests/models/test_bundle.py
  tests/tl/conftest.py tests/tl/test_embed.py tests/tl/test_annotate_tree.py tests/test_cli.py"
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
