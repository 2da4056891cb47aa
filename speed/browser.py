"""An exported ONNX file in a browser: the tokens that Python gets, and how long they take there.

    python -m speed.browser exports/runs_quickstart-onnx-fp32

Chromium without a window runs the file with onnxruntime-web (WebAssembly), which npm fetches.
Needs chromium, chromedriver, npm, and `pip install selenium`.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import openeupe
from openeupe.deployment.parity import Parity, compare
from openeupe.deployment.sample_images import SampleImages
from openeupe.encoders import Tokens
from openeupe.encoders.export_layout import parse_size
from openeupe.errors import InputError

RUNTIME = "onnxruntime-web@1.30.0"
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
_SCRIPT = """
const [shape, unit, threads, rounds, done] = arguments;
(async () => {
  const ort = await import('/ort/ort.wasm.min.mjs');
  ort.env.wasm.wasmPaths = '/ort/';
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create('/model.onnx', {executionProviders: ['wasm']});
  const bytes = new Uint8Array(await (await fetch('/images.bin')).arrayBuffer());
  const pixels = unit === 'uint8' ? bytes : Float32Array.from(bytes, value => value / 255);
  const [count, ...one] = shape, size = one.reduce((a, b) => a * b);
  const said = {cls: [], patches: [], times_ms: [], threads: ort.env.wasm.numThreads};
  for (let i = 0; i < count * rounds; i++) {
    const at = (i % count) * size;
    const images = new ort.Tensor(unit, pixels.slice(at, at + size), [1, ...one]);
    const started = performance.now();
    const tokens = await session.run({images});
    said.times_ms.push(performance.now() - started);
    if (i < count)
      for (const name of ['cls', 'patches']) said[name].push(Array.from(tokens[name].data));
  }
  done(JSON.stringify(said));
})().catch(error => done(JSON.stringify({error: String(error)})));
"""


def in_browser(folder: Path, threads: int = 1, rounds: int = 3) -> tuple[Parity, list[float]]:
    """Run the first file of an ONNX export on images in Chromium.

    Returns its agreement with the same file run by Python, and milliseconds of single images.
    """
    here = openeupe.load(folder)
    about = json.loads((folder / "export.json").read_text())
    if about["target"] != "onnx":
        raise InputError(f"{folder} holds {about['target']} files: browsers run onnx")
    key, name = next(iter(about["files"].items()))
    size = parse_size(key) or (about["encoder"]["resolution"],) * 2
    images = SampleImages(None, calibrate=False).proof(size)
    with tempfile.TemporaryDirectory() as place:
        site = Path(place)
        shutil.copy(folder / name, site / "model.onnx")
        (site / "images.bin").write_bytes(images.numpy().tobytes())
        (site / "index.html").write_text("<!doctype html>")
        npm = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", place, RUNTIME]
        subprocess.run(npm, check=True, stdout=sys.stderr)
        (site / "ort").symlink_to(site / "node_modules" / "onnxruntime-web" / "dist")
        with _served(site) as address, _chromium(site / "profile") as driver:
            driver.get(address)
            arguments = (list(images.shape), about["pixels"], threads, rounds)
            said = json.loads(driver.execute_async_script(_SCRIPT, *arguments))
    if "error" in said:
        raise InputError(f"{folder} does not run in Chromium: {said['error']}")
    shape = (len(images), -1, size[0] // here.patch_size, size[1] // here.patch_size)
    got = Tokens(torch.tensor(said["cls"]), torch.tensor(said["patches"]).view(shape))
    with torch.no_grad():
        expected = here(images.float() / 255)
    # The first image also pays for what is set up at first use.
    return compare(expected, got, about["precision"], size), said["times_ms"][1:]


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        # Browsers give threads that share memory to isolated pages only.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _chromium(profile: Path) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    names = ("chromium", "chromium-browser", "google-chrome")
    options.binary_location = next(filter(None, map(shutil.which, names)), "")
    for flag in (*_FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_script_timeout(600)
    try:
        yield driver
    finally:
        driver.quit()


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="exports --to onnx")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="times that each image is run")
    return parser


def main() -> None:
    arguments = options().parse_args()
    for folder in arguments.folders:
        parity, times = in_browser(folder, arguments.threads, arguments.rounds)
        print(
            f"{folder.name}: {parity.line}; {statistics.median(times):.1f} ms (p50), "
            f"{min(times):.1f} ms (min), {arguments.threads} threads"
        )


if __name__ == "__main__":
    main()
