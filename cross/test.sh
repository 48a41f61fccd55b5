#!/usr/bin/env bash
# Runs the ARM build on this x86 machine: the library's unit tests, and the golden film through `landmarkd predict`.
#
#   cross/test.sh [--glibc ..] [--features ..] [--tensorrt-include ..]      as for build.sh
#
# Every landmark of the film must lie within 0.05 px of where this machine's own build finds it. The programs run in
# qemu-user as on Orin's core, on the C library of Debian 11, the oldest that is promised. What this shows and what it
# cannot show stands in README.md.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

limit_px=0.05
bundle=$repository/models/ceph19-nfdp

options "$@"
[ "$architecture" = arm64 ] || die "--arch $architecture: only arm64 is emulated"
need cargo cargo python3 python3
[ "$(uname -m)" = x86_64 ] || die "for an x86 machine; on $(uname -m) cargo test does it"
emulator
arm_library
program=$("$repository/cross/build.sh" "$@" | tail -1)
export QEMU_CPU=$qemu_cpu QEMU_LD_PREFIX=$arm_root
say "$("$qemu" --version | head -1), $qemu_cpu, glibc 2.31"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The gate shuts: ARM's glibc begins with 2.17, and this program needs more.
newest=$("$repository/cross/floor.sh" "$program")
if "$repository/cross/floor.sh" "$program" 2.17 2> "$scratch/refused"; then die "the floor gate lets GLIBC_$newest pass as 2.17"; fi
grep -q "(GLIBC_$newest)" "$scratch/refused" || die "the floor gate does not name what is too new: $(cat "$scratch/refused")"

say "the golden film, on ARM"
start=$SECONDS
"$qemu" "$program" predict --json --model "$bundle" "$bundle/golden.png" > "$scratch/arm.json"
say "  $((SECONDS - start)) s"
say "the golden film, on this machine"
# As for the tests, whose dependencies are there where they have run; without them cargo builds others.
cargo test --locked --quiet --no-run --test cli --manifest-path "$repository/Cargo.toml" >&2
"$(target_directory)/debug/landmarkd" predict --json --model "$bundle" "$bundle/golden.png" > "$scratch/x86.json"

python3 - "$bundle/manifest.json" "$scratch/x86.json" "$scratch/arm.json" "$limit_px" << 'COMPARE'
import json, math, sys

manifest, x86, arm = (json.load(open(path)) for path in sys.argv[1:4])
limit_px = float(sys.argv[4])
places = []
for name, film in (("x86", x86), ("ARM", arm)):
    if film["ok"] is not True:
        sys.exit(f"{name}: {film['error']}")
    places.append({mark["name"]: (mark["x_px"], mark["y_px"]) for mark in film["data"]["landmarks"]})
expected = manifest["landmarks"]
for name, found in zip(("x86", "ARM"), places):
    if list(found) != expected:
        sys.exit(f"{name}: landmarks {list(found)}, not the bundle's {expected}")
apart = {name: math.dist(places[0][name], places[1][name]) for name in expected}
worst = max(apart, key=apart.get)
print(f"{len(apart)} landmarks, the largest difference between ARM and x86 is {apart[worst]:.6f} px ({worst})")
# Not "any greater": a NaN is no agreement.
if not all(distance <= limit_px for distance in apart.values()):
    sys.exit(f"more than {limit_px} px: {apart}")
COMPARE

# qemu-user starts a program by a fork of its own that tells nobody when there is no such program; and the kernel cannot
# start an ARM program by itself, as a test that runs itself again asks it to.
programs=(
  cli::panics::tests::a_panic_tells_its_place_and_not_its_words
  health::metrics::tests::prometheus_own_checker_finds_nothing_to_complain_of
  model::self_test::tests::a_program_that_is_not_there_is_told
)
say "the library's unit tests, on ARM, without ${#programs[@]} that start programs: ${programs[*]}"
zig
start=$SECONDS
CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$qemu cargo-zigbuild test --locked --release --lib \
  --target "$target.$glibc" --target-dir "${program%/"$target"/release/landmarkd}" "${features[@]}" \
  --manifest-path "$repository/Cargo.toml" -- --quiet --exact "${programs[@]/#/--skip=}"
say "  $((SECONDS - start)) s"
