"""Times a linear map, 64 x 2048 with 2048 x 8192, on WebGPU in Chromium: the page's kernels and onnxruntime-web's, in turns.

    npm pack onnxruntime-web && tar xzf onnxruntime-web-*.tgz   # leaves package/
    pip install playwright onnx
    python tests/benches/linear_web.py package

after `cargo xtask build`, from the workspace's folder; `chromium` is the system's.
"""

import http.server
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import sync_playwright

ROWS, INPUTS, OUTPUTS = 64, 2048, 8192
ROUNDS, TIMES = 2, 4
SERVER = 8097
FLAGS = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
PAGE = """<script type="module">
import * as ort from "./dist/ort.webgpu.min.mjs";
ort.env.wasm.numThreads = 1;
window.run = async (times) => {
  window.session ??= await ort.InferenceSession.create("model.onnx", { executionProviders: ["webgpu"] });
  const x = new ort.Tensor("float32", Float32Array.from({ length: %d }, (_, i) => Math.sin(i * 0.7)), [%d, %d]);
  const seconds = [];
  for (let i = 0; i < times; i++) {
    const begin = performance.now();
    await (await session.run({ x })).y.getData();
    seconds.push((performance.now() - begin) / 1000);
  }
  return seconds;
};
</script>""" % (ROWS * INPUTS, ROWS, INPUTS)
ASK = """async (body) => (await kosmosg.ask("gpu", JSON.stringify({ measure: body }), [])).json"""


def model(path):
    weight = numpy.sin(numpy.arange(INPUTS * OUTPUTS) * 0.37).astype(numpy.float32).reshape(INPUTS, OUTPUTS)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [ROWS, d]) for n, d in (("x", INPUTS), ("y", OUTPUTS))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "linear", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    onnx.save(made, path)


def serve(folder):
    handler = lambda *request: http.server.SimpleHTTPRequestHandler(*request, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main(package):
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "dist").symlink_to(pathlib.Path(package).resolve() / "dist")
    (folder / "index.html").write_text(PAGE)
    model(str(folder / "model.onnx"))
    port = serve(folder)
    ours = ["dist/kosmosg-server", "--listen", f"127.0.0.1:{SERVER}", "--models", "models", "--page", "dist/page", "--store", "memory"]
    server = subprocess.Popen(ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(2)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            page, other = browser.new_page(), browser.new_page()
            page.goto(f"http://127.0.0.1:{SERVER}/?where=gpu")
            page.wait_for_selector('#app[data-state="ready"]', timeout=300_000)
            other.goto(f"http://127.0.0.1:{port}/")
            other.wait_for_function("window.run !== undefined")

            def measure(packing):
                body = {"rows": ROWS, "size": [INPUTS, OUTPUTS], "packing": packing, "times": TIMES}
                return json.loads(page.evaluate(ASK, body))["measured"]["seconds"]

            runs = {f"page, {packing}": (lambda packing=packing: measure(packing)) for packing in ("q8_0", "q4_0", "f32")}
            runs["onnxruntime-web, f32"] = lambda: other.evaluate("run(%d)" % TIMES)
            seconds = {name: [] for name in runs}
            for _ in range(ROUNDS):
                for name, run in runs.items():
                    # The first one compiles.
                    seconds[name] += run()[1:]
            for name, taken in seconds.items():
                median = statistics.median(taken)
                print(f"{name:24} {median:6.3f} s {2 * ROWS * INPUTS * OUTPUTS / median / 1e9:6.2f} GFLOP/s")
            browser.close()
    finally:
        server.terminate()


main(sys.argv[1])
