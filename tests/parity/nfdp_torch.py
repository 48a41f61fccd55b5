"""The NFDP in plain PyTorch, and from it the golden figures of the parity tests: `python nfdp_torch.py` rewrites
nfdp_golden.json beside it (a minute on one core; needs torch and numpy).

Huang et al., IEEE TMI 43(7):2679-2692, 2024 (heatmap NFDP), over RLE, Li et al., ICCV 2021. Weights, frames and truth are
pseudo-random by name, see pseudo.py: whoever implements the generator can repeat every figure.

nfdp_golden.json
    frame            {width, height} in pixels; the frames are pseudo.frame(0), pseudo.frame(1), as gray / 255 - 0.5
    landmarks        K
    truth            [batch, K, 2]: normalised coordinates, f32 values; visibility: [batch, K] of 0 and 1
    variants         eval coordinates and sigma of the models that are not the paper's default: `top_down` (coarse laterals
                     doubled bilinearly and added), `temperature` (logits / 20), `no_relu` (also / 20), `regression`; and of the
                     last, trained without a flow, `absolute_error`: its loss and gradients
    eval, train      BatchNorm with running or with batch statistics: coordinates and sigma, each [batch, K, 2],
                     normalised, computed in f64
    loss             of the train-mode forward: f64 and f32 (the same computed in that type)
    gradients        of that loss in f64, by weight name: first (first 8 values, row-major), norm (L2 of the whole), and
                     probe = sum_i v("probe." + name, i) * gradient_i with v of pseudo.py
    running          BatchNorm statistics after that one train-mode forward (momentum 0.1): first 8 values
    flow             points [n, 2] and log_phi [n], f64
    parameters       learned numbers of the published models, counted from the shapes here
"""

import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

import pseudo

WIDTH, HEIGHT, LANDMARKS, BATCH = 96, 128, 19, 2
CHANNELS = [64, 128, 256, 512]
SIGMA_FLOOR = 1e-4
GRADIENTS = [
    "backbone.conv1.weight", "backbone.bn1.weight", "backbone.layer2.0.downsample.0.weight",
    "backbone.layer4.1.conv2.weight", "neck.0.lateral.weight", "neck.3.smooth_bn.bias", "head.2.1.conv.weight",
    "head.output.weight", "head.output_bn.weight", "sigma.weight", "sigma.bias", "flow.0.scale.0.weight",
    "flow.3.scale.2.bias", "flow.5.shift.1.weight",
]  # fmt: skip


def shapes(landmarks):
    """Names and shapes of the heatmap model and its flow, BatchNorm statistics included."""
    out = {}

    def conv(name, norm, outputs, inputs, side):
        out[f"{name}.weight"] = (outputs, inputs, side, side)
        for part in ("weight", "bias", "running_mean", "running_var"):
            out[f"{norm}.{part}"] = (outputs,)

    conv("backbone.conv1", "backbone.bn1", 64, 3, 7)
    inputs = 64
    for level, outputs in enumerate(CHANNELS, 1):
        for block in range(2):
            p = f"backbone.layer{level}.{block}"
            conv(f"{p}.conv1", f"{p}.bn1", outputs, inputs, 3)
            conv(f"{p}.conv2", f"{p}.bn2", outputs, outputs, 3)
            if inputs != outputs:
                conv(f"{p}.downsample.0", f"{p}.downsample.1", outputs, inputs, 1)
            inputs = outputs
    for level, inputs in enumerate(CHANNELS):
        conv(f"neck.{level}.lateral", f"neck.{level}.lateral_bn", 64, inputs, 1)
        conv(f"neck.{level}.smooth", f"neck.{level}.smooth_bn", 64, 64, 3)
        for step in range(max(level, 1)):
            conv(f"head.{level}.{step}.conv", f"head.{level}.{step}.bn", 128, 128 if step else 64, 3)
    conv("head.output", "head.output_bn", landmarks, 128, 1)
    out["sigma.weight"], out["sigma.bias"] = (2 * landmarks, 512), (2 * landmarks,)
    for coupling in range(6):
        for net in ("scale", "shift"):
            for layer, (inputs, outputs) in enumerate([(2, 64), (64, 64), (64, 2)]):
                out[f"flow.{coupling}.{net}.{layer}.weight"] = (outputs, inputs)
                out[f"flow.{coupling}.{net}.{layer}.bias"] = (outputs,)
    return out


def parameters(landmarks, prefixes):
    names = shapes(landmarks)
    return sum(math.prod(names[n]) for n in names if n.startswith(prefixes) and "running" not in n)


class Nfdp:
    """The forward pass over a dictionary of weights; in train mode it updates the running statistics there."""

    def __init__(self, weights, train, top_down=False, temperature=1.0, relu=True, regression=False):
        self.w, self.train = weights, train
        self.top_down, self.temperature, self.relu, self.regression = top_down, temperature, relu, regression

    def conv(self, x, name, norm, stride=1):
        w = self.w[f"{name}.weight"]
        x = F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)
        mean, variance, gain, offset = (
            self.w[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gain, offset, self.train, 0.1, 1e-5)

    def block(self, x, p, stride):
        y = F.relu(self.conv(x, f"{p}.conv1", f"{p}.bn1", stride))
        y = self.conv(y, f"{p}.conv2", f"{p}.bn2")
        if stride == 2:
            x = self.conv(x, f"{p}.downsample.0", f"{p}.downsample.1", 2)
        return F.relu(x + y)

    def __call__(self, gray):
        x = gray.expand(-1, 3, -1, -1)
        x = F.relu(self.conv(x, "backbone.conv1", "backbone.bn1", 2))
        x = F.max_pool2d(x, 3, 2, 1)
        features = []
        for level in range(4):
            for block in range(2):
                x = self.block(x, f"backbone.layer{level + 1}.{block}", 2 if level and not block else 1)
            features.append(x)
        pooled = x.mean((2, 3))
        linear = F.linear(pooled, self.w["sigma.weight"], self.w["sigma.bias"])
        sigma = linear.sigmoid().view(len(gray), -1, 2)
        if self.regression:
            linear = F.linear(pooled, self.w["coordinates.weight"]) / pooled.norm(dim=1, keepdim=True)
            return (linear + self.w["coordinates.bias"]).view(len(gray), -1, 2), sigma
        laterals = [F.relu(self.conv(x, f"neck.{i}.lateral", f"neck.{i}.lateral_bn")) for i, x in enumerate(features)]
        for level in (2, 1, 0) if self.top_down else ():
            laterals[level] = laterals[level] + self.double(laterals[level + 1])
        total = 0
        for level, y in enumerate(laterals):
            y = F.relu(self.conv(y, f"neck.{level}.smooth", f"neck.{level}.smooth_bn"))
            for step in range(max(level, 1)):
                y = F.relu(self.conv(y, f"head.{level}.{step}.conv", f"head.{level}.{step}.bn"))
                if level:
                    y = self.double(y)
            total = total + y
        heatmaps = self.conv(total, "head.output", "head.output_bn")
        heatmaps = (F.relu(heatmaps) if self.relu else heatmaps) / self.temperature
        n, k, h, w = heatmaps.shape
        p = heatmaps.flatten(2).softmax(2).view(n, k, h, w)
        columns = torch.arange(w, dtype=p.dtype, device=p.device)
        rows = torch.arange(h, dtype=p.dtype, device=p.device)
        coordinates = torch.stack([(p.sum(2) * columns).sum(2) / w - 0.5, (p.sum(3) * rows).sum(2) / h - 0.5], 2)
        return coordinates, sigma

    @staticmethod
    def double(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def log_phi(weights, x):
    """Log density of the flow at the rows of x."""

    def net(coupling, name, z):
        for layer in range(3):
            p = f"flow.{coupling}.{name}.{layer}"
            z = F.linear(z, weights[f"{p}.weight"], weights[f"{p}.bias"])
            z = F.leaky_relu(z, 0.01) if layer < 2 else z
        return z

    z, logdet = x, torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for coupling in reversed(range(6)):
        mask = torch.tensor([0.0, 1.0] if coupling % 2 == 0 else [1.0, 0.0], dtype=x.dtype, device=x.device)
        kept = mask * z
        s = net(coupling, "scale", kept).tanh() * (1 - mask)
        t = net(coupling, "shift", kept) * (1 - mask)
        z = (1 - mask) * (z - t) * torch.exp(-s) + kept
        logdet = logdet - s.sum(1)
    return -0.5 * (z**2).sum(1) - math.log(2 * math.pi) + logdet


def loss(weights, coordinates, sigma, truth, visibility):
    seen = visibility > 0
    e = (coordinates - truth)[seen]
    sigma = sigma.clamp(min=SIGMA_FLOOR)[seen]
    per_axis = 2 * sigma.log() + 0.5 * math.log(2 * math.pi) + e.abs() / (math.sqrt(2) * sigma + 1e-9)
    terms = -2 * log_phi(weights, e / sigma) + per_axis.sum(1)
    return (visibility[seen] * terms).sum() / len(coordinates)


def rounded(t):
    return [float(f"{v:.12g}") for v in t.detach().double().flatten().tolist()]


def nested(t):
    return np.array(rounded(t)).reshape(t.shape).tolist()


def run(dtype):
    arrays = {name: pseudo.tensor(name, shape) for name, shape in shapes(LANDMARKS).items()}
    frames = np.stack([pseudo.frame(i, WIDTH, HEIGHT) for i in range(BATCH)])[:, None]
    x = torch.tensor(frames).to(dtype) / 255 - 0.5
    truth = np.float32(0.3 * pseudo.signed("truth", BATCH * LANDMARKS * 2)).reshape(BATCH, LANDMARKS, 2)
    visibility = np.array([0.0 if i % 7 == 3 else 1.0 for i in range(BATCH * LANDMARKS)]).reshape(BATCH, LANDMARKS)
    weights = {n: torch.tensor(a).to(dtype) for n, a in arrays.items()}
    result = {}
    for mode in ("eval", "train"):
        for name, w in weights.items():
            w.requires_grad_("running" not in name)
        coordinates, sigma = Nfdp(weights, mode == "train")(x)
        result[mode] = {"coordinates": nested(coordinates), "sigma": nested(sigma)}
    value = loss(weights, coordinates, sigma, torch.tensor(truth).to(dtype), torch.tensor(visibility).to(dtype))
    value.backward()
    result["loss"] = value.item()
    result["gradients"] = {}
    for name in GRADIENTS:
        g = weights[name].grad.double().flatten()
        probe = torch.tensor(pseudo.signed(f"probe.{name}", len(g)))
        figures = {"first": rounded(g[:8]), "norm": rounded(g.norm())[0], "probe": rounded((g * probe).sum())[0]}
        result["gradients"][name] = figures
    names = ["backbone.bn1.running_mean", "backbone.bn1.running_var", "head.1.0.bn.running_var"]
    result["running"] = {name: rounded(weights[name][:8]) for name in names}
    points = [[0, 0], [1, 0], [0, 1], [-1.5, 0.5], [3, -4], [0.01, -0.02], [-8, 12]]
    density = log_phi(weights, torch.tensor(points, dtype=dtype))
    result["flow"] = {"points": points, "log_phi": rounded(density)}
    return truth, visibility, result


VARIANTS = {
    "top_down": {"top_down": True}, "temperature": {"temperature": 20.0},
    "no_relu": {"relu": False, "temperature": 20.0},
    "regression": {"regression": True},
}  # fmt: skip


def variants(truth, visibility):
    """In f64."""
    names = {**shapes(LANDMARKS), "coordinates.weight": (2 * LANDMARKS, 512), "coordinates.bias": (2 * LANDMARKS,)}
    frames = np.stack([pseudo.frame(i, WIDTH, HEIGHT) for i in range(BATCH)])[:, None]
    x = torch.tensor(frames).double() / 255 - 0.5
    result = {}
    for name, options in VARIANTS.items():
        weights = {n: torch.tensor(pseudo.tensor(n, shape)).double() for n, shape in names.items()}
        coordinates, sigma = Nfdp(weights, False, **options)(x)
        result[name] = {"coordinates": nested(coordinates), "sigma": nested(sigma)}
    for n, w in weights.items():
        w.requires_grad_("running" not in n)
    coordinates, _ = Nfdp(weights, True, regression=True)(x)
    truth, visibility = torch.tensor(truth).double(), torch.tensor(visibility).double()
    value = ((coordinates - truth).abs().sum(2) * visibility).sum() / BATCH
    value.backward()
    figures = {}
    for n in ("coordinates.weight", "coordinates.bias", "backbone.layer4.1.conv2.weight"):
        g = weights[n].grad.flatten()
        probe = torch.tensor(pseudo.signed(f"probe.{n}", len(g)))
        figures[n] = {"first": rounded(g[:8]), "norm": rounded(g.norm())[0], "probe": rounded((g * probe).sum())[0]}
    result["absolute_error"] = {"loss": value.item(), "gradients": figures}
    return result


def main():
    trunk = ("backbone", "neck", "head", "sigma")
    counts = {
        "ceph19": parameters(19, trunk),
        "hand37": parameters(37, trunk),
        "spine68": parameters(68, trunk),
        "flow": parameters(19, "flow"),
        # Global average pool, then one linear layer for the coordinates and one for sigma.
        "spine68_regression": parameters(68, "backbone") + 2 * (512 * 2 * 68 + 2 * 68),
    }
    published = {
        "ceph19": 12_147_468, "hand37": 12_168_276, "spine68": 12_204_112, "flow": 53_784,
        "spine68_regression": 11_316_048,
    }  # fmt: skip
    assert counts == published, counts
    truth, visibility, double = run(torch.float64)
    _, _, single = run(torch.float32)
    worst = np.abs(np.array(double["eval"]["coordinates"]) - np.array(single["eval"]["coordinates"])).max() * HEIGHT
    golden = {
        "frame": {"width": WIDTH, "height": HEIGHT},
        "landmarks": LANDMARKS,
        "truth": [[[float(f"{v:.9g}") for v in point] for point in film] for film in truth],
        "visibility": visibility.astype(int).tolist(),
        "eval": double["eval"],
        "train": double["train"],
        "loss": {"f64": double["loss"], "f32": single["loss"]},
        "gradients": double["gradients"],
        "running": double["running"],
        "flow": double["flow"],
        "variants": variants(truth, visibility),
        "parameters": counts,
    }
    path = pathlib.Path(__file__).with_name("nfdp_golden.json")
    path.write_text(json.dumps(golden) + "\n")
    print(f"{path.name}: loss {double['loss']:.6f} (f32 {single['loss']:.6f}), f32 eval within {worst:.6f} px of f64")


if __name__ == "__main__":
    main()
