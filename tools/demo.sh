#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demo: a small S3 server, a generated model in it, mounted and loaded as a loader would, every byte compared.
# It needs root and what "make demo" builds before it. DEMO_SIZE (1GiB) and DEMO_SHARDS (8) change the model.
# Switches fuse.enable_uring on for its own time where that is off, and leaves nothing behind.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=${PENSTOCK_BUILD:-$root/build}
switch=/sys/module/fuse/parameters/enable_uring
restore=
child=

fail() {
	echo "demo: $*" >&2
	exit 1
}

cleanup() {
	local status=$?
	trap - EXIT INT TERM HUP
	if [ -n "$child" ]; then
		kill -TERM "$child" 2>/dev/null && wait "$child" || true
	fi
	if [ -n "$restore" ]; then
		echo "$restore" >"$switch"
		echo "fuse.enable_uring is $restore again"
	fi
	exit "$status"
}

[ "$(id -u)" -eq 0 ] || fail "mounting needs root: run it with sudo"
[ -e /dev/fuse ] || modprobe fuse 2>/dev/null || fail "this kernel has no FUSE: load the module fuse"
[ -e /dev/fuse ] || fail "there is no /dev/fuse: a container needs --device /dev/fuse"
for program in bin/penstock bin/penstock-load tests/rawget tests/s3d; do
	[ -x "$build/$program" ] || fail "$build/$program is missing: run \"make demo\""
done

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -r "$switch" ] && [ "$(cat "$switch")" = N ] && echo Y 2>/dev/null >"$switch"; then
	restore=N
	echo "fuse.enable_uring was off: it is on while the demo runs (echo Y >$switch keeps it)"
fi
"$root/tests/bench/demo.py" --size "${DEMO_SIZE:-1GiB}" --shards "${DEMO_SHARDS:-8}" &
child=$!
wait "$child"
child=
