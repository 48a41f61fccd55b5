#!/usr/bin/env bash
# Boots a real systemd in throw-away namespaces, with the tree of a folder and a program installed into it, says
#
#   booted PID
#
# on standard output and keeps it until standard input ends. PID is that of its init: commands get in through
# nsenter --target PID --mount --pid --net --uts --ipc --cgroup. Needs root, overlayfs and a cgroup2 mount; no image and
# no network. Where the machine does not allow it, it says why and exits with 77.
#
#   boot.sh TREE PROGRAM MODELS
#   boot.sh --root FOLDER [--binfmt RULE]
#
# The second boots the system that lies in FOLDER, as it is, instead of the machine's own. If that is of another
# architecture, RULE tells the kernel's binfmt_misc how to start its programs.
#
# How: mount, pid, net, uts, ipc and cgroup namespaces; the root is an overlay of the machine's own root below a tmpfs,
# so nothing written inside is seen outside; /proc/sys and /sys are read-only; systemd sees itself in a container, with
# a cgroup of its own that it takes for the root. Killing its init ends every process, and the mounts go with them.
set -euo pipefail

inside() { # runs as PID 1 of the namespaces, becomes systemd
  local base=$1 binfmt=$2 tree=$3 program=$4 models=$5 root=$6
  mount --make-rprivate /
  mount -t tmpfs -o size=4g boot "$root"
  mkdir "$root"/{upper,work,new}
  mount -t overlay -o "lowerdir=$base,upperdir=$root/upper,workdir=$root/work" boot "$root/new"
  local new=$root/new
  mount -t proc proc "$new/proc"
  mount --bind "$new/proc/sys" "$new/proc/sys"; mount -o remount,bind,ro "$new/proc/sys"
  if [ -n "$binfmt" ]; then
    # In the new root, because the kernel forgets the rule with the last mount of this file system.
    mount -t binfmt_misc binfmt_misc "$new/proc/sys/fs/binfmt_misc"
    echo "$binfmt" > "$new/proc/sys/fs/binfmt_misc/register"
  fi
  mount -t sysfs -o ro sysfs "$new/sys"
  mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 run "$new/run"
  mount -t tmpfs -o mode=1777 tmp "$new/tmp"
  mount -t tmpfs -o mode=755 dev "$new/dev"
  mkdir "$new"/dev/{pts,shm,mqueue}
  local node; for node in null zero full random urandom tty; do
    touch "$new/dev/$node"; mount --bind "/dev/$node" "$new/dev/$node"
  done
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$new/dev/pts"
  ln -s pts/ptmx "$new/dev/ptmx"; ln -s /proc/self/fd "$new/dev/fd"; ln -s null "$new/dev/console"

  # Nothing of the machine's own services: only the journal, and what is asked for.
  find "$new"/{etc,usr/lib}/systemd/system -path '*.wants/*' ! -name 'systemd-journald*' -delete
  rm -rf "$new/var/lib/landmarkd" "$new/etc/landmarkd"; : > "$new/etc/fstab"
  printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' > "$new/etc/systemd/system/boot.target"
  # The tree, the program, the models.
  if [ -n "$tree" ]; then
    cp -r "$tree"/{etc,usr} "$new/"
    touch "$new/usr/bin/landmarkd"; mount --bind "$program" "$new/usr/bin/landmarkd"
    mkdir -p "$new/usr/share/landmarkd/models"; mount --bind "$models" "$new/usr/share/landmarkd/models"
  fi
  mkdir -p "$new/srv/films"

  cd "$new"; mkdir -p mnt/old; pivot_root . mnt/old; umount -l /mnt/old
  # In a container systemd leaves this to us; credentials and late mounts reach services through it.
  mount --make-rshared /
  exec env -i container=landmarkd-boot PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --unit=boot.target --log-target=journal --show-status=no < /dev/null
}
if [ "${1:-}" = --inside ]; then shift; inside "$@"; fi

base=/ binfmt='' tree='' program='' models=''
if [ "${1:-}" = --root ]; then
  base=$2
  if [ "${3:-}" = --binfmt ]; then binfmt=$4; fi
else
  tree=$1 program=$2 models=$3
fi
refused() { echo "refused: $*"; exit 77; }
[ "$(id -u)" -eq 0 ] || refused "not root"
[ -x "$base/lib/systemd/systemd" ] || refused "systemd is not installed in $base"
for command in unshare nsenter setpriv findmnt; do command -v $command > /dev/null || refused "$command is not installed"; done
cgroups=$(findmnt -n -o TARGET -t cgroup2 | head -1)
[ -n "$cgroups" ] || refused "no cgroup2 mount"
unshare --mount --pid --fork --net --uts --ipc --cgroup true 2> /dev/null || refused "no namespaces"
cgroup=$cgroups/landmarkd-boot.$$
mkdir "$cgroup" 2> /dev/null || refused "$cgroups is not writable"
root=$(mktemp -d)
init='' launcher=''
cleanup() {
  if [ -n "$init" ]; then kill -KILL "$init" 2> /dev/null || true; fi
  if [ -n "$launcher" ]; then wait "$launcher" 2> /dev/null || true; fi
  # The cgroups that systemd made, deepest first; a moment passes until the last process is gone.
  for _ in $(seq 50); do
    find "$cgroup" -depth -type d -exec rmdir {} \; 2> /dev/null || true
    [ -d "$cgroup" ] || break
    sleep 0.1
  done
  rmdir "$root" || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

bash -c 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"' - "$cgroup" \
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --net --uts --ipc --cgroup --mount-proc \
  "$0" --inside "$base" "$binfmt" "$tree" "$program" "$models" "$root" < /dev/null >&2 &
launcher=$!
for _ in $(seq 300); do
  init=$(tr -d ' ' < "/proc/$launcher/task/$launcher/children" 2> /dev/null || true)
  [ -n "$init" ] && [ "$(cat "/proc/$init/comm" 2> /dev/null)" = systemd ] && break
  kill -0 "$launcher" 2> /dev/null || refused "the namespaces could not be set up"
  sleep 0.1
done
guest() { nsenter --target "$init" --mount --pid --net --uts --ipc --cgroup -- env -i PATH="$PATH" "$@"; }
for _ in $(seq 300); do
  state=$(guest systemctl is-system-running 2> /dev/null || true)
  case $state in running | degraded) break ;; esac
  sleep 0.1
done
if [ -n "$tree" ]; then
  guest systemd-sysusers
  guest systemd-tmpfiles --create landmarkd.conf
fi
echo "booted $init"
cat > /dev/null
