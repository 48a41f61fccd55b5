#!/usr/bin/env bash
# Builds landmarkd for the Jetson on any x86 Linux.
#
#   cross/build.sh [--glibc 2.31|2.35] [--arch arm64|amd64] [--features LIST] [--tensorrt-include DIR | --no-tensorrt]
#
#   --glibc             the oldest glibc that it must run on: 2.31 (default; JetPack 5, 6 and 7) or 2.35 (6 and 7)
#   --arch              arm64 (default), or amd64: the same for a PC
#   --features          cargo features, separated by commas
#   --tensorrt-include  the folder of TensorRT's headers (NvInfer.h) in the place of those of 10.16 that are fetched; so
#                       does TENSORRT_INCLUDE_DIR
#   --no-tensorrt       without the feature tensorrt: the network runs on the processor alone
#
# The last line on standard output is the path of the program; everything else goes to standard error. Fails when the
# program needs a newer glibc than promised.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

options "$@"
need cargo cargo rustup rustup cmake cmake objdump binutils
standard_library "$target"
zig
directory=$(target_directory)
# Objects of C know for which glibc they were compiled, and cargo does not look.
[ "$glibc" = 2.31 ] || directory=$directory/glibc-$glibc

say "building landmarkd for $target, glibc $glibc ${features[*]}"
cargo-zigbuild build --locked --release --bin landmarkd --target "$target.$glibc" --target-dir "$directory" \
  "${features[@]}" --manifest-path "$repository/Cargo.toml" >&2
program=$directory/$target/release/landmarkd
"$repository/cross/floor.sh" "$program" "$glibc" >&2
echo "$program"
