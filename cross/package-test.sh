#!/usr/bin/env bash
# Installs the package into a Debian of its own architecture that runs a real systemd, and follows its life: first
# installation, films without a broker, upgrade, the broker comes, a configuration that the next version refuses, removal,
# return, purge.
#
#   cross/package-test.sh [--suite bookworm] PACKAGE
#
#   --suite   the Debian: bookworm (default), bullseye or trixie
#
# As root. The Debian is made once, outside the repository, and booted in namespaces (tests/support/boot.sh) over which
# nothing is kept; an arm64 one runs in qemu-user, systemd included. Exits with 77 where the machine does not allow that.
# A fault ends it with a sentence and the journals.
# shellcheck disable=SC2016  # what stands in single quotes is for a shell or a program inside
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

suite=bookworm
if [ "${1:-}" = --suite ]; then
  [ $# -gt 1 ] || die "--suite needs a value"
  suite=$2
  shift 2
fi
case $suite in bullseye | bookworm | trixie) ;; *) die "--suite $suite: bullseye, bookworm or trixie" ;; esac
[ $# -eq 1 ] || die "usage: package-test.sh [--suite SUITE] PACKAGE"
package=$1
[ -e "$package" ] || die "$package: no such file"
[ "$(id -u)" -eq 0 ] || die "needs root"
need mmdebstrap mmdebstrap dpkg-deb dpkg python3 python3 nsenter util-linux
architecture=$(dpkg-deb --field "$package" Architecture)
version=$(dpkg-deb --field "$package" Version)
golden=$repository/models/ceph19-nfdp/golden.png
unit=landmarkd.service
films=3
# Seconds for one thing to happen.
patience=900

rule=
if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
  [ "$architecture" = arm64 ] || die "$package is for $architecture, which is not emulated here"
  emulator
  rule=$(binfmt_rule "$qemu")
fi

# The Debian.
system=$tools/debian-$suite-$architecture
if [ ! -e "$system.made" ]; then
  say "making a Debian $suite for $architecture in $system"
  rm -rf "$system"
  mkdir -p "$tools"
  quietly unshare --mount bash -euc '
      rule=$0
      if [ -n "$rule" ]; then
        mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
        echo "$rule" > /proc/sys/fs/binfmt_misc/register
      fi
      exec "$@"' "$rule" \
    mmdebstrap --mode=root --arch="$architecture" --variant=minbase --skip=check/qemu \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=systemd,systemd-sysv,dbus,mosquitto,mosquitto-clients,ca-certificates \
    --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' --dpkgopt=force-unsafe-io \
    "$suite" "$system" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" || die "no Debian $suite for $architecture"
  touch "$system.made"
fi

scratch=$(mktemp -d)
init=''
finish() {
  local status=$?
  if [ $status -ne 0 ] && [ $status -ne 77 ] && [ -n "$init" ]; then
    say "--- the journals"
    guest journalctl --no-pager --output=short-monotonic --lines=60 >&2 || true
  fi
  if [ -n "${held:-}" ]; then exec {held}>&-; fi
  wait || true
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The next version: the same program, and a configuration file that says one thing more.
next() { # VERSION FILE
  rm -rf "$scratch/next"
  dpkg-deb --raw-extract "$package" "$scratch/next"
  sed -i "s/^Version: .*/Version: $1/" "$scratch/next/DEBIAN/control"
  echo "# As of $1." >> "$scratch/next/etc/landmarkd/landmarkd.toml"
  dpkg-deb --root-owner-group -Zgzip -z1 --build "$scratch/next" "$2" > /dev/null
}

# The machine.
mkfifo "$scratch/hold" "$scratch/said"
boot=(--root "$system")
[ -z "$rule" ] || boot+=(--binfmt "$rule")
"$repository/tests/support/boot.sh" "${boot[@]}" < "$scratch/hold" > "$scratch/said" 2> "$scratch/boot.log" &
exec {held}> "$scratch/hold"
while read -r line; do
  case $line in
    booted\ *) init=${line#booted }; break ;;
    refused:*)
      [ -z "${CI:-}" ] || die "no systemd can be booted here: ${line#refused: }"
      say "skipped: no systemd can be booted here: ${line#refused: }"
      exit 77
      ;;
  esac
done < "$scratch/said"
[ -n "$init" ] || die "no systemd came up: $(cat "$scratch/boot.log")"

guest() {
  nsenter --target "$init" --mount --pid --net --uts --ipc --cgroup -- \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@" {held}>&-
}
put() { guest sh -c 'mkdir -p "$(dirname "$0")" && cat > "$0"' "$1"; } # PATH, from standard input
show() { guest systemctl show "$unit" --value --property "$1"; }
is() { [ "$1" = "$2" ] || die "$3: \"$1\", not \"$2\""; }               # GOT EXPECTED WHAT
has() { grep -qF -- "$2" <<< "$1" || die "no \"$2\" in: $1"; }          # TEXT WORDS
there() { guest test -e "$1"; }
missing() { ! there "$1" || die "$1 is still there"; }
film() { # what follows the picture's last chunk makes it another film
  { cat "$golden"; printf %s "$1"; } | put /srv/part
  guest sh -c 'chmod 644 /srv/part && mv /srv/part "/srv/films/$0"' "$1.png"
}
await() { # UNIT WORDS
  timeout $patience grep -q -m1 -F -- "$2" < <(guest journalctl --follow --lines=all --output=cat --unit "$1") ||
    die "never \"$2\" from $1"
}
ok() { say "ok: $* ($SECONDS s)"; }
deb() { guest dpkg "$@" 2>&1; }
put /etc/hosts <<< '127.0.0.1 localhost'
say "systemd $(guest systemctl --version | sed -n '1s/.*(\(.*\))/\1/p') of Debian $suite, $(guest uname -m)"

# First installation: all is there, nothing runs.
put /root/1.deb < "$package"
said=$(deb --install /root/1.deb)
has "$said" "not started yet"
is "$(show ActiveState)/$(show UnitFileState)" inactive/disabled "after the first installation"
is "$(guest stat -c '%U:%G %a' /var/lib/landmarkd)" "landmarkd:landmarkd 700" "the state directory"
is "$(guest stat -c '%U:%G %a' /etc/landmarkd/credentials)" "root:root 700" "the credentials"
is "$(guest stat -c '%U:%G %a' /usr/bin/landmarkd)" "root:root 755" "the program"
is "$(guest id -Gn landmarkd | tr ' ' '\n' | sort | tr '\n' ' ')" "landmarkd render video " "the user's groups"
is "$(guest dpkg-query --show --showformat='${Conffiles}' landmarkd | awk 'NF { print $1 }')" \
  /etc/landmarkd/landmarkd.toml "the configuration files"
guest test -s /usr/share/landmarkd/models/ceph19-nfdp/network.onnx || die "the bundle is missing"
guest test -s /usr/share/man/man1/landmarkd-doctor.1.gz || die "the manual is missing"
guest sh -c '. /usr/share/bash-completion/completions/landmarkd' 2> /dev/null || guest bash -n \
  /usr/share/bash-completion/completions/landmarkd || die "the completions are broken"
guest landmarkd check-config > /dev/null || die "the shipped configuration is wrong"
ok "installed $version, nothing started"

# Configured and started; no broker listens, so results wait.
put /etc/landmarkd/conf.d/site.toml << 'TOML'
[acquisition]
settle_ms = 100
[mqtt]
max_backoff_s = 1
TOML
if [ -n "$rule" ]; then
  # An emulator writes the code that it runs, and takes a minute for a film on a busy machine.
  printf '[Service]\n%s\n' MemoryDenyWriteExecute=no TimeoutStartSec=900 WatchdogSec=900 \
    Environment=QEMU_CPU=$qemu_cpu | put /etc/systemd/system/$unit.d/emulator.conf
  printf '[daemon]\nbudget_s = 600\n' | put /etc/landmarkd/conf.d/emulator.toml
  guest systemctl daemon-reload
fi
guest systemctl --quiet enable --now $unit
is "$(show ActiveState)/$(show UnitFileState)" active/enabled "after enable --now"
for number in $(seq $films); do film "film-$number"; done
await $unit "event $films"
# From here on the results are in the queue and nowhere else.
guest sh -c 'rm /srv/films/*'
main=$(show MainPID)
ok "started, $films results wait"

# Upgraded: restarted once, with what waits.
next "$version+next1" "$scratch/2.deb"
put /root/2.deb < "$scratch/2.deb"
deb --install /root/2.deb > /dev/null
is "$(guest dpkg-query --show --showformat='${Version}' landmarkd)" "$version+next1" "the version"
is "$(show ActiveState)/$(show UnitFileState)" active/enabled "after the upgrade"
[ "$(show MainPID)" != "$main" ] || die "the upgrade did not restart the daemon"
has "$(guest cat /etc/landmarkd/landmarkd.toml)" "As of $version+next1."
there /etc/landmarkd/conf.d/site.toml || die "the upgrade removed the site's configuration"
ok "upgraded"

# The broker comes: every result arrives, once, without a gap; so does one more film.
guest systemd-run --quiet --unit=broker mosquitto -p 1883
guest systemd-run --quiet --unit=witness stdbuf -oL sh -c \
  "until mosquitto_sub -V mqttv5 -q 1 -i witness -c -x 3600 -t 'xr/#' -F '%t %p'; do sleep 0.1; done"
sequence() { printf '"sequence":"%020d"' "$1"; }
await witness "$(sequence $films)"
film one-more
await witness "$(sequence $((films + 1)))"
arrived() { # EXPECTED
  guest journalctl --output=cat --unit=witness | python3 -c '
import json, sys
events = []
for line in sys.stdin:
    topic, _, text = line.partition(" ")
    if topic.endswith("/result"):
        events.append(json.loads(text))
expected = list(range(1, int(sys.argv[1]) + 1))
numbers = [int(event["sequence"]) for event in events]
epochs, ids = {event["epoch"] for event in events}, {event["id"] for event in events}
if numbers != expected or len(epochs) != 1 or len(ids) != len(expected):
    sys.exit(f"arrived: {numbers} of {len(epochs)} epochs with {len(ids)} ids, not each of {expected} once")
' "$1" || die "results are lost or doubled"
}
arrived $((films + 1))
ok "all $films results that waited arrived once, in order, and one more after them"

# A version that does not accept the configuration is not let at it: the one that runs goes on.
main=$(show MainPID)
put /etc/landmarkd/conf.d/wrong.toml <<< $'[mqtt]\nprot = 1'
next "$version+next2" "$scratch/3.deb"
put /root/3.deb < "$scratch/3.deb"
said=$(deb --install /root/3.deb)
has "$said" "not restarted"
has "$said" "mqtt.prot"
is "$(show MainPID)/$(show ActiveState)" "$main/active" "after an upgrade with a wrong configuration"
guest rm /etc/landmarkd/conf.d/wrong.toml
ok "an upgrade that would not start leaves the daemon running"

# Removed and back: what it knew is still there.
said=$(deb --remove landmarkd)
has "$said" "stay in /var/lib/landmarkd"
is "$(show ActiveState)" inactive "after the removal"
missing /usr/bin/landmarkd
there /etc/landmarkd/landmarkd.toml || die "the removal took the configuration"
deb --install /root/3.deb > /dev/null
is "$(show ActiveState)/$(show UnitFileState)" active/enabled "after the return"
film after-return
await witness "$(sequence $((films + 2)))"
arrived $((films + 2))
ok "removed and installed again, the sequence goes on"

# A daemon that was stopped by hand is not started by an upgrade.
guest systemctl stop $unit
deb --install /root/2.deb > /dev/null
is "$(show ActiveState)/$(show UnitFileState)" inactive/enabled "after an upgrade of a stopped daemon"
ok "an upgrade starts nothing that was stopped"

# Purged.
said=$(deb --purge landmarkd)
has "$said" "purging /var/lib/landmarkd with every result that was not delivered"
for path in /var/lib/landmarkd /etc/landmarkd /usr/share/landmarkd /usr/bin/landmarkd /usr/share/doc/landmarkd \
  /etc/systemd/system/multi-user.target.wants/$unit /etc/systemd/system/$unit /usr/lib/systemd/system/$unit; do
  missing "$path"
done
is "$(guest dpkg-query --show --showformat='${db:Status-Status}' landmarkd 2> /dev/null || true)" "" "dpkg's word"
ok "purged"
