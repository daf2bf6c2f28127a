"""Fingerprints of expression: cheap enough to take on every pass, of every value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp

from ..._room import let_go

LINE = 512
"""Words of 64 bits that are condensed to one (two for floats)."""
LINES_AT_ONCE = 256
"""Lines whose upper halves are taken out together: 1 MB, which stays in the cache."""
WEIGHTS = np.frombuffer(hashlib.shake_128(b"scellm").digest(8 * LINE), dtype="<u8") | np.uint64(1)
"""(LINE,) odd, so that a change of one word always changes its line."""


class Fingerprint:
    """A hash of facts in text and of rows of a matrix, block by block.

    Blake2b over 64-bit checksums of 4 kB lines, of the values and of the upper halves of their words (small whole numbers
    differ there in a few bits only). Ten times as fast as blake2b over everything. A change of one value is noticed
    for certain, any other one that was not made to deceive for all practical purposes.

    Parameters
    ----------
    facts
        What the rows are of; in order.
    log
        Takes what is hashed of the rows, a few percent of their size, from which another object can go on.
    """

    def __init__(self, facts: Iterable[str], log: list[bytes] | None = None) -> None:
        self._log = log
        self._digest = hashlib.blake2b(digest_size=16)
        for fact in facts:
            text = fact.encode(errors="surrogatepass")
            self._digest.update(len(text).to_bytes(8, "little") + text)

    def add_rows(self, block: sp.csr_array) -> None:
        """Add the next rows: the same whatever number type and container they were stored in."""
        self.add_hashed(np.diff(block.indptr).astype("<i4").tobytes())
        self._add(np.ascontiguousarray(block.indices, dtype="<i4"))
        self.add_values(block.data)

    def add_values(self, values: np.ndarray) -> None:
        """Add numbers, as float32."""
        self._add(np.ascontiguousarray(values, dtype="<f4").reshape(-1))

    def add_hashed(self, condensed: bytes) -> None:
        """Add what another object has logged of the next rows."""
        self._digest.update(condensed)
        if self._log is not None:
            self._log.append(condensed)

    def hexdigest(self) -> str:
        """32 characters."""
        return self._digest.hexdigest()

    def _add(self, values: np.ndarray) -> None:
        """Add (n,) values of 32 bits."""
        whole = len(values) // (2 * LINE) * (2 * LINE)
        lines = values[:whole].view("<u8").reshape(-1, LINE)
        for start in range(0, len(lines), 16 * LINES_AT_ONCE):
            some = lines[start : start + 16 * LINES_AT_ONCE]
            self.add_hashed(np.einsum("ij,j->i", some, WEIGHTS).tobytes())
            let_go(values)
        if values.dtype.kind == "f":
            for start in range(0, len(lines), LINES_AT_ONCE):
                upper = lines[start : start + LINES_AT_ONCE] >> np.uint64(32)
                self.add_hashed(np.einsum("ij,j->i", upper, WEIGHTS).tobytes())
                let_go(values)
        self.add_hashed(values[whole:].tobytes())


def fingerprint_of(values: np.ndarray) -> str:
    """Of an array of numbers, as float32, and its shape."""
    found = Fingerprint([str(values.shape)])
    found.add_values(values)
    return found.hexdigest()
