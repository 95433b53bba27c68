#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The machinery of bench/run: turns, medians, ratios, cost of a program, clean-up.

Needs neither ringdisk nor any peer."""
import json
import os
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
BENCH = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH), str(BENCH.parent / "interop")]

import peers  # noqa: E402  (the path above comes first)
from harness import contest, report, usage, world  # noqa: E402


def series(name, *values):
    """A Series of one metric, "seconds"."""
    return contest.Series(name, [{"seconds": value} for value in values])


class ContestTest(unittest.TestCase):
    """Contenders take turns, and medians decide."""

    def test_each_round_begins_with_another_contender(self):
        seen = []
        contenders = [contest.Contender(name, lambda name=name: {"seconds": seen.append(name) or 1})
                      for name in "ABC"]
        found = contest.alternate(contenders, 4, lambda text: None)
        self.assertEqual("".join(seen), "ABC" "BCA" "CAB" "ABC")
        self.assertEqual([len(one.samples) for one in found.values()], [4, 4, 4])

    def test_each_run_is_prepared_and_the_first_one_verified(self):
        seen = []
        contender = contest.Contender("A", lambda: {"seconds": seen.append("run") or 1},
                                      lambda: seen.append("prepare"), lambda: seen.append("verify"))
        contest.alternate([contender], 2, lambda text: None)
        self.assertEqual(seen, ["prepare", "run", "verify", "prepare", "run"])

    def test_a_warm_up_is_not_counted(self):
        times = iter([9.0, 1.0, 2.0])
        found = contest.alternate([contest.Contender("A", lambda: {"seconds": next(times)})], 2,
                                  lambda text: None, warm=True)
        self.assertEqual(found["A"].spread("seconds"), (1.0, 2.0))

    def test_one_slow_run_does_not_decide(self):
        slow_once, steady = series("slow once", 1.0, 9.0, 1.1), series("steady", 2.0, 2.0, 2.0)
        self.assertIs(contest.least([steady, slow_once], "seconds"), slow_once)
        self.assertIs(contest.most([steady, slow_once], "seconds"), steady)

    def test_limits_count_as_met_on_the_edge_and_not_beyond(self):
        three, four = series("three", 3.0), series("four", 4.0)
        self.assertTrue(contest.check_at_most("", three, four, "seconds", 0.75).met)
        self.assertFalse(contest.check_at_most("", three, four, "seconds", 0.74).met)
        self.assertTrue(contest.check_at_least("", three, four, "seconds", 0.75).met)
        self.assertFalse(contest.check_at_least("", three, four, "seconds", 0.76).met)


class UsageTest(unittest.TestCase):
    """What a program costs is told by the kernel."""

    def test_cpu_time_wall_time_and_output_are_those_of_the_program(self):
        sample, output = usage.run_measured(
            [sys.executable, "-c",
             "import time; print('said')\nwhile time.process_time() < 0.3: pass"])
        self.assertEqual(output, "said\n")
        self.assertGreaterEqual(sample["cpu_seconds"], 0.3)
        self.assertGreaterEqual(sample["seconds"], 0.3)
        self.assertGreater(sample["memory_mib"], 1)

    def test_a_program_that_fails_is_no_measurement(self):
        with self.assertRaisesRegex(peers.PeerFailed, "(?s)exit status 3.*why"):
            usage.run_measured([sys.executable, "-c", "print('why'); exit(3)"])

    def test_the_cpu_time_of_a_running_process_grows(self):
        before = usage.cpu_seconds_of(os.getpid())
        while usage.cpu_seconds_of(os.getpid()) < before + 0.05:
            pass


class WorldTest(unittest.TestCase):
    """What is left behind by a killed run goes; what a running one owns stays."""

    def test_only_directories_of_ended_processes_are_removed(self):
        with tempfile.TemporaryDirectory() as base:
            base = pathlib.Path(base)
            ended, running, other = (base / f"{world.PREFIX}{owner}"
                                     for owner in (2 ** 30, os.getppid(), "notes"))
            for directory in (ended, running, other):
                directory.mkdir()
            with self.assertRaises(ZeroDivisionError), world._directory(base) as own:
                self.assertEqual({*base.iterdir()}, {own, running, other})
                raise ZeroDivisionError
            self.assertEqual({*base.iterdir()}, {running, other})


class ReportTest(unittest.TestCase):
    """A report shows medians, what was met, and what could not be measured."""

    def made(self, revision):
        """A report of a run without results."""
        return report.Report({"revision": revision}, {"ringdisk": "1"}, {})

    def test_failures_and_unmet_targets_are_shown(self):
        ours, theirs = series("ringdisk", 3.0, 2.0, 7.0), series("theirs", 2.0)
        made = self.made("a")
        made.add("one", contest.Result("a title", {"seconds": "s"}, [ours, theirs], [
            contest.check_at_most("a target", ours, theirs, "seconds", 1)]))
        made.fail("other", "no room")
        self.assertTrue(made.has_failed())
        self.assertEqual(made.summary(), "0 of 2 targets met")
        with tempfile.TemporaryDirectory() as directory:
            made.write(pathlib.Path(directory), ["one", "other"])
            text = (pathlib.Path(directory) / "results.md").read_text(encoding="utf-8")
            kept = json.loads((pathlib.Path(directory) / "results.json").read_text())
        self.assertIn("| ringdisk | 3.000 (2.000 to 7.000) |", text)
        self.assertIn("| a target | 1.50 of theirs | at most 1 | **no** | 1 |", text)
        self.assertIn("0 of 2 targets met", text)
        self.assertIn("no room", text)
        found = kept["runs"][0]["measurements"]["one"]["results"][0]
        self.assertEqual(found["contenders"][0]["medians"], {"seconds": 3.0})

    def test_a_run_replaces_what_it_measured_and_leaves_the_rest(self):
        first, second = self.made("first"), self.made("second")
        for name in ("one", "two", "gone"):
            first.fail(name, "in the first run")
        second.fail("two", "in the second run")
        with tempfile.TemporaryDirectory() as directory:
            for made in (first, second):
                made.write(pathlib.Path(directory), ["one", "two"])
            runs = json.loads((pathlib.Path(directory) / "results.json").read_text())["runs"]
        self.assertEqual([(run["machine"]["revision"], list(run["measurements"])) for run in runs],
                         [("first", ["one"]), ("second", ["two"])])


if __name__ == "__main__":
    unittest.main(verbosity=2)
