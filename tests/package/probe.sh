#!/bin/bash
# What an operator does with the package, from the installation to the purge: one line of the output for each thing seen.
cd "$(dirname "$0")" || exit 1

units="ltkmd.service ltkmd-http.socket ltkmd-udp.socket ltkmd-admin.socket"
property() { systemctl show --property "$1" --value "${2:-ltkmd.service}"; }
ask() { curl --silent --output /dev/null --max-time 20 --write-out '%{http_code}' http://127.0.0.1:8080/nothing; }
await() { # PROPERTY VALUE: what it came to be
    local now
    for _ in $(seq 400); do
        now=$(property "$1")
        [ "$now" = "$2" ] && break
        read -rt 0.05 <> <(:)
    done
    echo "$now"
}
states() { # enabled? and active? of all units, each answer once
    for unit in $units; do
        echo "$(systemctl is-enabled "$unit" 2>/dev/null) $(systemctl is-active "$unit")"
    done | sort | uniq -c | sed 's/^ *//' | paste -sd,
}
package() { dpkg-query --show --showformat='${db:Status-Status} ${Version}' ltkmd; }
# Nobody answers questions; what other packages make of it, such as an index of all manual pages, takes time.
install() { dpkg --no-triggers --install "$@" < /dev/null > dpkg 2>&1 || { echo "dpkg failed:"; cat dpkg; }; }

install first.deb
echo "installed: $(package)"
sed -n '/^ltkmd is installed/,$p' dpkg
echo "units: $(states)"
echo "group: $(getent group ltkmd-admin | cut -d: -f1,4)"
echo "check: $(ltkmd check 2>&1) $?"
systemctl start ltkmd.service 2> /dev/null
echo "started too early: $(property Result) $(property ExecMainStatus) $(grep -o 'node.fqdn: is missing' log)"
systemctl stop ltkmd-http.socket ltkmd-udp.socket ltkmd.service

sed -i 's/^#fqdn = .*/fqdn = "bmsc.example.net"/' /etc/ltkmd/ltkmd.toml
echo "named: $(ltkmd check 2>&1)"
systemctl enable --now ltkmd-admin.socket ltkmd.service 2> /dev/null
echo "status: $(await StatusText 'ready; 0 registrations, 0 deliveries open')"
echo "units: $(states)"
echo "ctl: $(setpriv --reuid 65534 --regid ltkmd-admin --clear-groups ltkmd ctl status 2>&1 | sed -n 's/^ *checks *//p')"
echo "call: $(ask)"

# The next version comes with another example, while somebody calls all the time.
sockets() { property InvocationID ltkmd-http.socket; property InvocationID ltkmd-udp.socket; }
main=$(property MainPID) sockets=$(sockets)
while [ ! -e upgraded ]; do ask; echo; done > answers &
calls=$!
install --force-confold second.deb
await ActiveState active > /dev/null
ask > /dev/null
touch upgraded
wait $calls
echo "upgraded: $(package), $([ "$main" = "$(property MainPID)" ] && echo "the same process" || echo "restarted"), sockets $([ "$sockets" = "$(sockets)" ] && echo kept)"
echo "calls: $(sort -u answers | paste -sd,)"
echo "configuration: $(grep '^fqdn' /etc/ltkmd/ltkmd.toml), the new example: $(grep -c '^# Of the second' /etc/ltkmd/ltkmd.toml.dpkg-dist)"
# The same example again is no reason to ask.
install second.deb
echo "again: $(package), $(grep '^fqdn' /etc/ltkmd/ltkmd.toml)"

dpkg --no-triggers --remove ltkmd > dpkg 2>&1
echo "removed: $(package), $(states), call $(ask)"
echo "left: $(ls /etc/ltkmd | paste -sd' '), program $(ls /usr/bin/ltkmd 2>/dev/null)"
install second.deb
systemctl start ltkmd.service
echo "back: $(states), call $(ask)"
dpkg --no-triggers --purge ltkmd > dpkg 2>&1
sed -n '/^ltkmd: /p' dpkg
echo "purged: $(package 2>/dev/null) $(find /etc /usr /var/lib -xdev -name '*ltkmd*' | sort | paste -sd' ')"
echo "end"
