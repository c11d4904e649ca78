#!/usr/bin/env bash
# Runs a command as root inside a kernel of its own: QEMU without KVM, the root of this machine over 9p and read-only, with /tmp,
# /run, /var/tmp in memory. The exit status is the command's.
#
#   tests/kernel/run.sh IMAGE COMMAND...
#   tests/kernel/run.sh "$(tests/kernel/build.sh)" target/debug/deps/tcp_ao-0123456789abcdef
#
# Needs: qemu-system-x86. MEMORY (1G), CPUS (2) and SECONDS_LEFT (300) may be set.
set -euo pipefail
image=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
{
  printf 'command=(%s)\nfolder=%q\n' "$(printf '%q ' "$@")" "$PWD"
  # The environment of tests, as far as it is theirs.
  export -p | grep -E '^declare -x (VOILE_|RUST_|KUBEBUILDER_|CALICOCTL)' || true
  cat <<'G'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm; mount -t devpts p /dev/pts; mount -t tmpfs t /dev/shm
for each in /run /tmp /var/tmp; do mount -t tmpfs t $each; done
mkdir -p /run/netns; ip link set lo up
cd "$folder" && "${command[@]}"
echo $? > /dev/ttyS1
sync; echo o > /proc/sysrq-trigger 2>/dev/null && sleep 60
G
} > "$work/init"
printf '#!/bin/bash\n. %q\n' "$work/init" > "$work/start"
chmod 755 "$work/start"
timeout --kill-after=5 "${SECONDS_LEFT:-300}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp "${CPUS:-2}" -m "${MEMORY:-1G}" \
  -nodefaults -no-user-config -display none -no-reboot -kernel "$image" \
  -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
  -append "root=host rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose ro init=$work/start console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on" \
  -serial stdio -serial "file:$work/status" < /dev/null | tr -d '\r'
status=$(tr -d '\r\n' < "$work/status")
[ -n "$status" ] || { echo "the machine ended without an exit status of the command" >&2; exit 125; }
exit "$status"
