#!/bin/bash
# What a person on call would do with the service, under systemd: one line of the output for each thing seen.

property() { systemctl show --property "$1" --value ltkmd.service; }
ask() { curl --silent --output /dev/null --max-time 20 --write-out '%{http_code}' http://127.0.0.1:8080/nothing; }
await() { # PROPERTY VALUE
    for _ in $(seq 400); do
        [ "$(property "$1")" = "$2" ] && return
        read -rt 0.05 <> <(:)
    done
}

# Nobody has started it: who calls does.
echo "before: $(property ActiveState)"
echo "first call: $(ask)"
await ActiveState active
echo "then: $(property ActiveState) $(property Type) $(property StatusText)"

main=$(property MainPID)
status() { sed -n "s/^$1:\s*//p" "/proc/$main/status" | tr '\t' ' '; }
echo "user: $(stat --format %U /proc/$main) capabilities $(status CapEff) privileges $(status NoNewPrivs) filter $(status Seccomp)"
echo "sockets: $(tr '\0' '\n' < /proc/$main/environ | sed -n 's/^LISTEN_FDNAMES=//p' | tr : '\n' | sort | tr '\n' ' ')"
echo "credentials: $(ls /run/credentials/ltkmd.service | tr '\n' ' ')"
echo "state: $(stat --format '%A %U' /var/lib/private/ltkmd)"
echo "admin: $(stat --format '%a %G' /run/ltkmd/admin.sock) $(curl -s --unix-socket /run/ltkmd/admin.sock http://a/readyz)"

systemctl reload ltkmd.service
await StatusText 'configuration read again'
echo "reload: $(property StatusText), pid $([ "$main" = "$(property MainPID)" ] && echo the same)"

# Restarted and killed while somebody calls all the time.
for _ in $(seq 150); do ask; echo; done | sort | uniq -c > /run/calls &
calls=$!
systemctl restart ltkmd.service
systemctl kill --kill-whom=main --signal=KILL ltkmd.service
await NRestarts 1
wait $calls
# One call may have been in the hands of the process that was killed.
echo "calls: $(awk '$2 == 404 { answered = $1 } END { print (answered >= 149 ? "answered" : "not answered") }' /run/calls)"

# A process that does not run pings no watchdog.
before=$(property NRestarts)
kill -STOP "$(property MainPID)"
await NRestarts $((before + 1))
await ActiveState active
echo "hang: restarted $(($(property NRestarts) - before)), $(property ActiveState)"

systemctl stop ltkmd.service 2>/dev/null
echo "stop: $(property ActiveState) $(property Result) $(property ExecMainStatus)"
echo "afterwards: $(stat --format %F /run/ltkmd/admin.sock), called again: $(ask)"
echo "end"
