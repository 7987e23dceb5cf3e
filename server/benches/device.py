"""What a server computes on, in one call: whether it draws what the CPU draws, and how long a step takes of so many pictures
together, beside diffusers' U-Net of the same sizes, eager and compiled.

    pip install torch diffusers pillow
    python server/benches/device.py dist/kosmosg-server-cuda models/kosmos-g --device cuda

The model's weights may be random; docs/published.md tells how such a one is made. `--device cpu` measures the CPU.
"""

import argparse
import base64
import io
import json
import math
import re
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

PARITY_STEPS = 10
WARM_UP = 3
ROUNDS = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="kosmosg-server, or kosmosg-server-cuda")
    parser.add_argument("bundle", type=Path, help="folder of the model")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--together", type=int, nargs="+", default=[1, 2, 4, 8], help="pictures in one evaluation")
    parser.add_argument("--steps", type=int, default=30, help="steps of each picture that is timed")
    parser.add_argument("--skip", nargs="*", default=[], choices=["parity", "compiled"], help="what takes too long")
    arguments = parser.parse_args()
    serve = lambda device: server(arguments.program, arguments.bundle, device, max(arguments.together))
    if "parity" not in arguments.skip:
        with serve("cpu") as address:
            expected = [picture(address, seed, PARITY_STEPS) for seed in range(2)]
    with serve(arguments.device) as address:
        if "parity" not in arguments.skip:
            for seed, pixels in enumerate(expected):
                print(f"seed {seed}: {psnr(picture(address, seed, PARITY_STEPS), pixels):.1f} dB from the CPU's picture")
        picture(address, 0, WARM_UP)
        ours = [rate(address, jobs, arguments.steps) for jobs in arguments.together]
    networks = json.loads((arguments.bundle / "bundle.json").read_text())["networks"]
    theirs = diffusers(networks, arguments.device, arguments.together, "compiled" not in arguments.skip)
    print(f"\nSteps of a picture in a second, with guidance; PyTorch {torch.__version__}\n")
    print("| pictures together | ours (together on average) | " + " | ".join(theirs) + " |")
    print("|--:|--:|" + "--:|" * len(theirs))
    for i, (jobs, (speed, average)) in enumerate(zip(arguments.together, ours)):
        rivals = " | ".join(f"{speeds[i]:.2f}" for speeds in theirs.values())
        print(f"| {jobs} | {speed:.2f} ({average:.1f}) | {rivals} |")


@contextmanager
def server(program, bundle, device, together):
    """The address of a server that runs meanwhile."""
    page = Path(program).parent / "page"
    flags = ["--listen", "127.0.0.1:0", "--store", "memory", "--models", bundle, "--page", page, "--device", device]
    process = subprocess.Popen(
        [program, *flags, "--together", str(together)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                # Its log may not fill the pipe.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield found[0]
                return
        raise SystemExit(f"{program} --device {device} ended: {''.join(said)}")
    finally:
        process.terminate()
        process.wait()


def picture(address, seed, steps):
    """Pixels of what the server draws."""
    body = json.dumps({"prompt": "a cat on the beach", "seed": seed, "steps": steps, "sampler_name": "DDIM"}).encode()
    request = urllib.request.Request(f"{address}/sdapi/v1/txt2img", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        encoded = json.load(answer)["images"][0]
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), numpy.float64)


def psnr(a, b):
    """How alike two pictures are, in dB."""
    mse = ((a - b) ** 2).mean()
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def rate(address, jobs, steps):
    """Steps in a second over that many jobs at once, and how many of them took a step together on average."""
    before = metrics(address)
    threads = [threading.Thread(target=picture, args=(address, seed, steps)) for seed in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = metrics(address)
    taken, evaluations, seconds = (after[name] - before[name] for name in METRICS)
    return taken / seconds, taken / evaluations


METRICS = ["kosmosg_step_jobs_sum", "kosmosg_step_jobs_count", "kosmosg_step_seconds_sum"]


def metrics(address):
    """Values of METRICS."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        text = answer.read().decode()
    return {name: float(re.search(rf"^{name} (\S+)", text, re.MULTILINE)[1]) for name in METRICS}


def diffusers(networks, device, together, compiled):
    """Steps in a second of every way, with random weights."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    config, text = networks["unet"], networks["text"]
    unet = UNet2DConditionModel(**config).eval().to(device, dtype)
    ways = {"diffusers": unet}
    if compiled:
        ways["diffusers, compiled"] = torch.compile(unet, mode="max-autotune-no-cudagraphs")
    side, width = config["sample_size"], config["cross_attention_dim"]

    def speed(way, pictures):
        rows = 2 * pictures
        latents = torch.randn(rows, config["in_channels"], side, side).to(device, dtype)
        condition = torch.randn(rows, text["max_position_embeddings"], width).to(device, dtype)
        for i in range(WARM_UP + ROUNDS):
            if i == WARM_UP:
                begin = settled(device)
            way(latents, 500, condition)
        return ROUNDS * pictures / (settled(device) - begin)

    with torch.inference_mode():
        return {name: [speed(way, pictures) for pictures in together] for name, way in ways.items()}


def settled(device):
    """The time at which all that was asked for is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


main()
