# First process of a node, in namespaces of its own. When it ends, however it ends, the kernel ends all that it started and
# drops the mounts, interfaces and nft tables. The lines before this one set the variables in capitals.
set -eu
export PATH="$PROGRAMS:/usr/sbin:/sbin:/usr/bin:/bin"

# Mounts go from here into containers and never back to the machine.
mount --make-rshared /
# A second hierarchy without controllers (version 1 with `unified`) confuses runtimes.
umount /sys/fs/cgroup/unified 2>/dev/null || true

# Paths that programs have built in. Private ones keep several nodes apart and leave nothing behind.
for place in /run /var/lib /var/log; do
    mount -t tmpfs -o mode=755 tmpfs "$place"
done
# Names are not resolved on the node, so that whatever would be pulled fails at once.
resolv=$(readlink -f /etc/resolv.conf || echo /etc/resolv.conf)
mkdir -p "${resolv%/*}"
[ -e "$resolv" ] || : >"$resolv"
mount --bind "$DIR/resolv.conf" "$resolv"

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p "/sys/fs/cgroup/$CGROUP"
else
    for hierarchy in /sys/fs/cgroup/*; do
        if [ -e "$hierarchy/cgroup.procs" ]; then mkdir -p "$hierarchy/$CGROUP"; fi
    done
    # A new cpuset is empty, and nothing may enter it before it has processors and memory.
    for file in cpuset.cpus cpuset.mems; do
        cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$CGROUP/$file"
    done
fi

# The machine puts eth0 here as soon as it knows this process.
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip -batch "$DIR/network"
echo 1 >/proc/sys/net/ipv4/ip_forward

# Runs a program beside this shell; its status stays behind as a file. Whoever ends it for it to begin anew says so first.
run() {
    name=$1
    shift
    (
        while :; do
            status=0
            "$@" >>"$LOG-$name.log" 2>&1 </dev/null || status=$?
            rm "$DIR/again.$name" 2>/dev/null || break
        done
        echo "$status" >"$DIR/ended.$name"
    ) &
}

run containerd containerd --config "$DIR/containerd.toml"
until ctr -a "$DIR/run/containerd.sock" version >/dev/null 2>&1; do sleep 0.05; done
ctr -a "$DIR/run/containerd.sock" -n k8s.io images import "$IMAGES"

# The machine says that the API server is ready.
until [ -e "$DIR/go" ]; do sleep 0.05; done
run kubelet kubelet --config="$DIR/kubelet.json" --kubeconfig="$DIR/kubelet.kubeconfig" --hostname-override="$NAME" --node-ip="$ADDRESS" --root-dir="$DIR/kubelet"
run kube-proxy kube-proxy --config="$DIR/kube-proxy.json"
run coredns coredns -conf "$DIR/Corefile"

# Collects the dead: shims of containers become children of the first process.
while :; do
    wait
    sleep 1
done
