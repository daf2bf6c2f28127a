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
"""Similarities held at once."""
CPU_ROWS, CPU_COLUMNS = 512, 4096
"""Most rows of a stripe, and its columns worked on at once, on a CPU: a tile of 8 MiB stays in its cache. GPUs take
whole stripes. Measured in tests/benchmarks/divide_and_conquer.py."""
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

    Over all 2 B views, the mean over its positives p of -log( exp(s_ip) / sum_{a != i} exp(s_ia) ). Positives are the
    other view of the cell and both views of the cells with its label. Unlabeled cells have their other view alone.

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
        first, second, n = first.detach(), second.detach(), sum(sizes)
        views = (first, second)
        keys = _gathered(views, world, sizes)
        key_relation = relation.gathered(world, sizes)
        own = torch.arange(len(first), device=first.device) + sum(
            sizes[: world.rank]
        )  # own rows among the keys
        d_views = d_keys = (None, None)
        if any(ctx.needs_input_grad):
            d_views = tuple(torch.zeros_like(x) for x in views)
            # alone, the rows of this process are all keys
            d_keys = d_views if world.size == 1 else tuple(torch.zeros_like(x) for x in keys)
        sweep = _Sweep(scale, stripe_bytes)
        if negatives == "all":
            n_terms = 2 * n
            sweep.run_both(views, keys, own, n, relation, key_relation, d_views, d_keys)
        else:
            directions = [(0, 1), (1, 0)] if negatives == "both" else [(0, 1)]
            n_terms = n * len(directions)
            for query, key in directions:
                sweep.run(
                    views[query],
                    keys[key],
                    positive=own,
                    own=None,
                    relation=relation,
                    key_relation=key_relation,
                    d_queries=d_views[query],
                    d_keys=d_keys[key],
                )
        if d_views[0] is not None:
            if world.size > 1:
                summed = world.reduce_scatter(torch.cat(d_keys, dim=1), sizes)
                for d_view, part in zip(d_views, summed.chunk(2, dim=1), strict=True):
                    d_view += part
            ctx.save_for_backward(*(x.div_(n_terms) for x in d_views), sweep.d_scale / n_terms)
        return world.sum(sweep.loss) / n_terms

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * x for x in ctx.saved_tensors), None, None, None, None, None


def _gathered(views: tuple[Tensor, Tensor], world: World, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Both views of the cells of all processes, in one exchange."""
    if world.size == 1:
        return views
    both = world.gather(torch.cat(views, dim=1), sizes)
    return tuple(x.contiguous() for x in both.chunk(2, dim=1))


class _Sweep:
    """Sums of losses and gradients over stripes of queries.

    With dS the gradient at the similarities S: dQ = dS K / t, dK = dS^T Q / t, d(1/t) = sum of dS K . Q.
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
        is_cpu = keys.device.type == "cpu"
        n_rows = max(1, self.stripe_bytes // (len(keys) * keys.element_size()))
        n_rows = min(n_rows, len(queries), CPU_ROWS if is_cpu else n_rows)
        width = CPU_COLUMNS if is_cpu else len(keys)
        columns = [slice(start, min(start + width, len(keys))) for start in range(0, len(keys), width)]
        buffer = keys.new_empty(max(n_rows, 1), len(keys))
        for start in range(0, len(queries), max(n_rows, 1)):
            rows = slice(start, start + n_rows)
            stripe = _Stripe(
                queries[rows] * self.scale,
                keys,
                buffer,
                columns,
                positive=positive[rows],
                own=None if own is None else own[rows],
                relation=relation[rows],
                key_relation=key_relation,
            )
            contrast = stripe.one_positive if relation.labels is None else stripe.many_positives
            loss, d_scaled = contrast(d_keys)
            self.loss += loss
            if d_scaled is not None:
                self.d_scale += (d_scaled * queries[rows]).sum()
                d_queries[rows] += d_scaled * self.scale

    def run_both(
        self,
        views: tuple[Tensor, Tensor],
        keys: tuple[Tensor, Tensor],
        own: Tensor,
        n: int,
        relation: _Relation,
        key_relation: _Relation,
        d_views: tuple[Tensor | None, Tensor | None],
        d_keys: tuple[Tensor | None, Tensor | None],
    ) -> None:
        """Both views, one after the other, are the queries and the keys; the n-th key on is a second view."""
        d_queries = d_all = None
        if d_views[0] is not None:
            d_queries, d_all = (torch.zeros_like(torch.cat(x)) for x in (views, keys))
        self.run(
            torch.cat(views),
            torch.cat(keys),
            positive=torch.cat([own + n, own]),
            own=torch.cat([own, own + n]),
            relation=relation.twice(),
            key_relation=key_relation.twice(),
            d_queries=d_queries,
            d_keys=d_all,
        )
        for sums, parts in ((d_queries, d_views), (d_all, d_keys)):
            if sums is not None:
                for part, own_sum in zip(parts, sums.chunk(2), strict=True):
                    part += own_sum


class _Stripe:
    """Similarities S of some queries to all keys, tile by tile; used once.

    Three rounds over its tiles: S and the highest of each row; the exponentials E, their sums and E K; and, when the
    sums are known, the share of dK = dS^T Q / t. Each entry is made once and read twice.
    """

    def __init__(
        self,
        scaled: Tensor,
        keys: Tensor,
        buffer: Tensor,
        columns: list[slice],
        *,
        positive: Tensor,
        own: Tensor | None,
        relation: _Relation,
        key_relation: _Relation,
    ) -> None:
        self.scaled, self.keys, self.columns = scaled, keys, columns
        self.similarity = buffer[: len(scaled)]  # (b, K)
        self.positive, self.own = positive, own
        self.relation, self.key_relation = relation, key_relation
        self.at = torch.arange(len(scaled), device=scaled.device)
        self.here = (scaled * keys[positive]).sum(1)  # (b,) similarity to the other view
        self.highest = torch.full_like(self.here, -torch.inf)

    def one_positive(self, d_keys: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Sum of softplus(r_i - s_ii), and its gradient at the scaled queries (b, D)."""
        for part in self.columns:
            self._make(part, left_out=self.positive)  # r_i runs over the others
        rest, sums, weighted = self._exponentials(is_graded=d_keys is not None)
        gap = rest - self.here
        loss = F.softplus(gap).sum()
        if d_keys is None:
            return loss, None
        factor = torch.sigmoid(gap)[:, None]  # 1 - share of the positive
        pull = factor * self.scaled
        push = pull / sums
        for part in self.columns:
            d_keys[part].addmm_(self.similarity[:, part].T, push)
        d_keys.index_add_(0, self.positive, -pull)
        return loss, factor * (weighted / sums - self.keys[self.positive])

    def many_positives(self, d_keys: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Sum of lse_i - mean of the positives, and its gradient at the scaled queries (b, D)."""
        n_positive = self.scaled.new_zeros(len(self.scaled), 1)
        to_positives, positive_keys = torch.zeros_like(self.here), torch.zeros_like(self.scaled)
        for part in self.columns:
            tile = self._make(part)
            is_positive = self._is_positive(part)
            n_positive += is_positive.sum(1, keepdim=True)
            to_positives += tile.masked_fill(is_positive == 0, 0).sum(1)
            positive_keys.addmm_(is_positive, self.keys[part])
        total, sums, weighted = self._exponentials(is_graded=d_keys is not None)
        loss = (total - to_positives / n_positive[:, 0]).sum()
        if d_keys is None:
            return loss, None
        push, pull = self.scaled / sums, self.scaled / n_positive
        for part in self.columns:
            d_keys[part].addmm_(self.similarity[:, part].T, push)
            d_keys[part].addmm_(self._is_positive(part).T, pull, alpha=-1)
        return loss, weighted / sums - positive_keys / n_positive

    def _make(self, part: slice, left_out: Tensor | None = None) -> Tensor:
        """Similarities of one tile, (b, c); -inf for those who are not compared."""
        tile = self.similarity[:, part]
        tile.copy_(self.scaled @ self.keys[part].T)
        relation, keys = self.relation, self.key_relation
        if relation.group is not None:
            tile.masked_fill_(relation.group[:, None] != keys.group[part], -torch.inf)
        if relation.exclude is not None:
            is_alike = relation.exclude[:, None] == keys.exclude[part]
            is_alike &= (relation.exclude != UNLABELLED)[:, None]
            tile.masked_fill_(is_alike, -torch.inf)
        for column in (self.own, left_out):
            if column is not None:
                self._set(tile, part, column, -torch.inf)
        self.highest = torch.maximum(self.highest, tile.amax(1))
        return tile

    def _set(self, tile: Tensor, part: slice, column: Tensor, value: float) -> None:
        """Set one entry of each row, where it is in this tile."""
        is_here = (column >= part.start) & (column < part.stop)
        tile[self.at[is_here], column[is_here] - part.start] = value

    def _is_positive(self, part: slice) -> Tensor:
        """Which entries of a tile are positives, (b, c) of 0 and 1: of the same label and group, and not the query."""
        labels, keys = self.relation.labels, self.key_relation
        alike = (labels[:, None] == keys.labels[part]) & (labels != UNLABELLED)[:, None]
        if self.relation.group is not None:
            alike &= self.relation.group[:, None] == keys.group[part]
        alike = alike.to(self.scaled.dtype)
        self._set(alike, part, self.own, 0.0)
        self._set(alike, part, self.positive, 1.0)
        return alike

    def _exponentials(self, *, is_graded: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Turn S into E = exp(S - highest). Returns log sum exp (b,), sum E (b, 1) and E K (b, D)."""
        # where there is no one to compare with all of E is 0
        highest = self.highest.masked_fill(self.highest == -torch.inf, 0)
        sums = torch.zeros_like(highest)
        weighted = torch.zeros_like(self.scaled) if is_graded else None
        for part in self.columns:
            tile = self.similarity[:, part]
            tile.sub_(highest[:, None]).exp_()
            sums += tile.sum(1)
            if is_graded:
                weighted.addmm_(tile, self.keys[part])
        smallest = torch.finfo(sums.dtype).tiny
        return sums.log() + highest, sums.clamp(min=smallest)[:, None], weighted
