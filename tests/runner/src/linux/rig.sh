# The beginning of every rig's first process: what the host asks for over the virtio port `control` is done here.
# The host sends "ID COMMAND"; what the command prints comes back as "ID|LINE", its end as "ID=STATUS" (see channel.rs).
# ID 0 is ours: "0|ready" once, or "0|failed: WHY".

note() {
    read -r uptime _ </proc/uptime
    echo "rig $uptime: $*"
}

# The rig cannot be used: say so to whoever waits, and stay for a look at the console.
give_up() {
    note "giving up: $*"
    echo "0|failed: $*" >&3
    sleep 100000
}

# Tries $2... every 50 ms until it succeeds, for 20 s.
patiently() {
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 400 ] || give_up "$what"
        sleep 0.05
    done
}

# Links the virtio ports by the names that QEMU gave them.
link_ports() {
    for port in /sys/class/virtio-ports/*; do
        read -r name <$port/name && ln -sf /dev/${port##*/} /dev/port-$name
    done
    [ -c /dev/port-control ] && [ -c /dev/port-console ]
}

# fetch OFFSET LENGTH FILE: copies bytes that the host put on the shared disk.
fetch() {
    blockdev --flushbufs /dev/vda
    dd if=/dev/vda of=$3 bs=64k iflag=skip_bytes,count_bytes,fullblock skip=$1 count=$2 2>/dev/null
}

# Executes command $2 and sends what it prints and how it ends under the id $1.
answer() {
    { (eval "$2") </dev/null 2>&1 3>&-; echo $? >/tmp/status.$1; } |
        awk -v id="$1" '{ print id "|" $0; fflush() }' >&3
    read -r status </tmp/status.$1
    rm /tmp/status.$1
    echo "$1=$status" >&3
}

# Mounts, modules, ports; from here on file descriptor 3 is the port `control`.
set_up() {
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts
    mount -t devpts pts /dev/pts
    mount -t tmpfs tmp /tmp
    echo 1 >/proc/sys/kernel/printk
    while read -r module; do insmod /lib/modules/$module.ko || note "no $module"; done </lib/modules/order
    rm /lib/modules/*.ko
    tries=0
    until link_ports 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 400 ] || { note "no virtio ports"; break; }
        sleep 0.05
    done
    exec 3<>/dev/port-control
}

# Says that everything is there, then does what the host asks for, for ever.
serve() {
    note "ready"
    echo "0|ready" >&3
    while :; do
        # The host's end may be away for a moment; that reads as the end of a file.
        read -r id command <&3 || { sleep 0.1; continue; }
        answer "$id" "$command" &
    done
}

export PATH=/bin:/usr/bin
