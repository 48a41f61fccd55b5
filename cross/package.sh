#!/usr/bin/env bash
# Makes the Debian package, for Debian 11 and Ubuntu 22.04 (JetPack 6) or later.
#
#   cross/package.sh [--arch arm64|amd64] [--features ..] [--tensorrt-include ..]      as for build.sh
#
# The last line on standard output is its path. What is in it stands in Cargo.toml, its scripts lie in cross/deb.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

options "$@"
[ "$glibc" = 2.31 ] || die "--glibc $glibc: the package promises 2.31"
need cargo cargo dpkg-deb dpkg objdump binutils xz xz-utils
program=$("$repository/cross/build.sh" "$@" | tail -1)
cargo_deb

# Libraries beyond glibc would have to be named in Depends.
foreign=$(objdump -p "$program" | awk '$1 == "NEEDED" { print $2 }' |
  grep -vE '^(lib(c|m|dl|rt|pthread)\.so\.[0-9]+|ld-linux-(aarch64|x86-64)\.so\.[0-9]+)$' || true)
[ -z "$foreign" ] || die "$program needs ${foreign//$'\n'/, }, which the package does not depend on"

# The program writes its own manual and completions.
run=("$program")
if [ "$target" = aarch64-unknown-linux-gnu ] && [ "$(uname -m)" != aarch64 ]; then
  emulator
  arm_library
  run=(env "QEMU_LD_PREFIX=$arm_root" "$qemu" "$program")
fi
written=$(dirname "$program")/package
rm -rf "$written"
mkdir "$written"
"${run[@]}" man "$written/man1" >&2
gzip -9n "$written"/man1/*
for shell in bash zsh fish; do "${run[@]}" completions $shell > "$written/landmarkd.$shell"; done

# --fast: most of it are weights, which no compressor makes smaller.
package=$("$cargo_deb" --no-build --no-strip --fast --compress-system --locked --target "$target" --output "$(target_directory)/debian/" \
  --manifest-path "$repository/Cargo.toml" "${features[@]}" | tail -1)
[ -e "$package" ] || die "cargo-deb made no package"
say "$(dpkg-deb --field "$package" Package Version Architecture Installed-Size | tr '\n' ' ')"
echo "$package"
