#!/usr/bin/env bash
# Builds a small Linux with TCP-AO from Debian's source and prints where it is. Debian's own kernels have "CONFIG_TCP_AO is not set".
#
#   tests/kernel/build.sh [FOLDER]      default: target/kernel; about ten minutes on two cores, 2 GB while it builds
#
# Needs: curl flex bison bc libelf-dev libssl-dev make gcc xz-utils
set -euo pipefail
version=${KERNEL_VERSION:-6.12.95-1~bpo12+1}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mkdir -p "${1:-$here/../../target/kernel}" && cd "${1:-$here/../../target/kernel}" && pwd)
image=$folder/bzImage-${version%%-*}
if [ ! -e "$image" ]; then
  series=${version%.*}
  cd "$folder"
  curl --fail --silent --show-error --location --output source.deb \
    "$mirror/pool/main/l/linux/linux-source-${series}_${version}_all.deb" || {
    echo "$mirror no longer has $version: set KERNEL_VERSION to one that https://packages.debian.org/linux-source-$series lists, or" \
      "DEBIAN_MIRROR to a https://snapshot.debian.org/archive/debian/DATE that has it" >&2
    exit 1
  }
  dpkg-deb --fsys-tarfile source.deb | tar --extract --to-stdout "./usr/src/linux-source-$series.tar.xz" | tar --extract --xz
  rm source.deb
  cd "linux-source-$series"
  make --silent tinyconfig
  ./scripts/kconfig/merge_config.sh -m .config "$here/tcp-ao.config" > /dev/null
  make --silent olddefconfig
  # What Kconfig did not take would be missed in the middle of a test only.
  while read -r line; do
    case $line in CONFIG_*) grep --quiet --line-regexp "$line" .config || { echo "not taken: $line" >&2; exit 1; } ;; esac
  done < "$here/tcp-ao.config"
  nice -n 10 make --silent --jobs="$(nproc)" bzImage > "$folder/build.log" 2>&1 || { tail -20 "$folder/build.log" >&2; exit 1; }
  cp arch/x86/boot/bzImage "$image"
  cd "$folder"
  rm -r "linux-source-$series"
fi
echo "$image"
