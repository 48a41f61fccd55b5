#!/bin/sh
# Fetches TensorRT-RTX for the test of the real parser and builder, once: libraries from PyPI to DIR/lib (x86-64, 240 MB),
# their headers out of the Rust package `trtx-sys`, which is not built, to DIR/include.
#
#   tests/support/tensorrt/rtx.sh DIR
#   TENSORRT_INCLUDE_DIR=DIR/include LANDMARKD_TEST_TENSORRT_RTX=DIR/lib cargo test --features tensorrt --test tensorrt
set -eu
to=$1
if [ -e "$to/complete" ]; then exit 0; fi
mkdir -p "$to/lib" "$to/include" "$to/fetched"
cd "$to/fetched"
python3 -m pip download --quiet --no-deps --dest . tensorrt-rtx-cu13-libs==1.7.1.116
sha256sum --check --quiet <<'SUMS'
e3fd45fed001240d63304e77a2d4006319b839994237cb294b6e7ad72acaabcd  tensorrt_rtx_cu13_libs-1.7.1.116-py3-none-manylinux_2_28_x86_64.whl
SUMS
python3 -m zipfile -e tensorrt_rtx_cu13_libs-*.whl wheel
# Cargo knows where packages come from and what they must be; nothing of this one is built.
mkdir -p headers/src
: > headers/src/lib.rs
cat > headers/Cargo.toml <<'MANIFEST'
[package]
name = "headers"
version = "0.0.0"
edition = "2021"
[dependencies]
trtx-sys = "=0.9.1"
[workspace]
MANIFEST
cargo vendor --quiet --manifest-path headers/Cargo.toml vendor > vendored
mv wheel/tensorrt_rtx_libs/*.so.1 ../lib/
mv vendor/trtx-sys*/TensorRT-Headers/TRT-RTX-1.7/*.h ../include/
cd ..
rm -rf fetched
touch complete
