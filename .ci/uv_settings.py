"""Print what pip is configured to as variables of uv, one a line.

uv reads neither the files nor the variables of pip.
"""

import ast
import os
import subprocess
import sys

VARIABLES = {
    "cert": ("SSL_CERT_FILE", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}
"""Options of pip: the variable of uv, and what stands between several values."""
SECTIONS = ("global", "install", ":env:")
"""Of pip's configuration; a later one replaces an earlier one."""


def settings(lines: list[str]) -> dict[str, str]:
    """Variables of uv for the lines of `pip config list`."""
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip: the best version of all indexes
    for section in SECTIONS:
        for line in lines:
            key, _, value = line.partition("=")
            where, _, option = key.partition(".")
            if where == section and option in VARIABLES:
                name, between = VARIABLES[option]
                found[name] = between.join(ast.literal_eval(value).split())
    return found


if __name__ == "__main__":
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    print(
        *(f"{name}={value}" for name, value in settings(listed).items() if name not in os.environ), sep="\n"
    )
