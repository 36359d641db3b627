#!/bin/sh
# While an image is built on Debian 13: takes SQLite, and nothing else, from Debian's next release. Debian 13's own can
# damage a database in WAL mode (the WAL-reset bug, mended in 3.51.3). Where that is not to be had, the base keeps its
# own, the build goes on, and `doctor` says which it is.
set -eu
apt=${APT_FOLDER:-/etc/apt}
base=trixie next=forky package=libsqlite3-0
sources=$apt/sources.list.d/$next.sources preferences=$apt/preferences.d/$next

keep() {
    printf 'The base keeps its own SQLite: %s.\n' "$1"
    exit 0
}

# shellcheck source=/dev/null
. "${OS_RELEASE:-/etc/os-release}"
[ "${VERSION_CODENAME:-}" = $base ] || keep "it is not Debian 13"

trap 'rm -rf "$sources" "$preferences" "${LISTS:-/var/lib/apt/lists}"/*' EXIT
apt-get update || keep "$base cannot be reached"
# shellcheck disable=SC2016 # apt-get reads the $
mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' | sed -n "s/^$base //p" | head -n 1)
[ -n "$mirror" ] || keep "no mirror of $base is known"

mkdir -p "$apt/sources.list.d" "$apt/preferences.d"
# Signed all the same; only its age is not looked at, which a mirror that is a week behind would fail by.
printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nCheck-Valid-Until: no\n' "$mirror" $next >"$sources"
printf 'Package: *\nPin: release n=%s\nPin-Priority: -1\n\nPackage: %s\nPin: release n=%s\nPin-Priority: 990\n' \
    $next $package $next >"$preferences"

apt-get update || keep "$next cannot be reached"
apt-get install --yes --no-install-recommends $package || keep "that of $next does not fit"
