"""Contrastive losses over any number of cells: loss and gradients in one sweep over stripes of rows.

Shape letters: `N` queries of this process, `K` keys of all processes, `D` representation size. With unit vectors q, k
and temperature t, s_ij = q_i . k_j / t. The N x K similarities are never kept: a stripe of rows is made, turned into
its loss and its share of all gradients, and forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._distributed import World

STRIPE_BYTES = 64 << 20
"""Similarities held at once; measured in tests/benchmarks/divide_and_conquer.py."""
UNLABELLED = -1
"""Label of a cell that has none."""


def info_nce(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    symmetric: bool = True,
    group: Tensor | None = None,
    exclude: Tensor | None = None,
    stripe_bytes: int = STRIPE_BYTES,
    world: World | None = None,
) -> Tensor:
    r"""InfoNCE between two views of the same cells :cite:p:`Oord2018`.

    With unit vectors a, b of the two views: mean over i of -log( exp(a_i . b_i / t) / sum_j exp(a_i . b_j / t) ).

    Where the views of a cell are nearly equal the loss is near 0 and the usual form loses its digits. Here
    loss_i = softplus(r_i - s_ii) with r_i = log sum_{j != i} exp s_ij, and the gradient carries the factor
    sigmoid(r_i - s_ii) = 1 - p_ii, which is exact however small it is.

    Parameters
    ----------
    first, second
        (B, D) representations, any length; row i of both is one cell.
    temperature
        Temperature t; a tensor that asks for its gradient gets it.
    symmetric
        Average over both directions. `False` contrasts only `first` against `second`.
    group
        (B,) integers: only cells of the same group are negatives of each other, for instance those of one dataset.
    exclude
        (B,) integers: cells with the same one, for instance of one type, are no negatives of each other; those with
        -1 are like no other.
    stripe_bytes
        Memory for similarities.
    world
        Processes that share the batch; each passes its own rows. `None` takes this process's rows for all.

    Returns
    -------
    The mean loss over all cells of all processes. Its gradients are those of that mean with respect to the rows of
    this process: summed over processes, gradients of weights are complete.

    Raises
    ------
    ValueError
        Shapes that do not fit, fewer than two cells, or a temperature that is not positive.
    """
    relation = _Relation(group, exclude)
    return _contrast(
        first, second, temperature, "both" if symmetric else "one", relation, stripe_bytes, world
    )


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    group: Tensor | None = None,
    exclude: Tensor | None = None,
    stripe_bytes: int = STRIPE_BYTES,
    world: World | None = None,
) -> Tensor:
    """InfoNCE whose negatives are both views of all other cells :cite:p:`Chen2020`.

    Each of the 2 B views has its other view as positive and the 2 B - 2 views of other cells as negatives.
    Parameters, returns and errors are those of `info_nce`.
    """
    relation = _Relation(group, exclude)
    return _contrast(first, second, temperature, "all", relation, stripe_bytes, world)


def supervised_contrastive(
    first: Tensor,
    second: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    group: Tensor | None = None,
    stripe_bytes: int = STRIPE_BYTES,
    world: World | None = None,
) -> Tensor:
    """Contrastive loss whose positives are all cells of the same label :cite:p:`Khosla2020`.

    Over all 2 B views: -1/|P(i)| sum_{p in P(i)} log( exp(s_ip) / sum_{a != i} exp(s_ia) ), where P(i) holds the other
    view of the cell and both views of the cells with its label. Unlabelled cells have their other view alone.

    Parameters
    ----------
    first, second
        (B, D) representations, any length; row i of both is one cell.
    labels
        (B,) integers; -1 for cells without.
    temperature, group, stripe_bytes, world
        As in `info_nce`. With `group`, positives too are of the same group.

    Returns
    -------
    The mean loss, as `info_nce`.

    Raises
    ------
    ValueError
        As `info_nce`.
    """
    relation = _Relation(group, None, labels)
    return _contrast(first, second, temperature, "all", relation, stripe_bytes, world)


@dataclass(frozen=True)
class _Relation:
    """What cells are to each other, apart from being the same one; (B,) each or None."""

    group: Tensor | None = None
    exclude: Tensor | None = None
    labels: Tensor | None = None

    def tensors(self) -> list[tuple[str, Tensor]]:
        return [(name, x) for name, x in vars(self).items() if x is not None]

    def gathered(self, world: World, sizes: list[int]) -> _Relation:
        return _Relation(**{name: world.gather(x, sizes) for name, x in self.tensors()})

    def twice(self) -> _Relation:
        """For both views one after the other."""
        return _Relation(**{name: torch.cat([x, x]) for name, x in self.tensors()})

    def __getitem__(self, rows: slice) -> _Relation:
        return _Relation(**{name: x[rows] for name, x in self.tensors()})


def _contrast(
    first: Tensor,
    second: Tensor,
    temperature: float | Tensor,
    negatives: str,
    relation: _Relation,
    stripe_bytes: int,
    world: World | None,
) -> Tensor:
    """Check, bring to unit length, and contrast."""
    if first.ndim != 2 or first.shape != second.shape:
        msg = f"Two views of the same cells have one shape (B, D); found {tuple(first.shape)} and {tuple(second.shape)}."
        raise ValueError(msg)
    for name, x in relation.tensors():
        if x.shape != first.shape[:1]:
            msg = f"{name} has shape {tuple(x.shape)} for {len(first)} cells; one number per cell is needed."
            raise ValueError(msg)
    if not (value := float(torch.as_tensor(temperature).detach())) > 0:
        msg = f"temperature is {value}; it must be positive."
        raise ValueError(msg)
    world = world or World()
    sizes = world.sizes(len(first), first.device)
    if sum(sizes) < 2:
        msg = f"{sum(sizes)} cell has no negatives; a contrastive batch needs at least two."
        raise ValueError(msg)
    scale = 1 / torch.as_tensor(temperature, dtype=first.dtype, device=first.device)
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    return _Contrast.apply(first, second, scale, negatives, relation, stripe_bytes, world, sizes)


class _Contrast(torch.autograd.Function):
    """The loss with its gradients, which are made in the forward pass: a training step needs them anyway."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        scale: Tensor,
        negatives: str,
        relation: _Relation,
        stripe_bytes: int,
        world: World,
        sizes: list[int],
    ) -> Tensor:
        first, second, n, dim = first.detach(), second.detach(), sum(sizes), first.shape[1]
        keys = world.gather(torch.cat([first, second], dim=1), sizes)  # one exchange for both views
        gradient = torch.zeros_like(keys) if any(ctx.needs_input_grad) else None
        keys_first, keys_second = keys[:, :dim], keys[:, dim:]
        key_relation = relation.gathered(world, sizes)
        same = torch.arange(len(first), device=first.device) + sum(
            sizes[: world.rank]
        )  # own rows among the keys
        sweep = _Sweep(scale, stripe_bytes)
        d_first = d_second = d_keys_first = d_keys_second = None
        if gradient is not None:
            d_first, d_second = torch.zeros_like(first), torch.zeros_like(second)
            d_keys_first, d_keys_second = gradient[:, :dim], gradient[:, dim:]
        if negatives == "all":
            # queries and keys are both views, one after the other
            d_queries = d_keys = None
            if gradient is not None:
                d_queries, d_keys = first.new_zeros(2 * len(first), dim), keys.new_zeros(2 * n, dim)
            sweep.run(
                torch.cat([first, second]),
                torch.cat([keys_first, keys_second]),
                positive=torch.cat([same + n, same]),
                own=torch.cat([same, same + n]),
                relation=relation.twice(),
                key_relation=key_relation.twice(),
                d_queries=d_queries,
                d_keys=d_keys,
            )
            n_terms = 2 * n
            if gradient is not None:
                d_first += d_queries[: len(first)]
                d_second += d_queries[len(first) :]
                d_keys_first += d_keys[:n]
                d_keys_second += d_keys[n:]
        else:
            pairs = [(first, keys_second, d_first, d_keys_second)]
            pairs += [(second, keys_first, d_second, d_keys_first)] if negatives == "both" else []
            for queries, others, d_queries, d_keys in pairs:
                sweep.run(
                    queries,
                    others,
                    positive=same,
                    own=None,
                    relation=relation,
                    key_relation=key_relation,
                    d_queries=d_queries,
                    d_keys=d_keys,
                )
            n_terms = n * len(pairs)
        if gradient is not None:
            gradient = world.reduce_scatter(gradient, sizes)
            d_first += gradient[:, :dim]
            d_second += gradient[:, dim:]
            ctx.save_for_backward(d_first / n_terms, d_second / n_terms, sweep.d_scale / n_terms)
        return world.sum(sweep.loss) / n_terms

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * x for x in ctx.saved_tensors), None, None, None, None, None


class _Sweep:
    """Sums of losses and gradients over stripes of queries.

    With dS the gradient at the similarities S of a stripe: dQ = dS K / t, dK = dS^T Q / t, d(1/t) = sum of dS K . Q.
    """

    def __init__(self, scale: Tensor, stripe_bytes: int) -> None:
        self.scale = scale.detach()
        self.stripe_bytes = stripe_bytes
        self.loss = torch.zeros_like(self.scale)
        self.d_scale = torch.zeros_like(self.scale)

    def run(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        positive: Tensor,
        own: Tensor | None,
        relation: _Relation,
        key_relation: _Relation,
        d_queries: Tensor | None,
        d_keys: Tensor | None,
    ) -> None:
        """Add the losses of (N, D) queries against (K, D) keys, and the gradients to `d_queries` and `d_keys`.

        Parameters
        ----------
        positive
            (N,) the key that is the other view of each query.
        own
            (N,) the key that is the query itself, which is left out.
        """
        n_rows = max(1, self.stripe_bytes // (len(keys) * keys.element_size()))
        for start in range(0, len(queries), n_rows):
            rows = slice(start, start + n_rows)
            scaled = queries[rows] * self.scale
            stripe = scaled @ keys.T  # (b, K)
            at = torch.arange(len(stripe), device=stripe.device)
            here = stripe[at, positive[rows]]  # (b,) similarity to the other view
            _exclude(stripe, relation[rows], key_relation)
            if own is not None:
                stripe[at, own[rows]] = -torch.inf
            if relation.labels is None:
                loss, factor = _one_positive(stripe, here, positive[rows], is_graded=d_queries is not None)
            else:
                is_positive = relation.labels[rows, None] == key_relation.labels
                is_positive &= (relation.labels[rows] != UNLABELLED)[:, None] & (stripe > -torch.inf)
                is_positive[at, positive[rows]] = True
                stripe[at, positive[rows]] = here
                loss, factor = _many_positives(stripe, is_positive, is_graded=d_queries is not None)
            self.loss += loss
            if d_queries is not None:  # the stripe holds dS / factor now
                d_scaled = factor * (stripe @ keys)
                self.d_scale += (d_scaled * queries[rows]).sum()
                d_queries[rows] += d_scaled * self.scale
                d_keys.addmm_(stripe.T, factor * scaled)


def _exclude(stripe: Tensor, relation: _Relation, keys: _Relation) -> None:
    """Take those who are not compared out of the sums."""
    if relation.group is not None:
        stripe.masked_fill_(relation.group[:, None] != keys.group, -torch.inf)
    if relation.exclude is not None:
        is_alike = relation.exclude[:, None] == keys.exclude
        is_alike &= (relation.exclude != UNLABELLED)[:, None]
        stripe.masked_fill_(is_alike, -torch.inf)


def _one_positive(
    stripe: Tensor, here: Tensor, positive: Tensor, *, is_graded: bool
) -> tuple[Tensor, Tensor | None]:
    """Sum of softplus(r_i - s_ii), and sigmoid(r_i - s_ii) (b, 1); the stripe becomes dS without that factor."""
    at = torch.arange(len(stripe), device=stripe.device)
    stripe[at, positive] = -torch.inf
    if not is_graded:
        return F.softplus(stripe.logsumexp(1) - here).sum(), None
    highest, place = stripe.max(1)
    torch.softmax(stripe, 1, out=stripe)  # shares among the negatives
    rest = highest - stripe.gather(1, place[:, None])[:, 0].log()  # r_i
    if (is_alone := highest == -torch.inf).any():  # no negative at all
        stripe[is_alone], rest[is_alone] = 0, -torch.inf
    stripe[at, positive] = -1
    return F.softplus(rest - here).sum(), torch.sigmoid(rest - here)[:, None]


def _many_positives(stripe: Tensor, is_positive: Tensor, *, is_graded: bool) -> tuple[Tensor, Tensor | None]:
    """Sum of lse_i - mean of the positives, and a factor of 1 (b, 1); the stripe becomes dS."""
    n_positive = is_positive.sum(1, keepdim=True)
    mean = stripe.masked_fill(~is_positive, 0).sum(1) / n_positive[:, 0]
    loss = (stripe.logsumexp(1) - mean).sum()
    if not is_graded:
        return loss, None
    torch.softmax(stripe, 1, out=stripe)
    stripe -= is_positive.to(stripe.dtype) / n_positive
    return loss, torch.ones_like(n_positive, dtype=stripe.dtype)
