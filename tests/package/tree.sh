#!/bin/sh
# The machine's own system, of which nothing is written to, as the tree that the package is installed into:
# tree.sh PLACE. The packages are PLACE/*.deb; from here on it is as in tests/systemd/boot.sh.
set -eu
place=$1
here=$(dirname "$0")

allowed() { "$@" || exit 77; }
allowed mount --make-rprivate /
mkdir -p "$place/tree"
allowed mount -t tmpfs -o mode=755 tmpfs "$place/tree"
mkdir "$place/tree/upper" "$place/tree/work" "$place/tree/root"
root=$place/tree/root
allowed mount -t overlay -o "lowerdir=/,upperdir=$place/tree/upper,workdir=$place/tree/work" overlay "$root"
cp "$here/../systemd/boot.sh" "$place/boot.sh"
mkdir -p "$root$place"
allowed mount --bind "$place" "$root$place"
for name in proc sys dev; do
    allowed mount --rbind "/$name" "$root/$name"
done
cd "$root"
allowed pivot_root . mnt
umount -l /mnt

# Of all units there are those alone that the package brings, and those of the boot.
for directory in /usr/lib/systemd/system /etc/systemd/system; do
    allowed mount -t tmpfs -o mode=755 tmpfs "$directory"
done
# Where a machine is made from an image, this keeps packages from starting anything.
rm -f /usr/sbin/policy-rc.d
exec sh "$place/boot.sh" "$place" /etc/systemd/system:/usr/lib/systemd/system
