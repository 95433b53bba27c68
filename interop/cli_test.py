# SPDX-License-Identifier: Apache-2.0
"""The command line against qemu-img: what info, map, create and check print, exit statuses, and
one clear line for every kind of bad input."""
import json
import os
import signal
import subprocess
import time

import peers

MIB = 1 << 20
# Of create; qemu-img has none such.
OPTIONS_OF_OURS = ("compression_level", "encrypt.pbkdf-force-iterations", "encrypt.uuid")


def without(entries, *keys):
    """Dictionaries without `keys`, which not every version of qemu-img prints."""
    return [{key: value for key, value in entry.items() if key not in keys} for entry in entries]


class Output(peers.Case):
    """The same text, or the same JSON, as qemu-img's."""

    def make_raw(self, name="disk.raw", size=10 * MIB):
        path = self.directory / name
        with open(path, "wb") as disk:
            disk.truncate(size)
            disk.seek(MIB)
            disk.write(os.urandom(64 << 10))
            disk.seek(5 * MIB)
            disk.write(os.urandom(4096))
        return path

    def make_qcow2(self, name, *options, size="64M"):
        path = self.directory / name
        peers.qemu_img("create", "-q", "-f", "qcow2", *options, path, size)
        return path

    def same_info(self, *arguments):
        ours = json.loads(peers.ringdisk("info", "--output=json", *arguments).stdout)
        theirs = json.loads(peers.qemu_img("info", "--output=json", *arguments).stdout)
        if isinstance(theirs, list):
            self.assertEqual(ours, without(theirs, "children"))
        else:
            self.assertEqual(ours, without([theirs], "children")[0])

    def same_text(self, *arguments):
        ours = peers.ringdisk("info", *arguments).stdout
        theirs = peers.qemu_img("info", *arguments).stdout
        self.assertEqual(ours.rstrip(), theirs.split("Child node")[0].rstrip())

    def test_info_of_raw(self):
        disk = self.make_raw()
        self.same_info("-f", "raw", disk)
        self.same_text("-f", "raw", disk)
        self.same_info(disk)

    def test_info_of_qcow2(self):
        for number, options in enumerate(([], ["-o", "compat=0.10"],
                                          ["-o", "cluster_size=4k,refcount_bits=1"],
                                          ["-o", "lazy_refcounts=on"])):
            disk = self.make_qcow2(f"{number}.qcow2", *options)
            self.same_info(disk)
            self.same_text(disk)

    def test_info_of_a_chain_and_of_snapshots(self):
        base = self.make_qcow2("base.qcow2")
        disk = self.make_qcow2("top.qcow2", "-b", base.name, "-F", "qcow2")
        self.same_text(disk)
        # The columns of the snapshot table differ between versions of qemu-img; JSON does not.
        peers.qemu_img("snapshot", "-c", "before", disk)
        self.same_info(disk)
        self.assertIn("before", peers.ringdisk("info", disk).stdout)
        self.same_info("--backing-chain", disk)

    def test_map(self):
        raw = self.make_raw(size=12 * MIB + 512)
        disk = self.directory / "disk.qcow2"
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, disk)
        overlay = self.make_qcow2("overlay.qcow2", "-b", disk.name, "-F", "qcow2")
        peers.qemu_io(overlay, ["write -P 7 2M 64k", "write -z 5M 64k"])
        for image in (["-f", "raw", raw], [disk], [overlay]):
            ours = json.loads(peers.ringdisk("map", "--output=json", *image).stdout)
            theirs = peers.qemu_map(image[-1], *image[:-1])
            self.assertEqual(without(ours, "compressed"), without(theirs, "compressed"))
            self.assertEqual(peers.ringdisk("map", *image).stdout,
                             peers.qemu_img("map", *image).stdout)

    def test_a_description_of_a_file_alone_is_its_bytes(self):
        disk = self.make_qcow2("disk.qcow2")
        alone = f"driver=file,filename={disk}"
        ours = json.loads(peers.ringdisk("info", "--output=json", "--image-opts", alone).stdout)
        theirs = json.loads(peers.qemu_img("info", "--output=json", "--image-opts", alone).stdout)
        for key in ("format", "virtual-size", "filename"):
            self.assertEqual(ours[key], theirs[key], key)
        self.assertEqual(ours["format"], "file")
        self.assertEqual(peers.ringdisk("check", "--image-opts", alone, expect=None).returncode,
                         peers.qemu_img("check", "--image-opts", alone, expect=None).returncode)
        copy = self.directory / "copy"
        peers.ringdisk("convert", "-O", "raw", "--image-opts", alone, copy)
        self.assertEqual(copy.read_bytes()[:512], disk.read_bytes()[:512])
        part = f"driver=raw,offset=64k,size=4k,file.filename={disk}"
        for program in (peers.ringdisk, peers.qemu_img):
            shown = json.loads(program("info", "--output=json", "--image-opts", part).stdout)
            self.assertEqual(shown["virtual-size"], 4096)

    def test_an_image_may_be_a_part_of_a_file(self):
        disk = self.make_qcow2("disk.qcow2")
        peers.qemu_io(disk, ["write -q -P 7 1M 200k"])
        length = disk.stat().st_size + MIB
        bundle, copy = self.directory / "bundle", self.directory / "copy"
        bundle.write_bytes(b"x" * 1000 + disk.read_bytes() + bytes(MIB) + b"y" * 3000)
        part = (f"driver=qcow2,file.driver=raw,file.offset=1000,file.size={length},"
                f"file.file.filename={bundle}")
        described = json.dumps({"driver": "qcow2", "file": {
            "driver": "raw", "offset": 1000, "size": length, "file": {"filename": str(bundle)}}})
        for name in (["--image-opts", part], [f"json:{described}"]):
            for program in (peers.ringdisk, peers.qemu_img):
                program("check", *name)
                program("convert", "-O", "qcow2", *name, copy)
                peers.qemu_img("compare", "-f", "qcow2", "-F", "qcow2", disk, copy)
        self.assertEqual(
            *(json.loads(program("map", "--output=json", "--image-opts", part).stdout)
              for program in (peers.ringdisk, peers.qemu_img)))
        peers.ringdisk("snapshot", "-c", "one", "--image-opts", part)
        self.assertIn("one", peers.qemu_img("snapshot", "-l", "--image-opts", part).stdout)
        whole = bundle.read_bytes()
        self.assertEqual(len(whole), 1000 + length + 3000)
        self.assertEqual((whole[:1000], whole[-3000:]), (b"x" * 1000, b"y" * 3000))

    def test_a_part_of_a_file_has_its_backing_image_beside_the_file(self):
        base = self.make_qcow2("base.qcow2")
        peers.qemu_io(base, ["write -q -P 7 1M 200k"])
        top = self.directory / "top.qcow2"
        peers.qemu_img("create", "-q", "-f", "qcow2", "-b", base.name, "-F", "qcow2", top)
        both, copy = self.directory / "both", self.directory / "copy"
        both.write_bytes(bytes(512) + top.read_bytes())
        part = f"driver=qcow2,file.driver=raw,file.offset=512,file.file.filename={both}"
        peers.ringdisk("convert", "-O", "qcow2", "--image-opts", part, copy)
        peers.qemu_img("compare", base, copy)
        # Both in one file, which is no loop.
        both.write_bytes(base.read_bytes() + top.read_bytes())
        length = base.stat().st_size
        part = (f"driver=qcow2,file.driver=raw,file.offset={length},file.file.filename={both},"
                f"backing.driver=qcow2,backing.file.driver=raw,backing.file.offset=0,"
                f"backing.file.size={length},backing.file.file.filename={both}")
        peers.ringdisk("convert", "-O", "qcow2", "--image-opts", part, copy)
        peers.qemu_img("compare", base, copy)
        for wrong in ("file.offset=1G", "file.size=1G", "file.nosuch=1", "file.driver=qcow2"):
            done = peers.ringdisk("info", "--image-opts", part + "," + wrong, expect=1)
            self.assertRegex(done.stderr, "beyond the end|no option|no storage driver")

    def test_the_map_of_nothing_is_an_empty_list(self):
        empty, disk = self.directory / "empty.raw", self.make_raw()
        empty.touch()
        for words in ([empty], ["--max-length=0", disk], ["--start-offset=1T", disk]):
            done = peers.ringdisk("map", "--output=json", "-f", "raw", *words)
            self.assertEqual(json.loads(done.stdout), [])
        self.assertEqual(peers.ringdisk("map", "-f", "raw", empty).stdout,
                         peers.qemu_img("map", "-f", "raw", empty).stdout)

    def test_an_odd_size_becomes_whole_sectors(self):
        for size in (1, 511, 513, 1000):
            disk = self.directory / "odd.qcow2"
            peers.ringdisk("create", "-q", "-f", "qcow2", disk, str(size))
            self.assertEqual(peers.qemu_info(disk)["virtual-size"], (size + 511) // 512 * 512)

    def test_a_backing_image_of_the_source_is_no_target(self):
        base, top = self.directory / "base.qcow2", self.directory / "top.qcow2"
        peers.qemu_img("create", "-f", "qcow2", base, "1M")
        peers.qemu_img("create", "-f", "qcow2", "-b", base.name, "-F", "qcow2", top)
        before = base.read_bytes()
        done = peers.ringdisk("convert", "-U", "-O", "qcow2", top, base, expect=1)
        self.assertIn("is a backing image of the source", done.stderr)
        self.assertEqual(base.read_bytes(), before)

    def test_the_help_of_options_is_laid_out_as_qemu_imgs(self):
        for image_format in ("raw", "qcow2"):
            words = ["create", "-f", image_format, "-o", "help", "x"]
            theirs = {line.split("- ")[0] for line in peers.qemu_img(*words).stdout.splitlines()}
            for line in peers.ringdisk(*words).stdout.splitlines():
                if line.split("=")[0].strip() not in OPTIONS_OF_OURS:
                    self.assertIn(line.split("- ")[0], theirs)

    def test_create(self):
        for number, options in enumerate((["-f", "raw"], ["-f", "raw", "-o", "preallocation=full"],
                                          ["-f", "qcow2"],
                                          ["-f", "qcow2", "-o", "cluster_size=8k"])):
            ours, theirs = self.directory / f"{number}.ours", self.directory / f"{number}.theirs"
            peers.ringdisk("create", *options, ours, "3M")
            peers.qemu_img("create", *options, theirs, "3M")
            one, other = peers.qemu_info(ours), peers.qemu_info(theirs)
            for key in ("virtual-size", "format", "cluster-size", "format-specific"):
                self.assertEqual(one.get(key), other.get(key))
        self.assertEqual(peers.ringdisk("create", "-q", self.directory / "quiet", "1M").stdout, "")

    def test_what_create_says(self):
        options = [[], ["-o", "cluster_size=4k,preallocation=metadata"], ["-o", "compat=0.10"],
                   ["-o", "lazy_refcounts=on,refcount_bits=64,compression_type=zstd"]]
        for asked in options:
            path = self.directory / "new.qcow2"
            words = ["create", "-f", "qcow2", *asked, path, "3M"]
            self.assertEqual(peers.ringdisk(*words).stdout, peers.qemu_img(*words).stdout)

    def test_check(self):
        disk = self.make_qcow2("disk.qcow2")
        peers.qemu_io(disk, ["write -P 1 0 1M"])
        self.assertEqual(json.loads(peers.ringdisk("check", "--output=json", disk).stdout),
                         peers.qemu_check(disk))
        self.assertEqual(peers.ringdisk("check", disk).stdout,
                         peers.qemu_img("check", disk).stdout)
        peers.ringdisk("check", self.make_raw(), expect=63)


class Convert(peers.Case):
    """Both directions, against qemu-img, byte for byte."""

    def setUp(self):
        super().setUp()
        self.raw = self.directory / "source.raw"
        with open(self.raw, "wb") as disk:
            disk.truncate(40 * MIB)
            for at, length in ((0, 5000), (3 * MIB + 512, 2 * MIB), (39 * MIB, MIB)):
                disk.seek(at)
                disk.write(os.urandom(length))

    def test_there_and_back(self):
        disk, back = self.directory / "disk.qcow2", self.directory / "back.raw"
        peers.ringdisk("convert", "-f", "raw", "-O", "qcow2", self.raw, disk)
        peers.qemu_check(disk)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, disk)
        peers.ringdisk("convert", "-O", "raw", disk, back)
        peers.require_same(self.raw, back)
        self.assertLess(os.stat(back).st_blocks * 512, 5 * MIB)

    def test_over_an_existing_target(self):
        target = self.directory / "target.raw"
        target.write_bytes(os.urandom(40 * MIB))
        peers.ringdisk("convert", "-n", "-f", "raw", "-O", "raw", self.raw, target)
        peers.require_same(self.raw, target)

    def test_on_the_other_loop(self):
        back = self.directory / "back.raw"
        done = peers.ringdisk("convert", "-v", "-f", "raw", "-O", "raw", self.raw, back,
                              environment={"RINGDISK_LOOP": "epoll"})
        self.assertIn("epoll", done.stderr)
        peers.require_same(self.raw, back)

    def test_progress_as_json_lines(self):
        done = peers.ringdisk("convert", "--progress=json", "-f", "raw", self.raw,
                              self.directory / "x.raw")
        last = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual((last["done"], last["total"]), (40 * MIB, 40 * MIB))

    def test_a_full_disk_is_said_and_leaves_no_target(self):
        target = self.directory / "target.raw"
        done = peers.ringdisk("convert", "-S", "0", "-f", "raw", "-O", "qcow2", self.raw, target,
                              expect=1, file_bytes_max=8 * MIB)
        self.assertIn("target.raw", done.stderr)
        self.assertFalse(target.exists())

    def test_a_target_that_cannot_be_removed_is_spoken_of(self):
        """One that has no name that could be taken away, but a descriptor."""
        words = [peers.ringdisk_path(), "convert", "-S", "0", "-f", "raw", "-O", "qcow2", self.raw,
                 "/proc/self/fd/0"]
        done = peers.run(["sh", "-c", 'exec "$@" 0<>target.raw', "sh", *words], expect=1,
                         cwd=self.directory, file_bytes_max=8 * MIB)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 2, done.stderr)
        self.assertIn("/proc/self/fd/0: holds nothing of use, and could not be removed: ", lines[0])
        self.assertIn("File too large", lines[1])

    def test_an_interrupted_convert_leaves_no_target(self):
        big, target = self.directory / "big.raw", self.directory / "target.raw"
        with open(big, "wb") as disk:
            disk.truncate(1 << 40)
        process = subprocess.Popen([peers.ringdisk_path(), "convert", "-S", "0", "--threads", "1",
                                    "-f", "raw", big, target], stderr=subprocess.PIPE, text=True)
        while not target.exists() or target.stat().st_blocks == 0:
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.assertIn("interrupted", said)
        self.assertFalse(target.exists())


class Calibration(peers.Case):
    """bench --calibrate has nothing to compare with but the options it is given."""

    def kernels(self, features):
        lines = peers.ringdisk("bench", "--calibrate", "--cpu-features", features).stdout
        return {line[33:].split()[0] for line in lines.splitlines() if "GB/s" in line}

    def test_it_tries_no_kernel_beyond_cpu_features(self):
        self.assertEqual(self.kernels("none"), {"openssl"})
        there = self.kernels("auto")
        for kernel, more in (("aesni", {"vaes256", "vaes512"}), ("vaes256", {"vaes512"})):
            if kernel in there:
                self.assertEqual(self.kernels(kernel), there - more)


class BadInput(peers.Case):
    """One line with the name in it, exit status 1, nothing left behind."""

    def refused(self, *arguments, says=()):
        done = peers.ringdisk(*arguments, expect=1)
        first = done.stderr.splitlines()[0]
        self.assertTrue(first.startswith("ringdisk: "), first)
        for words in says:
            self.assertIn(words, first)

    def test_names_that_are_no_image(self):
        absent, folder = self.directory / "absent", self.directory
        for command in ("info", "map", "check"):
            self.refused(command, absent, says=["absent", "No such file"])
            self.refused(command, folder, says=[str(folder)])
        self.refused("convert", absent, self.directory / "x", says=["absent"])
        self.assertFalse((self.directory / "x").exists())

    def test_what_is_not_in_the_format_it_is_said_to_be_in(self):
        disk = self.directory / "disk.raw"
        disk.write_bytes(b"no image" * 100)
        self.refused("info", "-f", "qcow2", disk, says=["disk.raw", "qcow2"])
        self.refused("info", "-f", "nope", disk, says=["nope"])

    def test_options_are_named(self):
        new = self.directory / "new"
        self.refused("create", "-f", "raw", "-o", "colour=red", new, "1M", says=["colour"])
        self.refused("create", "-f", "qcow2", "-o", "colour=red", new, "1M", says=["colour"])
        self.refused("create", new, says=["size"])
        self.refused("create", new, "1Q", says=["1Q"])
        self.refused("convert", "--what", new, new, says=["--what"])
        self.refused("convert", "-c", new, new, says=["-c"])
        self.refused("frobnicate", says=["frobnicate"])
        self.assertFalse(new.exists())

    def test_options_of_descriptions_are_named(self):
        disk = self.directory / "disk.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", disk, "1M")
        for command in ("info", "check", "map"):
            for option in ("colour", "file.colour"):
                self.refused(command, "--image-opts",
                             f"driver=qcow2,file.filename={disk},{option}=red",
                             says=["disk.qcow2", "colour"])
            self.refused(command, "--image-opts", f"driver=file,filename={disk},colour=red",
                         says=["disk.qcow2", "colour"])
            # Refused by qemu-img, too.
            for description in (f"driver=qcow2,filename={disk}", f"filename={disk}"):
                self.refused(command, "--image-opts", description, says=["file.filename="])
                peers.qemu_img(command, "--image-opts", description, expect=1)
        peers.ringdisk("info", "--image-opts",
                       f"driver=qcow2,l2-cache-size=1M,file.filename={disk},file.locking=off")

    def test_errors_of_create_name_the_image(self):
        new = self.directory / "new"
        for options, named in (("cluster_size=3k", "cluster"), ("cluster_size=big", "cluster_size"),
                               ("lazy_refcounts=perhaps", "lazy_refcounts"), ("compat=9", "compat"),
                               ("colour=red", "colour"), ("=red", "no name"), ("size=1Q", "1Q")):
            self.refused("create", "-f", "qcow2", "-o", options, new,
                         *([] if "size=1" in options else ["1M"]), says=[str(new), named])
        self.refused("create", "-f", "raw", "-o", "preallocation=metadata", new, "1M",
                     says=[str(new), "preallocation"])
        self.refused("create", new, "1Q", says=[str(new), "1Q"])
        # Nobody could open an image over what has no such format, however it is named.
        for words in (("-b", "base", "-F", "garbage"), ("-b", "base", "-F", "RAW"),
                      ("-o", "backing_file=base,backing_fmt=garbage")):
            self.refused("create", "-u", "-f", "qcow2", *words, new, "1M",
                         says=[str(new), "no image format"])
            peers.qemu_img("create", "-u", "-f", "qcow2", *words, new, "1M", expect=1)
        self.assertFalse(new.exists())
        peers.ringdisk("create", "-q", "-u", "-f", "qcow2", "-b", "base", "-F", "vmdk", new, "1M")

    def test_exports_without_a_name_of_their_own_are_refused(self):
        disk = self.directory / "disk.raw"
        disk.write_bytes(bytes(4096))
        for names in (["--name", "a"], ["--name", "a", "--name", "b", "--name", "c"]):
            self.refused("serve", "-f", "raw", disk, disk, *names, "--nbd",
                         f"unix:{self.directory}/sock", says=["--name", "2 images"])

    def test_an_image_does_not_become_part_of_its_own_backing_chain(self):
        for name, backing in (("a", None), ("b", "a"), ("c", "b")):
            below = ["-b", f"{backing}.qcow2", "-F", "qcow2"] if backing else []
            peers.ringdisk("create", "-q", "-f", "qcow2", *below,
                           self.directory / f"{name}.qcow2", "1M")
        target = self.directory / "a.qcow2"
        before = target.read_bytes()
        self.refused("create", "-q", "-f", "qcow2", "-b", "c.qcow2", "-F", "qcow2", target,
                     says=["a.qcow2", "own backing file", "c.qcow2"])
        self.refused("convert", "-O", "qcow2", "-B", "c.qcow2", "-F", "qcow2",
                     self.directory / "b.qcow2", target, says=["a.qcow2"])
        self.assertEqual(target.read_bytes(), before)
        # Nothing is wrong with a new one on top, nor with one that nobody looks at.
        peers.ringdisk("create", "-q", "-f", "qcow2", "-b", "c.qcow2", "-F", "qcow2",
                       self.directory / "d.qcow2")
        peers.ringdisk("create", "-q", "-f", "qcow2", "-u", "-b", "absent", "-F", "raw",
                       self.directory / "e.qcow2", "1M")

    def test_an_image_is_not_its_own_backing_file(self):
        path = self.directory / "base.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", path, "1M")
        before = path.read_bytes()
        peers.ringdisk("create", "-f", "qcow2", "-b", path, "-F", "qcow2", path, expect=1)
        self.assertEqual(path.read_bytes(), before)

    def test_a_backing_file_that_is_not_let_in_is_said_with_the_image(self):
        disk = self.directory / "top.qcow2"
        peers.qemu_img("create", "-u", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", disk,
                       "1M")
        for words in (["info", "--backing-chain", disk], ["map", disk], ["commit", disk],
                      ["rebase", "-b", "", disk]):
            done = peers.ringdisk(*words, expect=1)
            self.assertTrue(done.stderr.startswith(
                f"ringdisk: {disk}: backing file '/etc/hostname' lies outside"), done.stderr)

    def test_unknown_features_are_named_by_every_command(self):
        path = self.directory / "future.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", path, "1M")
        with open(path, "r+b") as image:
            image.seek(72)
            image.write((1 << 40).to_bytes(8, "big"))
        for words in (["info"], ["check"], ["map"], ["convert", "-O", "raw"]):
            target = [self.directory / "target.raw"] if words[0] == "convert" else []
            done = peers.ringdisk(*words, path, *target, expect=1)
            self.assertIn("bit 40", done.stderr)
            self.assertIn("future.qcow2", done.stderr)

    def test_names_in_images_do_not_reach_the_terminal_as_they_are(self):
        path = self.directory / "overlay.qcow2"
        peers.ringdisk("create", "-q", "-u", "-f", "qcow2", "-b", "base\x1b[2J\n.raw", "-F", "raw",
                       path, "1M")
        done = peers.ringdisk("map", path, expect=1)
        self.assertNotIn("\x1b", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_the_source_is_not_the_target(self):
        disk = self.directory / "disk.raw"
        pattern_bytes = os.urandom(MIB)
        disk.write_bytes(pattern_bytes)
        for words in ([], ["-n"]):
            self.refused("convert", *words, "-f", "raw", disk, disk,
                         says=["disk.raw", "source and target are the same image"])
            self.assertEqual(disk.read_bytes(), pattern_bytes)

    def test_a_target_that_is_too_small(self):
        disk, small = self.directory / "disk.raw", self.directory / "small.raw"
        disk.write_bytes(bytes(2 * MIB))
        small.write_bytes(os.urandom(MIB))
        before = small.read_bytes()
        self.refused("convert", "-n", "-f", "raw", "-O", "raw", disk, small, says=["smaller"])
        self.assertEqual(small.read_bytes(), before)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
