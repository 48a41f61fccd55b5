# shellcheck shell=bash disable=SC2034
# What the recipes here share; each of them sources it. The tools are fetched once into $tools, outside the repository.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${LANDMARKD_CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/landmarkd}/cross

zig_version=0.17.0
zigbuild_version=0.24.0
cargo_deb_version=3.8.0
# The package that carries NVIDIA's headers, and which of them.
headers_package=trtx-sys@0.5.0
headers_version=10.16
# Orin's core.
qemu_cpu=cortex-a78ae

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# need COMMAND PACKAGE ..: every command is there, or a sentence says which packages bring the missing ones.
need() {
  local missing=()
  while [ $# -gt 0 ]; do
    command -v "$1" > /dev/null || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} -eq 0 ] || die "missing, on Debian or Ubuntu: apt-get install ${missing[*]}"
}

# Runs its arguments and puts what they say into a file that is shown only if they fail.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" > "$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# What the recipe is called with, from --glibc to --no-tensorrt, into $glibc, $architecture, $target, $features (for cargo)
# and the environment; the comment at the head of the recipe is its help.
options() {
  glibc=2.31 architecture=arm64 features=()
  local list='' include=${TENSORRT_INCLUDE_DIR:-} tensorrt=yes
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
      --no-tensorrt) tensorrt=no; shift; continue ;;
      --glibc | --arch | --features | --tensorrt-include) [ $# -gt 1 ] || die "$1 needs a value" ;;
      *) die "unknown argument $1; --help lists them" ;;
    esac
    case $1 in
      --glibc) glibc=$2 ;;
      --arch) architecture=$2 ;;
      --features) list=$2 ;;
      --tensorrt-include) include=$2 ;;
    esac
    shift 2
  done
  case $glibc in 2.31 | 2.35) ;; *) die "--glibc $glibc: 2.31 or 2.35" ;; esac
  case $architecture in
    arm64) target=aarch64-unknown-linux-gnu ;;
    amd64) target=x86_64-unknown-linux-gnu ;;
    *) die "--arch $architecture: arm64 or amd64" ;;
  esac
  # The shim is C++ against NVIDIA's headers; nothing of TensorRT is linked, it is opened when the daemon runs.
  case ,$list, in *,tensorrt,*) tensorrt=yes ;; esac
  if [ $tensorrt = yes ]; then
    if [ -z "$include" ]; then
      tensorrt_headers
      include=$headers
    fi
    [ -e "$include/NvInfer.h" ] || die "TensorRT's headers: there is no NvInfer.h in $include"
    TENSORRT_INCLUDE_DIR=$(cd "$include" && pwd)
    export TENSORRT_INCLUDE_DIR
    case ,$list, in *,tensorrt,*) ;; *) list=${list:+$list,}tensorrt ;; esac
  fi
  [ -z "$list" ] || features=(--features "$list")
}

# NVIDIA's headers of TensorRT 10, in $headers: they are Apache-2.0, and cargo fetches and checks the package that has
# them. Nothing of it is built. Every 10 from 10.3 on takes what is compiled against them: what the shim calls has its
# place in all of them, and it tells the library the library's own version.
tensorrt_headers() {
  headers=$tools/tensorrt-$headers_version
  if [ ! -e "$headers/NvInfer.h" ]; then
    need cargo cargo
    local fetched=$headers.fetched
    say "fetching the headers of TensorRT $headers_version out of $headers_package from crates.io into $headers"
    rm -rf "$headers" "$fetched"
    mkdir -p "$fetched/src"
    : > "$fetched/src/lib.rs"
    printf '%s\n' '[package]' 'name = "headers"' 'version = "0.0.0"' 'edition = "2021"' '[workspace]' '[dependencies]' \
      "${headers_package%@*} = \"=${headers_package#*@}\"" > "$fetched/Cargo.toml"
    (cd "$fetched" && quietly cargo vendor --quiet vendor) || die "crates.io gave no $headers_package"
    mv "$fetched/vendor/${headers_package%@*}/TensorRT-Headers/TRT-Enterprise-$headers_version" "$headers"
    rm -rf "$fetched"
  fi
}

# Where cargo puts what it builds for us.
target_directory() {
  cargo metadata --format-version 1 --no-deps --manifest-path "$repository/Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# zig and cargo-zigbuild, on PATH from here on.
zig() {
  local venv=$tools/zig-$zig_version-$zigbuild_version
  if [ ! -e "$venv/installed" ]; then
    need python3 python3
    say "fetching zig $zig_version and cargo-zigbuild $zigbuild_version from PyPI into $venv"
    rm -rf "$venv"
    mkdir -p "$tools"
    python3 -m venv "$venv" >&2 || die "no virtual environment in $venv; on Debian: apt-get install python3-venv"
    quietly "$venv/bin/pip" install --quiet --no-deps \
      "ziglang==$zig_version" "cargo-zigbuild==$zigbuild_version" || die "PyPI gave neither zig nor cargo-zigbuild"
    touch "$venv/installed"
  fi
  # The real path: what is compiled is bound to it, and compiled again under another.
  PATH=$(cd "$venv/bin" && pwd -P):$PATH
}

# The standard library of a target; rustup is asked only where it is not there.
standard_library() {
  rustup target list --installed 2> /dev/null | grep -qx "$1" || rustup target add "$1" >&2 ||
    die "rustup cannot add the target $1; with rust of another source install its standard library"
}

# deb_files FOLDER ARCHITECTURE SUITE PACKAGE ..: unpacks packages of Debian, signed as apt demands it, below FOLDER,
# whatever this machine is. Nothing of the machine's own apt is read or changed, but Debian's keys.
deb_files() {
  local folder=$1 architecture=$2 suite=$3 apt package
  shift 3
  need apt-get apt dpkg-deb dpkg
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -e $keys ] || die "missing: apt-get install debian-archive-keyring"
  apt=$(mktemp -d)
  mkdir -p "$apt"/{lists/partial,archives/partial,parts,packages} "$folder"
  : > "$apt/status"
  echo "deb [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main" > "$apt/sources.list"
  cat > "$apt/apt.conf" << CONF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/parts";
Dir::Etc::preferences "$apt/preferences";
Dir::Etc::preferencesparts "$apt/parts";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF
  say "fetching $* ($architecture) of Debian $suite"
  # Release files of a suite that gets no more updates stay as they are.
  quietly env "APT_CONFIG=$apt/apt.conf" apt-get -o Acquire::Check-Valid-Until=false update ||
    die "no package lists of Debian $suite"
  (cd "$apt/packages" && quietly env "APT_CONFIG=$apt/apt.conf" apt-get download "$@") ||
    die "Debian $suite has not all of: $*"
  for package in "$apt"/packages/*.deb; do dpkg-deb -x "$package" "$folder"; done
  rm -rf "$apt"
}

# The emulator of ARM programs, in $qemu. Debian's is statically linked from 10 on, so it runs on any x86 Linux, and
# reaches into a chroot. Before 11 it shows the host's /proc/cpuinfo in part, from which tract chooses its kernels.
emulator() {
  local folder=$tools/qemu-11
  if [ ! -e "$folder/installed" ]; then
    rm -rf "$folder"
    deb_files "$folder" "$(dpkg --print-architecture)" trixie-backports qemu-user
    # It brings forty others.
    find "$folder" -type f ! -name qemu-aarch64 -delete
    touch "$folder/installed"
  fi
  qemu=$folder/usr/bin/qemu-aarch64
  "$qemu" --version > /dev/null || die "$qemu does not run here"
}

# An ARM C library for the emulator, in $arm_root: that of Debian 11, glibc 2.31, the oldest we build for. What starts
# here needs nothing newer.
arm_library() {
  arm_root=$tools/glibc-2.31
  if [ ! -e "$arm_root/installed" ]; then
    rm -rf "$arm_root"
    deb_files "$arm_root" arm64 bullseye libc6 libgcc-s1
    touch "$arm_root/installed"
  fi
}

# cargo-deb, in $cargo_deb: unoptimized and without a compressor of its own, which builds in a quarter of the time. It is
# called with --compress-system.
cargo_deb() {
  local folder=$tools/cargo-deb-$cargo_deb_version
  cargo_deb=$folder/bin/cargo-deb
  [ -x "$cargo_deb" ] && return
  say "building cargo-deb $cargo_deb_version"
  CARGO_TARGET_DIR=$tools/cargo-deb-target quietly cargo install --quiet --locked --debug --no-default-features \
    --root "$folder" "cargo-deb@$cargo_deb_version" || die "cargo-deb $cargo_deb_version cannot be built"
  rm -rf "$tools/cargo-deb-target"
}

# binfmt_rule PROGRAM: how the kernel starts ARM programs with this emulator, for binfmt_misc. F: it is opened at once,
# so that it need not be in a chroot; O and C: it gets the program opened, and the program's rights.
binfmt_rule() {
  local zeros='\x00\x00\x00\x00\x00\x00\x00\x00\x00' ones='\xff\xff\xff\xff\xff\xff\xff'
  printf '%s' ':landmarkd-cross:M::\x7fELF\x02\x01\x01' "$zeros" '\x02\x00\xb7\x00:' \
    "$ones" '\x00' "$ones" '\xff\xfe\xff\xff\xff:' "$1" ':OCF'
}
