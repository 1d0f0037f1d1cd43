#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Looks for what the build, the fixtures and the unit tests need; names the missing Debian packages and stops.
# usage: probe.sh build|bpf|fixture|unit...
set -u

missing=()

# need_lib PKG_CONFIG_NAME MIN_VERSION DEBIAN_PACKAGE
need_lib() {
	pkg-config --exists "$1 >= $2" 2>/dev/null && return
	local have
	have=$(pkg-config --modversion "$1" 2>/dev/null)
	missing+=("$3	library $1 >= $2${have:+, found $have}")
}

# need_program NAME DEBIAN_PACKAGE
need_program() {
	command -v "$1" >/dev/null 2>&1 || missing+=("$2	program $1")
}

for set in "$@"; do
	case $set in
	build)
		compiler=${CC:-gcc}
		need_program "${compiler%% *}" "$(basename "${compiler%% *}")"
		need_program ar binutils
		need_program pkg-config pkg-config
		need_lib fuse3 3.14 libfuse3-dev
		need_lib liburing 2.3 liburing-dev
		need_lib libcurl 7.88 libcurl4-openssl-dev
		need_lib openssl 3.0 libssl-dev
		need_lib expat 2.4 libexpat1-dev
		need_lib jansson 2.13 libjansson-dev
		need_lib libbpf 1.1 libbpf-dev
		;;
	bpf)
		compiler=${BPF_CLANG:-clang}
		need_program "${compiler%% *}" clang
		need_lib libbpf 1.1 libbpf-dev
		;;
	fixture)
		need_lib libevent 2.1.12 libevent-dev
		need_lib libevent_openssl 2.1.12 libevent-dev
		need_lib libevent_pthreads 2.1.12 libevent-dev
		;;
	unit)
		need_lib cmocka 1.1.5 libcmocka-dev
		;;
	*)
		echo "probe.sh: unknown set $set" >&2
		exit 2
		;;
	esac
done

[ ${#missing[@]} -eq 0 ] && exit 0
{
	echo "Missing:"
	for line in "${missing[@]}"; do
		printf '  %-22s %s\n' "${line%%	*}" "(${line#*	})"
	done
	packages=$(printf '%s\n' "${missing[@]%%	*}" | sort -u | tr '\n' ' ')
	echo "Run \"make deps\" as root, or: apt-get install ${packages% }"
} >&2
exit 1
