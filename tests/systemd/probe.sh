#!/bin/bash
# What a person on call would do with the service, under systemd: one line of the output for each thing seen.

property() { systemctl show --property "$1" --value ltkmd.service; }
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

# Nobody has started it: who calls does.
echo "before: $(property ActiveState)"
echo "first call: $(ask)"
echo "then: $(await ActiveState active) $(property Type) $(await StatusText 'ready; 0 registrations, 0 deliveries open')"

main=$(property MainPID)
status() { sed -n "s/^$1:\s*//p" "/proc/$main/status" | tr '\t' ' '; }
echo "user: $(stat --format %U /proc/$main) capabilities $(status CapEff) privileges $(status NoNewPrivs) filter $(status Seccomp)"
echo "sockets: $(tr '\0' '\n' < /proc/$main/environ | sed -n 's/^LISTEN_FDNAMES=//p' | tr : '\n' | sort | tr '\n' ' ')"
echo "credentials: $(ls /run/credentials/ltkmd.service | tr '\n' ' ')"
echo "state: $(stat --format '%A %U' /var/lib/private/ltkmd)"
echo "admin: $(stat --format '%a %G' /run/ltkmd/admin.sock) $(curl -s --unix-socket /run/ltkmd/admin.sock http://a/readyz)"

systemctl reload ltkmd.service
echo "reload: $(await StatusText 'configuration read again'), pid $([ "$main" = "$(property MainPID)" ] && echo the same)"

# Restarted and killed while somebody calls all the time.
for _ in $(seq 150); do ask; echo; done | sort | uniq -c > /run/calls &
calls=$!
systemctl restart ltkmd.service
systemctl kill --kill-whom=main --signal=KILL ltkmd.service
echo "killed: restarted $(await NRestarts 1)"
wait $calls
# One call may have been in the hands of the process that was killed.
echo "calls: $(awk '$2 == 404 { answered = $1 } END { print (answered >= 149 ? "answered" : "not answered") }' /run/calls)"

# A process that does not run pings no watchdog.
kill -STOP "$(property MainPID)"
echo "hang: restarted $(await NRestarts 2), $(await ActiveState active)"

systemctl stop ltkmd.service 2>/dev/null
echo "stop: $(property ActiveState) $(property Result) $(property ExecMainStatus)"
echo "afterwards: $(stat --format %F /run/ltkmd/admin.sock), called again: $(ask)"
echo "end"
