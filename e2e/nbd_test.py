#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""File systems over the kernel's own NBD client: what it writes to `ringdisk serve` is there
afterwards, also when the server was killed; many connections are one disk; trims give space back.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "interop"))

import peers  # noqa: E402  (the path is set above)
import vm  # noqa: E402

TOOLS = ("nbd-client", "mkfs.ext4", "e2fsck")
IMAGE = "/tmp/disk.qcow2"

# Functions of the scripts. `serve` waits until the server says that it is ready.
FUNCTIONS = r"""
serve() {
  rm -f /run/nbd.sock  # a killed server leaves it
  ringdisk serve --nbd unix:/run/nbd.sock "$@" >/run/server.log 2>&1 &
  echo $! >/run/server.pid
  while kill -0 $(cat /run/server.pid); do
    if grep -q '^ringdisk: ready' /run/server.log; then return; fi
    usleep 50000
  done
  cat /run/server.log
  return 1
}
attach() { nbd-client -unix /run/nbd.sock /dev/nbd0 "$@"; }
detach() { nbd-client -d /dev/nbd0; }
stop() {
  local pid; pid=$(cat /run/server.pid)
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do usleep 50000; done
  cat /run/server.log
}
equal() { [ "$1" = "$2" ] || { echo "$1 instead of $2"; return 1; }; }
forget_cache() { sync; echo 3 >/proc/sys/vm/drop_caches; }
blocks_mib() { echo $(($(stat -c %b "$1") / 2048)); }
# below_mib MIB FILE: waits until the file takes less; holes are punched some time after a flush
below_mib() {
  for _ in $(seq 200); do
    if [ "$(blocks_mib "$2")" -lt "$1" ]; then return; fi
    usleep 100000
  done
  echo "$2 takes $(blocks_mib "$2") MiB"
  return 1
}
"""


class KernelClient(vm.Case):
    """An empty qcow2 image for each test, served in the guest and attached as /dev/nbd0."""

    @classmethod
    def machine(cls):
        return {"modules": ["nbd nbds_max=1"], "tools": TOOLS, "add": [peers.ringdisk_path()],
                "cores": 4,  # the kernel makes no more queues than that
                # A killed server makes the kernel complain about the disk, and rightly so.
                "forgiven": r"I/O error.* (nbd0|superblock)"}

    def setUp(self):
        self.run_script(f"rm -f {IMAGE}; ringdisk create -f qcow2 {IMAGE} 256M")

    def tearDown(self):
        # For the next test, after one that failed half-way.
        self.run_script("set +e; umount /mnt; detach; kill -KILL $(cat /run/server.pid)",
                        expect=None)

    def run_script(self, script, **options):
        return self.guest.run(f"{FUNCTIONS}\n{script}", **options)

    def check(self, *statuses):
        """The image must check clean, or end with one of `statuses`."""
        status = self.run_script(f"status=0; ringdisk check {IMAGE} >/tmp/check.log 2>&1 || "
                                 "status=$?; cat /tmp/check.log; echo status $status")
        self.assertIn(int(status.split()[-1]), (0, *statuses), status)

    def test_a_file_system_holds_what_was_written(self):
        self.run_script(f"""
            serve {IMAGE}; attach
            mkfs.ext4 -q /dev/nbd0
            mount /dev/nbd0 /mnt
            head -c 12m /dev/urandom >/tmp/wanted
            cp /tmp/wanted /mnt/a; cp /tmp/wanted /mnt/b
            mkdir /mnt/d; for i in $(seq 200); do echo "file $i" >/mnt/d/$i; done
            rm /mnt/b; umount /mnt
            e2fsck -f -n /dev/nbd0
            forget_cache
            mount -o ro /dev/nbd0 /mnt
            cmp /tmp/wanted /mnt/a
            for i in $(seq 200); do [ "$(cat /mnt/d/$i)" = "file $i" ]; done
            umount /mnt; detach; stop
            """)
        self.check()

    def test_four_connections_are_one_disk(self):
        self.run_script(f"""
            serve {IMAGE}; attach -connections 4
            equal "$(ls /sys/block/nbd0/mq | wc -l)" 4  # one queue a connection
            mkfs.ext4 -q /dev/nbd0
            mount /dev/nbd0 /mnt
            head -c 3m /dev/urandom >/tmp/wanted
            pids=()
            for i in 1 2 3 4; do
              {{ for n in 1 2 3; do cp /tmp/wanted /mnt/$i-$n; sync; done; }} & pids+=($!)
            done
            for pid in "${{pids[@]}}"; do wait $pid; done
            umount /mnt
            e2fsck -f -n /dev/nbd0
            forget_cache
            mount -o ro /dev/nbd0 /mnt
            for file in /mnt/[1-4]-*; do cmp /tmp/wanted $file; done
            umount /mnt; detach; stop
            """)
        self.check()

    def test_a_killed_server_loses_nothing_that_was_synced(self):
        self.run_script(f"""
            serve {IMAGE}; attach -connections 2
            mkfs.ext4 -q /dev/nbd0
            mount -o errors=remount-ro /dev/nbd0 /mnt
            head -c 8m /dev/urandom >/tmp/wanted
            cp /tmp/wanted /mnt/synced; sync
            while cp /tmp/wanted /mnt/more; do rm /mnt/more; done >/dev/null 2>&1 & writer=$!
            usleep 700000
            kill -KILL $(cat /run/server.pid)
            wait $writer || true
            umount /mnt || true
            detach || true
            """)
        self.check(3)  # clusters that nothing points to may be left, nothing worse
        self.run_script(f"""
            for _ in $(seq 100); do nbd-client -c /dev/nbd0 >/dev/null || break; usleep 50000; done
            serve {IMAGE}; attach -connections 2
            e2fsck -p /dev/nbd0 || [ $? = 1 ]  # the journal is played back
            e2fsck -f -n /dev/nbd0
            mount /dev/nbd0 /mnt
            cmp /tmp/wanted /mnt/synced
            umount /mnt; detach; stop
            """)
        self.check(3)

    def test_discards_give_space_back(self):
        self.run_script(f"""
            serve {IMAGE}; attach
            [ $(cat /sys/block/nbd0/queue/discard_max_bytes) -gt 0 ]
            mkfs.ext4 -q /dev/nbd0
            mount /dev/nbd0 /mnt
            head -c 40m /dev/urandom >/mnt/big; sync
            [ $(blocks_mib {IMAGE}) -ge 40 ]
            rm /mnt/big; sync; fstrim /mnt; sync
            below_mib 15 {IMAGE}
            umount /mnt
            e2fsck -f -n /dev/nbd0
            blkdiscard /dev/nbd0; sync
            below_mib 2 {IMAGE}
            cmp -n 1048576 /dev/nbd0 /dev/zero
            detach; stop
            """)
        self.check()

    def test_a_read_only_export_is_a_read_only_disk(self):
        self.run_script(f"""
            serve --read-only {IMAGE}; attach
            equal "$(cat /sys/block/nbd0/ro)" 1
            if dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 conv=fsync 2>/dev/null; then exit 1; fi
            detach; stop
            """)
        self.check()


if __name__ == "__main__":
    vm.main(needs=TOOLS)
