"""How long tract takes, as a multiple of ONNX Runtime: same ONNX, same machine, one thread each, taken in turns.

    cargo build --release --example tract_latency
    pip install onnxruntime
    python tests/bench/onnxruntime_ratio.py models/ceph19-nfdp [--rounds 40] [--program PATH] [--json]

The model is a bundle or an ONNX file. Turns alternate, so that a busy machine slows both; medians are compared. On
Linux, pin both to one core for the steadiest figures: `taskset -c 1 python ..`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime

WARM_UP = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--program", default="target/release/examples/tract_latency")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    network = options.model
    if network.is_dir():
        network /= json.loads((network / "manifest.json").read_text())["network"]["file"]
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(network), session_options, providers=["CPUExecutionProvider"])
    _, _, height, width = session.get_inputs()[0].shape
    landmarks = session.get_outputs()[0].shape[1]
    frame = (np.arange(height * width) * 31 % 256).astype(np.float32).reshape(1, 1, height, width) / 255 - 0.5

    command = [options.program, str(network), str(width), str(height), str(landmarks)]
    tract = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    if tract.stdout.readline().strip() != "ready":
        sys.exit(f"{options.program} did not start; build it with `cargo build --release --example tract_latency`")

    def time_tract():
        tract.stdin.write("\n")
        return float(tract.stdout.readline())

    def time_onnxruntime():
        start = time.perf_counter()
        session.run(None, {"frame": frame})
        return (time.perf_counter() - start) * 1e3

    times = {"tract": [], "onnxruntime": []}
    for turn in range(WARM_UP + options.rounds):
        for name, once in (("onnxruntime", time_onnxruntime), ("tract", time_tract)):
            ms = once()
            if turn >= WARM_UP:
                times[name].append(ms)
    tract.stdin.close()
    medians = {name: statistics.median(ms) for name, ms in times.items()}
    ratio = medians["tract"] / medians["onnxruntime"]
    if options.json:
        print(json.dumps({"tract_ms": medians["tract"], "onnxruntime_ms": medians["onnxruntime"], "ratio": ratio}))
    else:
        print(
            f"{network.name} {width}x{height}, {options.rounds} turns: tract {medians['tract']:.1f} ms, "
            f"ONNX Runtime {onnxruntime.__version__} {medians['onnxruntime']:.1f} ms, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
