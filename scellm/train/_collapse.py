"""Whether a run has collapsed: all cells get one direction, or the contrastive loss is that of guessing."""

from __future__ import annotations

from ._log import Row

N_LINES = 5
"""Lines of the log in a row that must look collapsed."""
N_STEPS = 20
"""Steps before which nothing is judged, and which those lines must span."""
ANISOTROPY = 0.95
"""Mean cosine of embeddings above which they all point one way; the shipped encoder is at 0.7."""
NEAR = 0.01
"""Share of the loss of guessing within which a loss has learned nothing."""

REMEDIES = (
    "Change one of these, in this order, and start anew in another checkpoint_dir: a lower learning_rate (a third, with "
    "warmup=0.2); another pooling (of the encoder's config), as a sum over genes of unit length drowns in what all "
    "cells share once there are blocks; easier views (a smaller drop_genes, a larger max_genes), from which a "
    "cell can be recognized; a lower temperature."
)


class CollapseError(RuntimeError):
    """Training has collapsed and would only waste time."""


class CollapseWatch:
    """Follows the log and stops a run in which cells cannot be told apart.

    Parameters
    ----------
    first_step
        Steps up to this one are not judged, such as those of the warm-up.
    """

    def __init__(self, first_step: int = N_STEPS) -> None:
        self.first_step = max(first_step, N_STEPS)
        self._narrow: list[Row] = []
        self._blind: list[Row] = []
        self._n_judged = 0

    def look(self, line: Row, loss: float | None, guessing: float | None) -> str | None:
        """Take in one line of the log; why the run has collapsed, or `None`.

        Parameters
        ----------
        line
            The line, with `step` and `anisotropy`.
        loss
            Contrastive loss of its last batch, if there is one.
        guessing
            The same if all cells had one embedding: log N for N candidates.
        """
        if line["step"] <= self.first_step:
            return None
        self._n_judged += 1
        is_blind = loss is not None and bool(guessing) and loss >= (1 - NEAR) * guessing
        is_narrow = line.get("anisotropy", 0.0) > ANISOTROPY
        self._narrow = [*self._narrow, line] if is_narrow else []
        self._blind = [*self._blind, line] if is_blind else []
        if _lasts(self._narrow):
            return f"all cells point the same way (anisotropy {line['anisotropy']:.3f} of at most 1)"
        if _lasts(self._blind):
            return f"the contrastive loss is that of guessing ({loss:.3f}; log N is {guessing:.3f})"
        return None

    def at_end(self) -> str | None:
        """How a run looks collapsed that ended before `N_LINES` lines said so; `None` if it does not."""
        for lines, said in (
            (self._narrow, "all cells point the same way"),
            (self._blind, "the contrastive loss is that of guessing"),
        ):
            if len(lines) > 1:
                return f"in the last {len(lines)} lines of the log {said}"
            if lines and self._n_judged == 1:
                return f"in the last line of the log {said}"
        return None


def collapse(step: int, reason: str, since: int = N_LINES) -> CollapseError:
    """The error that says what to change.

    Parameters
    ----------
    step
        The step.
    reason
        What `CollapseWatch.look` found.
    since
        Lines of the log it has been so.
    """
    return CollapseError(
        f"Training has collapsed by step {step}: {reason}, for {since} lines of the log in a row. {REMEDIES}"
    )


def _lasts(lines: list[Row]) -> bool:
    """Whether so many lines over so many steps are not chance."""
    return len(lines) >= N_LINES and lines[-1]["step"] - lines[0]["step"] >= N_STEPS
