#!/usr/bin/env bash
# The oldest glibc that a program starts on.
#
#   cross/floor.sh PROGRAM           prints it, such as 2.30
#   cross/floor.sh PROGRAM 2.31      and fails, naming the symbols, when it is newer than that
#
# A program asks the dynamic loader for versions of symbols (GLIBC_2.34); one that the system's glibc does not have keeps
# it from starting at all. A compiler of a newer system brings them in silently.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

case $# in 1 | 2) ;; *) die "usage: floor.sh PROGRAM [VERSION]" ;; esac
program=$1
limit=${2:-}
need objdump binutils
[ -e "$program" ] || die "$program: no such file"
symbols=$(objdump -T "$program" 2>&1) || die "$program: $symbols"
# VERSION SYMBOL, for what is imported from glibc; private ones are glibc's own and nobody else's business.
imported=$(sed -n 's/.*\*UND\*.*[ (]GLIBC_\([0-9.]\{1,\}\))\{0,1\} *\(.*\)$/\1 \2/p' <<< "$symbols" | sort -V)
[ -n "$imported" ] || die "$program imports nothing from glibc: it is not dynamically linked against it"
# Packed relocations are no symbol, and stop a loader that does not know them.
if objdump -p "$program" | grep -q GLIBC_ABI_DT_RELR; then imported=$(sort -V <<< "$imported"$'\n''2.36 DT_RELR'); fi
newest=$(tail -1 <<< "$imported" | cut -d' ' -f1)
if grep -q '[ (]GLIBC_PRIVATE' <<< "$symbols"; then die "$program uses private symbols of one glibc"; fi

if [ -z "$limit" ]; then
  echo "$newest"
  exit
fi
[[ $limit =~ ^[0-9]+(\.[0-9]+)+$ ]] || die "$limit is no version, such as 2.31"
if [ "$(printf '%s\n' "$newest" "$limit" | sort -V | tail -1)" != "$limit" ]; then
  say "$program needs glibc $newest, not $limit at most:"
  while read -r version symbol; do
    [ "$(printf '%s\n' "$version" "$limit" | sort -V | tail -1)" = "$limit" ] || say "  $symbol (GLIBC_$version)"
  done <<< "$imported"
  exit 1
fi
echo "$program: glibc $newest, at most $limit"
