"""Take pictures of the site in headless Chromium, as wide as a desk and as a pocket.

python release/screenshots.py FOLDER                     eight pages
python release/screenshots.py FOLDER maths/ api/codes/   these
python release/screenshots.py FOLDER --dark              by night
"""

import argparse
import functools
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "",
    "how-to-choose/",
    "maths/",
    "api/solving/",
    "adapters/",
    "gpu/",
    "gradients/",
    "coming/",
)
# width and height in pixels
WINDOWS = ((1280, 2400), (390, 2400))


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Build the site, serve it to this machine alone, and take the pictures."""
    parser = argparse.ArgumentParser(description="Take pictures of the site.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", nargs="*", default=PAGES)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("needs chromium or google-chrome")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--blink-settings=preferredColorScheme={0 if options.dark else 1}"]
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as site:
        build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site]
        subprocess.run(build, cwd=ROOT, check=True)
        handler = functools.partial(Quiet, directory=site)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for page in options.pages:
                for window in WINDOWS:
                    _picture(command, server.server_port, page, window, options.folder)
            server.shutdown()


def _picture(
    browser: list[str], port: int, page: str, window: tuple[int, int], folder: Path
) -> None:
    """Write one picture."""
    width, height = window
    name = page.strip("/").replace("/", "-") or "index"
    out = folder / f"{name}-{width}.png"
    command = [*browser, "--virtual-time-budget=4000", f"--window-size={width},{height}"]
    command += [f"--screenshot={out}", f"http://127.0.0.1:{port}/{page}"]
    subprocess.run(command, check=True, capture_output=True)
    print(out)


if __name__ == "__main__":
    main()
