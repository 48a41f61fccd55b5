"""Deterministic pseudo-random numbers that Python and Rust make bit for bit alike (twin: tests/support/pseudo_weights.rs).

    seed(name)     = FNV-1a, 64 bits, of the name's UTF-8 bytes
    hash(name, i)  = splitmix64's finalizer of seed(name) + (i + 1) * 0x9E3779B97F4A7C15   (mod 2^64)
    u(name, i)     = (hash >> 40) / 2^24, in [0, 1)
    v(name, i)     = 2 u - 1, in [-1, 1)

A tensor's element i (row-major) is f32(offset + scale * v(name, i)), the sum in f64; offset and scale follow from the name:

    *_bn.weight, *bn?.weight, *.bn.weight, downsample.1.weight   1 and 0.1, but
        *.bn2.weight (residual branches, else the trunk grows)   0.4 and 0.1
        head.output_bn.weight (else the heatmaps are flat)       3 and 0.3
    the same .bias and .running_mean                             0 and 0.1
    the same .running_var                                        1 and 0.25
    sigma.weight; sigma.bias                                     0 and 0.02; -1.5 and 0.5
    flow.*.bias                                                  0 and 0.1
    flow.*.weight                                                0 and sqrt(3 / fan in)
    every other weight (convolutions)                            0 and sqrt(6 / fan in)
"""

import math
import re

import numpy as np

NORM = re.compile(r"(bn\d?|downsample\.1)\.(weight|bias|running_mean|running_var)$")


def hashes(name, count):
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def signed(name, count):
    return (hashes(name, count) >> np.uint64(40)).astype(np.float64) / 2**24 * 2 - 1


def offset_and_scale(name, shape):
    fan_in = math.prod(shape[1:])
    if norm := NORM.search(name):
        part = norm.group(2)
        if part == "weight":
            if name == "head.output_bn.weight":
                return 3.0, 0.3
            return (0.4, 0.1) if name.endswith(".bn2.weight") else (1.0, 0.1)
        return (1.0, 0.25) if part == "running_var" else (0.0, 0.1)
    if name.startswith("sigma."):
        return (0.0, 0.02) if name == "sigma.weight" else (-1.5, 0.5)
    if name.endswith(".bias"):
        return 0.0, 0.1
    return 0.0, math.sqrt((3 if name.startswith("flow.") else 6) / fan_in)


def tensor(name, shape):
    offset, scale = offset_and_scale(name, shape)
    return (offset + scale * signed(name, math.prod(shape))).astype(np.float32).reshape(shape)


def frame(index, width, height):
    """8-bit gray values: blocks of 8 x 8 pixels and, a quarter as strong, pixels."""
    columns = -(-width // 8)
    blocks = (hashes(f"frame.{index}.blocks", columns * -(-height // 8)) >> np.uint64(56)).astype(np.int64)
    blocks = blocks.reshape(-1, columns).repeat(8, 0).repeat(8, 1)[:height, :width]
    pixels = (hashes(f"frame.{index}.pixels", width * height) >> np.uint64(56)).astype(np.int64).reshape(height, width)
    return ((3 * blocks + pixels) // 4).astype(np.uint8)
