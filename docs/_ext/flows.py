"""Draw the two flows of docs/dev/architecture.md: `python docs/_ext/flows.py` writes docs/_static/flows.svg."""

from __future__ import annotations

from html import escape
from pathlib import Path

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 204, 66, 42, 46, 16
Box = tuple[int, int, str, str, str]
"""Column, row, title, what happens, place in the package."""

CELLS: list[Box] = [
    (0, 0, "your cells", "AnnData or a file", ""),
    (1, 0, "reader", "genes matched, values judged", "data/cells/_expression.py"),
    (2, 0, "tokens", "gene ids, values", "data/cells/_tokens.py"),
    (3, 0, "encoder", "one cell at a time", "models/_encode.py, nn/"),
    (4, 0, "embedding", "obsm, record in uns", "tl/_embed.py"),
    (2, 2, "counts, log values", "row blocks", "data/cells/_expression.py"),
    (3, 2, "drug model", "arrays in, arrays out", "drugs/"),
    (4, 2, "ln IC50", "obsm, obs", "tl/_drug_response.py"),
    (3, 1, "heads", "types, confidence, novelty", "annotation/"),
    (4, 1, "cell types", "obs, obsm", "tl/_annotate.py"),
    (5, 1, "tables, figures", "read keys only", "get/, pl/"),
]
CELL_ARROWS = [
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 4),
    (1, 5),
    (5, 6),
    (6, 7),
    (3, 8),
    (8, 9),
    (4, 10),
    (7, 10),
    (9, 10),
]
CORPUS: list[Box] = [
    (0, 0, "datasets", "files, folders, packed", "data/corpus/_sources.py"),
    (1, 0, "corpus", "many stores as one", "data/corpus/_corpus.py"),
    (2, 0, "batches", "which cells, labels", "train/_corpus_batches.py"),
    (3, 0, "views and masks", "all drawn before the step", "train/_batch.py, _views.py"),
    (4, 0, "two-pass step", "losses and gradients", "train/_divide_and_conquer.py"),
    (5, 0, "optimizer", "rate, decay", "train/_optimizer.py"),
    (4, 1, "objectives", "encode, compare", "train/_objectives.py"),
    (3, 1, "checkpoints, resume", "each complete or not there", "train/_checkpoint, _resume.py"),
    (2, 1, "trainer", "step, log, stop", "train/_trainer.py"),
    (5, 1, "weights", "model folder", "models/_bundle.py"),
]
CORPUS_ARROWS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 4), (8, 7), (8, 2), (5, 9)]


def place(box: Box, top: int) -> tuple[int, int]:
    """Upper left corner of a box."""
    return MARGIN + box[0] * (WIDTH + GAP_X), top + box[1] * (HEIGHT + GAP_Y)


def draw_box(box: Box, top: int) -> str:
    """A box of three lines."""
    x, y = place(box, top)
    lines = [(18, "title", box[2]), (36, "what", box[3]), (54, "file", box[4])]
    texts = "".join(
        f'<text x="{x + WIDTH / 2:g}" y="{y + dy}" class="{kind}">{escape(text)}</text>'
        for dy, kind, text in lines
        if text
    )
    return f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>{texts}'


def draw_arrow(first: Box, second: Box, top: int) -> str:
    """From the side of one box to the side of another that faces it."""
    (x, y), (to_x, to_y) = place(first, top), place(second, top)
    if first[0] == second[0]:  # straight up or down
        down = to_y > y
        start, end = (x + WIDTH / 2, y + HEIGHT * down), (to_x + WIDTH / 2, to_y + HEIGHT * (not down))
    else:
        start, end = (x + WIDTH, y + HEIGHT / 2), (to_x, to_y + HEIGHT / 2)
    return f'<path d="M{start[0]:g},{start[1]:g} L{end[0]:g},{end[1]:g}"/>'


def draw(flow: list[Box], arrows: list[tuple[int, int]], title: str, top: int) -> str:
    """One flow under its title."""
    parts = [f'<text x="{MARGIN}" y="{top - 14}" class="heading">{escape(title)}</text>']
    parts += [draw_arrow(flow[a], flow[b], top) for a, b in arrows]
    parts += [draw_box(box, top) for box in flow]
    return "\n".join(parts)


def main() -> None:
    """Write the drawing."""
    width = 2 * MARGIN + 6 * WIDTH + 5 * GAP_X
    second = 48 + 3 * (HEIGHT + GAP_Y) + 40
    height = second + 2 * HEIGHT + GAP_Y + MARGIN
    style = (
        "text{font:13px sans-serif;text-anchor:middle;fill:#222}.title{font-weight:bold}.what{font-size:12px}"
        ".file{font:11px monospace;fill:#555}.heading{font-size:16px;font-weight:bold;text-anchor:start}"
        "rect{fill:#f4f7fb;stroke:#5b7fa6}path{stroke:#5b7fa6;stroke-width:1.5;fill:none;marker-end:url(#tip)}"
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>How cells become results, and a corpus weights</title>\n<style>{style}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<polygon points="0,0 8,4 0,8" fill="#5b7fa6"/></marker></defs>\n'
        f'<rect x="0" y="0" width="{width}" height="{height}" style="fill:#fff;stroke:none"/>\n'
        f"{draw(CELLS, CELL_ARROWS, 'From cells to results', 48)}\n"
        f"{draw(CORPUS, CORPUS_ARROWS, 'From a corpus to weights', second)}\n</svg>\n"
    )
    (Path(__file__).parents[1] / "_static" / "flows.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
