"""The call that a user made, as text for records: what was computed can be repeated from it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LONGEST = 300
"""Characters of an argument that are kept."""
_PLAIN = (str, bool, int, float, type(None))
_CALL: ContextVar[str] = ContextVar("scellm_call", default="")
_NOTES: ContextVar[dict[str, Any] | None] = ContextVar("scellm_notes", default=None)


def note(**facts: Any) -> None:
    """Say what was read or loaded, to whoever listens with `noting`; what was said first stays."""
    found = _NOTES.get()
    if found is not None:
        for name, value in facts.items():
            found.setdefault(name, value)


@contextmanager
def noting() -> Iterator[dict[str, Any]]:
    """Collect what `note` says inside."""
    found: dict[str, Any] = {}
    token = _NOTES.set(found)
    try:
        yield found
    finally:
        _NOTES.reset(token)


def current_call() -> str:
    """The outermost call of scellm that is running, "" for none."""
    return _CALL.get()


@contextmanager
def called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Remember a call while it runs; calls inside it do not count."""
    if _CALL.get():
        yield
        return
    token = _CALL.set(describe_call(function, args, kwargs))
    try:
        yield
    finally:
        _CALL.reset(token)


def describe_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """`scellm.tl.annotate(adata, tissue='blood')`: what differs from the defaults; objects by kind and name."""
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the call itself will say what is wrong
        return ""
    words = []
    for i, (name, value) in enumerate(given.items()):
        parameter = signature.parameters[name]
        if i == 0:
            words.append("adata" if not isinstance(value, str) else repr(value))
        elif not _is_default(value, parameter.default) and name not in ("copy", "show_progress"):
            required = parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
            shown = _model(value, given) if hasattr(value, "sha256") else _shown(value)
            words.append(shown if required else f"{name}={shown}")
    module = function.__module__.split(".")
    return f"{'.'.join(module[:2])}.{function.__name__}({', '.join(words)})"


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (
        isinstance(value, _PLAIN) and type(value) is type(default) and value == default
    )


def _model(model: Any, given: Mapping[str, Any]) -> str:
    """A model by what it was loaded from; one that is in memory alone by the call that made it, if that is known."""
    if model.sha256 and getattr(model, "source", ""):
        return repr(model.source)
    made = getattr(model, "provenance", {})
    if not made.get("call"):
        return f"<model {model.name!r} in memory>"
    n_cells = getattr(next(iter(given.values())), "n_obs", None)
    if made.get("n_obs") == n_cells:
        return str(made["call"])
    return re.sub(r"\(adata\b", f"(<AnnData of {made.get('n_obs', 0):,} cells>", made["call"], count=1)


def _shown(value: Any) -> str:
    """An argument as it would be typed; tables by what they are."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, _PLAIN):
        shown = repr(value)
    elif isinstance(value, list | tuple | set | frozenset):
        shown = f"[{', '.join(_shown(one) for one in value)}]"
    elif isinstance(value, dict):
        shown = f"{{{', '.join(f'{_shown(key)}: {_shown(one)}' for key, one in value.items())}}}"
    elif hasattr(value, "n_obs"):
        shown = f"<{type(value).__name__} of {value.n_obs:,} cells>"
    elif hasattr(value, "__fspath__"):
        shown = repr(value.__fspath__())
    elif type(value).__module__.startswith(("torch", "scellm.train")):
        shown = repr(value)
    else:
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
