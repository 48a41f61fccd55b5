"""How many films a second landmark-train trains, as a multiple of PyTorch: the same model, loss and optimiser, the same
batches' size, machine and threads, taken in turns.

    cargo build --release --features torch --bin landmark-train
    pip install torch==2.11.0 numpy
    python tests/bench/pytorch_steps.py [--size 512] [--batch 4] [--threads 2] [--rounds 5] [--program PATH] [--json]

PyTorch is fed ready batches from memory; landmark-train draws, augments and renders its own on a thread beside it, and
keeps its moving average. `channels_last` is PyTorch's faster memory layout, which one asks for by hand. On a GPU both
compute in bfloat16 (PyTorch by autocast).
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "parity"))
import nfdp_torch  # noqa: E402

LANDMARKS = 19
WARM_UP = 2


class Reference:
    """The NFDP with its flow and Adam, in plain PyTorch."""

    def __init__(self, size, batch, channels_last, device):
        torch.manual_seed(0)
        self.device = device
        self.weights = {}
        for name, shape in nfdp_torch.shapes(LANDMARKS).items():
            if name.endswith("running_mean"):
                tensor = torch.zeros(shape)
            elif len(shape) == 1 and "flow" not in name and not name.startswith("sigma"):
                tensor = torch.ones(shape) if not name.endswith("bias") else torch.zeros(shape)
            else:
                tensor = torch.randn(shape) * math.sqrt(2.0 / max(1, math.prod(shape[1:])))
            tensor = tensor.to(device)
            if channels_last and tensor.dim() == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self.weights[name] = tensor
        learnt = [w.requires_grad_() for n, w in self.weights.items() if "running" not in n]
        self.optimiser = torch.optim.Adam(learnt, lr=1e-5)
        gray = torch.rand(batch, 1, size, size, device=device) - 0.5
        self.gray = gray.contiguous(memory_format=torch.channels_last) if channels_last else gray
        self.truth = torch.rand(batch, LANDMARKS, 2, device=device) * 0.8 - 0.4
        self.visibility = torch.ones(batch, LANDMARKS, device=device)

    def step(self):
        self.optimiser.zero_grad(set_to_none=True)
        model = nfdp_torch.Nfdp(self.weights, train=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device == "cuda"):
            coordinates, sigma = model(self.gray)
        loss = nfdp_torch.loss(self.weights, coordinates.float(), sigma.float(), self.truth, self.visibility)
        loss.backward()
        self.optimiser.step()

    def films_per_s(self, steps):
        for _ in range(WARM_UP):
            self.step()
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return steps * len(self.gray) / (time.perf_counter() - start)

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", default="target/release/landmark-train")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peers = {
        "pytorch": Reference(options.size, options.batch, False, device),
        "pytorch channels_last": Reference(options.size, options.batch, True, device),
    }
    command = [options.program, "bench", "--json", "--size", str(options.size), "--batch", str(options.batch)]
    command += ["--steps", str(options.steps), "--threads", str(options.threads)]
    split = None
    speeds = {"landmark-train": [], **{name: [] for name in peers}}
    for _ in range(options.rounds):
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{run.stderr}")
        split = json.loads(run.stdout)
        speeds["landmark-train"].append(split["films_per_s"])
        for name, peer in peers.items():
            speeds[name].append(peer.films_per_s(options.steps))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratios = {name: medians["landmark-train"] / medians[name] for name in peers}
    if options.json:
        print(json.dumps({"films_per_s": medians, "ratio": ratios, "split": split, "device": device}))
        return
    for name, value in medians.items():
        print(f"{name:24}{value:8.2f} films/s")
    for name, ratio in ratios.items():
        print(f"landmark-train is {ratio:.2f} times as fast as {name}")


if __name__ == "__main__":
    main()
