"""How many films a second landmark-train trains, as a multiple of PyTorch: the same model, loss and optimiser, the same
batches' size, machine and threads, taken in turns.

    cargo build --release --features torch --bin landmark-train
    pip install torch==2.11.0 numpy
    python tests/bench/pytorch_steps.py [--size 512] [--batch 4] [--threads 2] [--rounds 5] [--program PATH] [--json]
        [--data FILMS --layout isbi]     films to load and augment; without, films of noise

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
        self.phases = []
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
        marks = [self.now()]
        self.optimiser.zero_grad(set_to_none=True)
        model = nfdp_torch.Nfdp(self.weights, train=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device == "cuda"):
            coordinates, sigma = model(self.gray)
        loss = nfdp_torch.loss(self.weights, coordinates.float(), sigma.float(), self.truth, self.visibility)
        marks.append(self.now())
        loss.backward()
        marks.append(self.now())
        self.optimiser.step()
        marks.append(self.now())
        self.phases.append([1e3 * (end - start) for start, end in zip(marks, marks[1:])])

    def films_per_s(self, steps):
        for _ in range(WARM_UP):
            self.step()
        self.phases.clear()
        start = self.now()
        for _ in range(steps):
            self.step()
        return steps * len(self.gray) / (self.now() - start)

    def now(self):
        """The time at which all that was asked for is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def split(self):
        """Milliseconds a step of the last round, named as by `landmark-train bench`."""
        names = ["forward_ms_per_step", "backward_ms_per_step", "update_ms_per_step"]
        return dict(zip(names, map(statistics.mean, zip(*self.phases))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", default="target/release/landmark-train")
    parser.add_argument("--data", help="films for landmark-train to load and augment, instead of noise")
    parser.add_argument("--layout", default="isbi")
    parser.add_argument("--labels")
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
    for name in ["data", "layout", "labels"]:
        if options.data and getattr(options, name):
            command += [f"--{name}", getattr(options, name)]
    splits = {}
    speeds = {"landmark-train": [], **{name: [] for name in peers}}
    for _ in range(options.rounds):
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{run.stderr}")
        splits["landmark-train"] = json.loads(run.stdout)
        speeds["landmark-train"].append(splits["landmark-train"]["films_per_s"])
        for name, peer in peers.items():
            speeds[name].append(peer.films_per_s(options.steps))
            splits[name] = peer.split()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratios = {name: medians["landmark-train"] / medians[name] for name in peers}
    if options.json:
        print(json.dumps({"films_per_s": medians, "ratio": ratios, "split": splits, "device": device}))
        return
    phases = ["load_ms_per_film", "augment_ms_per_film", "wait_ms_per_step", "forward_ms_per_step",
              "backward_ms_per_step", "update_ms_per_step"]
    print(f"{'':24}{'films/s':>9}" + "".join(f"{phase.split('_')[0]:>10}" for phase in phases))
    for name, value in medians.items():
        cells = [splits[name].get(phase) for phase in phases]
        print(f"{name:24}{value:9.2f}" + "".join(f"{'-' if ms is None else f'{ms:.1f}':>10}" for ms in cells))
    print("milliseconds of the last round: load and augment a film, beside the engine; the others a step")
    for name, ratio in ratios.items():
        print(f"landmark-train is {ratio:.2f} times as fast as {name}")


if __name__ == "__main__":
    main()
