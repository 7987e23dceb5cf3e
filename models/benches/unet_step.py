"""An update of the tiny decoder's denoiser, forward, backward and AdamW in f32 on two threads: PyTorch and diffusers against
`kosmosg train measure`, in turns.

    pip install torch diffusers
    python models/benches/unet_step.py dist/kosmosg models/tiny
"""

import json
import statistics
import subprocess
import sys
import time

import torch
from diffusers import UNet2DConditionModel

ROWS = 32  # batch 8, four draws of noise each: [decoder] of models/configs/tiny.toml
UPDATES = 25
ROUNDS = 5


def pytorch(networks):
    """Milliseconds of an update."""
    unet, text = networks["unet"], networks["text"]
    net = UNet2DConditionModel(**unet)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    side = unet["sample_size"]
    latents = torch.randn(ROWS, unet["in_channels"], side, side)
    timesteps = torch.randint(0, 1000, (ROWS,))
    condition = torch.randn(ROWS, text["max_position_embeddings"], unet["cross_attention_dim"])
    times = []
    for _ in range(UPDATES):
        start = time.perf_counter()
        loss = torch.nn.functional.mse_loss(net(latents, timesteps, condition).sample, latents)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def ours(command):
    out = subprocess.run([command, "train", "measure"], check=True, capture_output=True, text=True).stdout
    return float(out.split()[0])


def main():
    command, bundle = sys.argv[1:]
    torch.set_num_threads(2)
    with open(f"{bundle}/bundle.json") as file:
        networks = json.load(file)["networks"]
    print("| PyTorch, ms | ours, ms | ours / PyTorch, in speed |\n|---|---|---|")
    ratios = []
    for _ in range(ROUNDS):
        theirs, mine = pytorch(networks), ours(command)
        ratios.append(theirs / mine)
        print(f"| {theirs:.1f} | {mine:.1f} | {ratios[-1]:.2f} |", flush=True)
    print(f"median {statistics.median(ratios):.2f}, PyTorch {torch.__version__}")


main()
