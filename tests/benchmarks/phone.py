"""Which built pages scroll sideways on a phone: python tests/benchmarks/phone.py docs/_build/html.

Loads every page in one headless Chromium, in a frame of 390 pixels, and measures how wide it is. Prints one line for
each page that is wider, with the elements that make it so; the exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

WIDTH = 390
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HARNESS = """<!doctype html><meta charset="utf-8"><body style="margin:0"><script>
const pages = PAGES, found = [];
const inside = (element, page) => {  // something around it scrolls or cuts by itself
  for (let e = element.parentElement; e && e !== page.body; e = e.parentElement) {
    if (getComputedStyle(e).overflowX !== "visible") return true;
  }
  return false;
};
const measure = (name) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.style.cssText = "width:WIDTHpx;height:800px;border:0";
  frame.onload = () => {
    const page = frame.contentDocument, width = page.documentElement.scrollWidth;
    if (width > WIDTH) {
      const wide = [...page.body.querySelectorAll("*")].filter(
        (e) => e.getBoundingClientRect().right > WIDTH + 1 && !inside(e, page));
      const names = wide.slice(0, 4).map((e) => `${e.tagName.toLowerCase()}.${e.className}: ${e.textContent.slice(0, 50)}`);
      found.push({page: name, width: width, because: names});
    }
    frame.remove();
    done();
  };
  frame.src = name;
  document.body.append(frame);
});
(async () => {
  for (const name of pages) await measure(name);
  document.body.innerHTML = "";
  const out = document.createElement("pre");
  out.id = "measured";
  out.textContent = JSON.stringify({pages: pages.length, wide: found});
  document.body.append(out);
})();
</script></body>"""


def browser() -> str | None:
    """The first Chromium on the path."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the pages and the harness without a log."""

    harness = b""

    def do_GET(self) -> None:
        """The harness under its name, files otherwise."""
        if self.path != "/measure-all-pages":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.harness)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def measure(folder: Path, width: int = WIDTH, timeout: float = 240) -> dict:
    """`pages`, how many were measured, and `wide`: name, width and elements of those wider than `width`."""
    chromium = browser()
    if chromium is None:
        msg = "Measuring pages needs Chromium on the path; on Debian: apt-get install chromium"
        raise FileNotFoundError(msg)
    pages = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.html") if "_static" not in path.parts
    )
    harness = HARNESS.replace("PAGES", json.dumps(pages)).replace("WIDTH", str(width))
    handler = type("Handler", (Quiet,), {"harness": harness.encode()})
    with (
        http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=folder)
        ) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--window-size=900,900",
        ]
        flags += ["--virtual-time-budget=3000000", "--dump-dom"]
        address = f"http://127.0.0.1:{server.server_port}/measure-all-pages"
        ran = subprocess.run(
            [chromium, *flags, address], capture_output=True, text=True, timeout=timeout, check=True
        )
        server.shutdown()
    measured = re.search(r'<pre id="measured">(.*?)</pre>', ran.stdout, re.DOTALL)
    if measured is None:
        msg = f"Chromium did not finish measuring {len(pages)} pages: {ran.stdout[-300:]} {ran.stderr[-300:]}"
        raise RuntimeError(msg)
    return json.loads(html.unescape(measured.group(1)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    found = measure(parser.parse_args().folder)
    for page in found["wide"]:
        print(f"{page['page']}: {page['width']} pixels")
        for name in page["because"]:
            print(f"    {name}")
    print(f"{len(found['wide'])} of {found['pages']} pages scroll sideways at {WIDTH} pixels")
    return bool(found["wide"])


if __name__ == "__main__":
    sys.exit(main())
