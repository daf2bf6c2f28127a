"""`python -m scellm`, for programs that start modules, such as torchrun."""

import sys

from ._cli import main

sys.exit(main())
