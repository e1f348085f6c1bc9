#!/bin/sh
# systemd itself, as the first process of namespaces of its own: boot.sh PLACE. The units are in PLACE/units, what
# they need in PLACE/run; PLACE/probe.sh runs once the sockets listen, what it says goes to PLACE/said. Exit code 77:
# it is not allowed here.
# boot.sh PLACE PATHS: in a tree that is the test's own, with further directories of units, and nothing listens yet.
set -eu
place=$1
own=${2:-}

allowed() { "$@" || exit 77; }
# systemd brings credentials into a service's mounts by propagation.
allowed mount --make-rshared /
umount -R /sys/fs/cgroup 2>/dev/null || true
allowed mount -t cgroup2 none /sys/fs/cgroup
# Nothing of this machine is written to.
allowed mount -t tmpfs -o mode=755 tmpfs /run
[ -n "$own" ] || allowed mount -t tmpfs -o mode=755 tmpfs /var/lib
cp -R "$place/run/." /run/
chmod 755 /run
ip link set lo up

cat > "$place/units/probe.service" <<UNIT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=100s
ExecStart=/bin/bash $place/probe.sh
ExecStopPost=/bin/sh -c 'exec systemctl --force --force poweroff >/dev/null 2>&1'
StandardOutput=append:$place/said
StandardError=append:$place/said
UNIT
cat > "$place/units/boot.target" <<UNIT
[Unit]
Wants=probe.service $([ -n "$own" ] || echo ltkmd-http.socket ltkmd-udp.socket ltkmd-admin.socket)
UNIT
# These alone, of all that there is.
for target in basic sysinit sockets shutdown umount network-online paths slices timers; do
    printf '[Unit]\nDefaultDependencies=no\n' > "$place/units/$target.target"
done

exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH="$place/units${own:+:$own}" SYSTEMD_GENERATOR_PATH=/nonexistent \
    /lib/systemd/systemd --unit=boot.target --show-status=no --log-target=console --default-standard-output=null
