#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that a purpose needs; touches nothing when they are all there.
# usage: deps.sh build|demo|check|soak|bench...
set -eu

GO_NEEDED=go1.25
GO_FETCHED=go1.26.0

packages=()
want_go=
for set in "$@"; do
	case $set in
	build)
		packages+=(gcc make binutils libc6-dev pkg-config libfuse3-dev liburing-dev libcurl4-openssl-dev)
		packages+=(libssl-dev libexpat1-dev libjansson-dev clang libbpf-dev)
		;;
	demo)
		packages+=(libevent-dev fuse3 kmod openssl python3 util-linux)
		;;
	check)
		packages+=(libevent-dev libcmocka-dev fuse3 kmod openssl python3 util-linux)
		packages+=(clang clang-format cppcheck libclang-rt-dev attr bpftool e2fsprogs)
		packages+=(python3-venv libsodium23)
		packages+=(radosgw ceph-mon ceph-osd ceph-common)
		want_go=yes
		;;
	soak) want_go=yes ;;
	bench)
		packages+=(nginx-light libnginx-mod-http-lua s3fs rclone gnuplot-nox)
		want_go=yes
		;;
	*)
		echo "deps.sh: unknown set \"$set\"; known: build demo check soak bench" >&2
		exit 2
		;;
	esac
done

# install_packages NAME...: those that are not there yet.
install_packages() {
	local missing=() package state log
	for package in "$@"; do
		state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
		[ "$state" = installed ] || missing+=("$package")
	done
	[ ${#missing[@]} -eq 0 ] && return

	if ! command -v apt-get >/dev/null; then
		echo "These packages are needed, under Debian's names: ${missing[*]}" >&2
		return 1
	fi
	if [ "$(id -u)" -ne 0 ]; then
		echo "Run as root: apt-get install ${missing[*]}" >&2
		return 1
	fi
	echo "  APT   ${missing[*]}"
	# Debian starts what it installs, such as nginx; this file says no while it is there.
	local policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	log=$(mktemp)
	if ! { apt-get -qq update &&
		apt-get -qq -o DPkg::Lock::Timeout=600 install --no-install-recommends "${missing[@]}"; } \
		>"$log" 2>&1 </dev/null; then
		cat "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

# The S3 servers written in Go want a newer Go than Debian 12 has. Go's own client fetches one and verifies it.
install_go() {
	local have cache out directory
	have=$(go env GOVERSION 2>/dev/null || true)
	[ "$(printf '%s\n' "$GO_NEEDED" "${have:-go0}" | sort -V | head -n 1)" = "$GO_NEEDED" ] && return
	cache=${PENSTOCK_CACHE:-$HOME/.cache/penstock}
	[ -x "$cache/go/bin/go" ] && return
	command -v go >/dev/null || install_packages golang-go
	echo "  GO    $GO_FETCHED"
	mkdir -p "$cache"
	out=$(mktemp -d "$cache/go.XXXXXX")
	GOMODCACHE=$out GOFLAGS=-modcacherw \
		go mod download "golang.org/toolchain@v0.0.1-$GO_FETCHED.linux-$(dpkg --print-architecture)" ||
		{ rm -rf "$out" && return 1; }
	directory=$(echo "$out"/golang.org/toolchain@*)
	chmod -R u+x "$directory/bin" "$directory/pkg/tool"
	mv "$directory" "$cache/go"
	rm -rf "$out"
}

export DEBIAN_FRONTEND=noninteractive
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
[ -z "${packages[*]}" ] || install_packages "${packages[@]}"
if [ -n "$want_go" ] && ! (install_go); then
	echo "No Go $GO_NEEDED here: tests against servers written in Go will be skipped" >&2
fi
