"""Is this ONNX sound, and does ONNX Runtime find with it what it should?

    python check_onnx.py target/tmp/nfdp-f32.onnx ..   the files `cargo test --features train --test parity` leaves there,
                                                       against nfdp_golden.json
    python check_onnx.py models/ceph19-nfdp ..         bundles, against their manifests' expected points on the golden film

One line a target; exit code 1 if any fails. Needs onnx, onnxruntime, numpy and, for bundles, pillow.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

TOLERANCE_PX = 0.05  # of the frame


def session(network):
    model = onnx.load_model_from_string(network)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"]).run
    return lambda gray: run(["coordinates", "sigma"], {"frame": np.float32(gray)[None, None] / 255 - np.float32(0.5)})


def check_against_golden(path):
    import pseudo

    golden = json.loads(pathlib.Path(__file__).with_name("nfdp_golden.json").read_text())
    width, height = golden["frame"]["width"], golden["frame"]["height"]
    infer = session(path.read_bytes())
    worst = 0.0
    for index in range(2):
        found = infer(pseudo.frame(index, width, height))
        for values, kind in zip(found, ("coordinates", "sigma")):
            off = (values[0] - np.array(golden["eval"][kind][index])) * [width, height]
            worst = max(worst, np.hypot(*off.T).max())
    return worst


def nfdp_frame(gray, width, height, enlargement):
    """The network's 8-bit input of a film, as src/radiograph/frame.rs makes it, and the frame's scale and shift."""
    rows, columns = gray.shape
    scale = width / (max(columns, rows * width / height) * enlargement)
    factor = int(np.clip(np.floor(1 / scale / 1.5 + 0.5), 1, min(rows, columns)))
    padded = np.full((-(-rows // factor) * factor, -(-columns // factor) * factor), np.nan)
    padded[:rows, :columns] = gray.astype(np.float64) * 257
    blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor)
    film = np.floor(np.nanmean(blocks, axis=(1, 3)) + 0.5)
    shift = np.array([width / 2 - scale * columns / 2, height / 2 - scale * rows / 2])
    at = [((np.arange(n) - t) / scale - (factor - 1) / 2) / factor for n, t in zip((width, height), shift)]
    bordered = np.pad(film, 1)

    def taps(positions, extent):
        positions = np.clip(positions, -1, extent) + 1
        first = np.minimum(np.floor(positions).astype(int), extent)
        return first, positions - first

    (i, fx), (j, fy) = taps(at[0], film.shape[1]), taps(at[1], film.shape[0])
    line = lambda r: bordered[r][:, i] * (1 - fx) + bordered[r][:, i + 1] * fx
    sampled = line(j) * (1 - fy)[:, None] + line(j + 1) * fy[:, None]
    return np.floor(sampled / 257 + 0.5).astype(np.uint8), scale, shift


def check_bundle(directory):
    from PIL import Image

    manifest = json.loads((directory / "manifest.json").read_text())
    network = (directory / manifest["network"]["file"]).read_bytes()
    golden = directory / manifest["golden"]["file"]
    for data, entry in ((network, manifest["network"]), (golden.read_bytes(), manifest["golden"])):
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], f"{entry['file']} is not the manifest's"
    stated = manifest["network"]["frame"]
    width, height, enlargement = stated["width"], stated["height"], stated.get("enlargement", 1.25)
    frame, scale, shift = nfdp_frame(np.array(Image.open(golden).convert("L")), width, height, enlargement)
    coordinates, _ = session(network)(frame)
    expected = np.array([[p["x"], p["y"]] for p in manifest["golden"]["expected_px"]]) * scale + shift
    return np.hypot(*((coordinates[0] + 0.5) * [width, height] - expected).T).max()


def main(targets):
    failed = not targets
    for target in map(pathlib.Path, targets):
        worst = check_bundle(target) if target.is_dir() else check_against_golden(target)
        passed = worst < TOLERANCE_PX
        failed |= not passed
        size = sum(f.stat().st_size for f in ([target] if target.is_file() else target.glob("*.onnx")))
        print(
            f"{'ok' if passed else 'FAILED'}: {target.name} ({size / 1e6:.1f} MB): onnx checker passes, "
            f"ONNX Runtime {onnxruntime.__version__} within {worst:.4f} px of the frame"
        )
    if not targets:
        print(__doc__)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
