"""A step of Stable Diffusion's U-Net with guidance, and the decoding of a picture, in f32 on two threads: PyTorch and diffusers
against `kosmosg generate`, in turns.

    pip install torch diffusers
    python models/benches/denoise.py dist/kosmosg models/kosmos-g

The model's weights may be random; docs/published.md tells how such a one is made.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

THREADS = 2
STEPS = 2
ROUNDS = 3


class PyTorch:
    """Both networks, with random weights, whose tensors lie in memory as `layout` says."""

    def __init__(self, networks, layout):
        unet, vae, text = networks["unet"], networks["vae"], networks["text"]
        levels = len(vae["block_out_channels"])
        down, up = ["DownEncoderBlock2D"] * levels, ["UpDecoderBlock2D"] * levels
        place = {"memory_format": layout}
        self.unet = UNet2DConditionModel(**unet).eval().to(**place)
        self.vae = AutoencoderKL(down_block_types=down, up_block_types=up, **vae).eval().to(**place)
        side = unet["sample_size"]
        self.latents = torch.randn(2, unet["in_channels"], side, side).to(**place)
        self.condition = torch.randn(2, text["max_position_embeddings"], unet["cross_attention_dim"])
        self.measure(1)

    @torch.inference_mode()
    def measure(self, steps=STEPS):
        """Seconds of each step, and of decoding."""
        step = lambda: self.unet(self.latents, 500, self.condition)
        return [seconds(step) for _ in range(steps)], seconds(lambda: self.vae.decode(self.latents[:1]))


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ours(command, bundle):
    """Seconds of each step, and of decoding."""
    with tempfile.TemporaryDirectory() as folder:
        out = subprocess.run(
            [command, "generate", "--json", "--engine", "candle", "--bundle", bundle, "--prompt", "a cat"]
            + ["--steps", str(STEPS), "--output", f"{folder}/out.png"],
            check=True,
            capture_output=True,
            env=os.environ | {"RAYON_NUM_THREADS": str(THREADS)},
        ).stdout
    picture = json.loads(out)["pictures"][0]
    return picture["step_seconds"], picture["decode_seconds"]


def main():
    command, bundle = sys.argv[1:]
    torch.set_num_threads(THREADS)
    with open(f"{bundle}/bundle.json") as file:
        networks = json.load(file)["networks"]
    rivals = {
        "PyTorch": PyTorch(networks, torch.contiguous_format).measure,
        "PyTorch, channels last": PyTorch(networks, torch.channels_last).measure,
        "ours": lambda: ours(command, bundle),
    }
    steps, decodings = {name: [] for name in rivals}, {name: [] for name in rivals}
    print("| | a step, s | decoding, s |\n|---|--:|--:|")
    for _ in range(ROUNDS):
        for name, measure in rivals.items():
            step, decoding = measure()
            steps[name] += step
            decodings[name].append(decoding)
            each = " ".join(f"{x:.2f}" for x in step)
            print(f"| {name} | {each} | {decoding:.2f} |", flush=True)
    print(f"\nMedians, PyTorch {torch.__version__}:\n\n| | a step, s | decoding, s |\n|---|--:|--:|")
    medians = {name: [statistics.median(times[name]) for times in (steps, decodings)] for name in rivals}
    for name, (step, decoding) in medians.items():
        print(f"| {name} | {step:.2f} | {decoding:.2f} |")
    fastest = [min(times[:-1]) for times in zip(*medians.values())]
    step, decoding = (mine / theirs for mine, theirs in zip(medians["ours"], fastest))
    print(f"| ours / the faster PyTorch | {step:.2f} | {decoding:.2f} |")


main()
