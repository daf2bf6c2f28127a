"""How much memory a step may use, and how much the graph of a chunk takes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from types import TracebackType

import torch
from torch import Tensor

UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for ending, base in (("B", 1000), ("iB", 1024))
}


def parse_bytes(budget: int | float | str) -> int:
    """Bytes of a number or a text such as "8GiB", "500 MB".

    Raises
    ------
    ValueError
        Neither, or not positive.
    """
    found = None
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", budget)
        unit = {name.lower(): size for name, size in UNITS.items()}.get(match[2].lower()) if match else None
        found = None if unit is None else float(match[1]) * unit
    elif isinstance(budget, int | float) and not isinstance(budget, bool):
        found = float(budget)
    if found is None or not 0 < found < float("inf"):
        msg = (
            f"memory_budget={budget!r} is no amount of memory; pass for instance '8GiB', '500MB', or 'auto'."
        )
        raise ValueError(msg)
    return int(found)


def available_bytes(device: torch.device) -> int:
    """Memory a step may use on a device when nothing is said: most of what is free on a GPU, half of it elsewhere."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.85 * (free + unused))
    if device.type == "mps":
        return int(0.5 * (torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()))
    return free_memory() // 2


def free_memory() -> int:
    """Main memory that can be used without swapping; where the system does not say, a quarter of all, or 2 GiB."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
            kilobytes = next(line.split()[1] for line in file if line.startswith("MemAvailable"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, OSError, ValueError):
        return 2 << 30


class SavedBytes:
    """Counts the bytes that graphs made inside the `with` block keep for their backward pass.

    Parameters
    ----------
    known
        Tensors that are there anyway, such as weights.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        self.total = 0
        self._seen = {x.untyped_storage().data_ptr() for x in known}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda x: x)

    def _pack(self, saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
        return saved.detach()

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
