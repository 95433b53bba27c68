#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Tests of the counting in scripts/run-tests and of the verdicts in scripts/fuzz: what is missing,
# crashed, skipped or blind must not be taken for a pass.
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SCRIPTS = os.path.dirname(os.path.abspath(__file__))


def load(name):
    """The script `name`, which has no .py, as a module."""
    path = os.path.join(SCRIPTS, name)
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


run_tests = load("run-tests")
fuzz = load("fuzz")

# As ctest 3.25 writes them.
PASSED = '<testcase name="a/A.B" status="run"><system-out>[  PASSED  ]</system-out></testcase>'
FAILED = ('<testcase name="a/A.C" status="fail"><failure message=""/>'
          "<system-out>1 is not 2</system-out></testcase>")
SKIPPED = ('<testcase name="a/A.D" status="notrun">'
           '<skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
           "<system-out>x.cc:18: Skipped\nno device here\n[  SKIPPED ] A.D</system-out></testcase>")
SKIPPED_SCRIPT = ('<testcase name="interop/x" status="notrun">'
                  '<skipped message="SKIP_RETURN_CODE=77"/>'
                  "<system-out>looking\nno kernel driver</system-out></testcase>")
DISABLED = '<testcase name="a/A.E" status="disabled"><system-out>Disabled</system-out></testcase>'
NOT_BUILT = ('<testcase name="a_test_NOT_BUILT" status="notrun">'
             '<skipped message="Unable to find executable"/>'
             "<system-out>Unable to find executable: a_test</system-out></testcase>")


def counted(*cases, status=0):
    """(passed, failed, skipped) and the cases after ctest ended with `status`."""
    run = run_tests.Run()
    with tempfile.NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as junit:
        junit.write("<testsuite>" + "".join(cases) + "</testsuite>")
        junit.flush()
        with contextlib.redirect_stdout(io.StringIO()):
            run_tests.add_junit(run, "stage", junit.name, status, "the last lines")
    return run_tests.sum_up(run.cases), run.cases


class Counting(unittest.TestCase):
    def test_each_outcome_counts_once(self):
        sums, _ = counted(PASSED, PASSED, FAILED, SKIPPED, SKIPPED_SCRIPT, DISABLED, status=8)
        self.assertEqual(sums, "2 passed, 1 failed, 3 skipped")

    def test_a_program_that_is_missing_is_a_failure(self):
        sums, _ = counted(PASSED, NOT_BUILT, status=8)
        self.assertEqual(sums, "1 passed, 1 failed, 0 skipped")

    def test_a_runner_that_fails_without_a_failed_case_is_a_failure(self):
        self.assertEqual(counted(PASSED, status=8)[0], "1 passed, 1 failed, 0 skipped")
        self.assertEqual(counted(status=1)[0], "0 passed, 1 failed, 0 skipped")

    def test_the_reason_of_a_skip_is_kept(self):
        _, cases = counted(SKIPPED, SKIPPED_SCRIPT)
        self.assertEqual([case.text for case in cases], ["no device here", "no kernel driver"])

    def test_a_failure_keeps_its_output(self):
        _, cases = counted(FAILED, status=8)
        self.assertIn("1 is not 2", cases[0].text)

    def test_crash_points_are_summed(self):
        points = ('<testcase name="a/CrashTest.X" status="run"><system-out>[ RUN ]\n'
                  "crash points: 120\n[  PASSED  ]\ncrash points: 7\n</system-out></testcase>")
        run = run_tests.Run()
        with tempfile.NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as junit:
            junit.write("<testsuite>" + points + PASSED + points + "</testsuite>")
            junit.flush()
            run_tests.add_junit(run, "stage", junit.name, 0, "")
        self.assertEqual(run.crash_points, 254)

    def test_a_missing_result_file_is_a_failure(self):
        run = run_tests.Run()
        with contextlib.redirect_stdout(io.StringIO()):
            run_tests.add_junit(run, "stage", "/nonexistent.xml", 1, "")
        self.assertEqual(run_tests.sum_up(run.cases), "0 passed, 1 failed, 0 skipped")


class Stages(unittest.TestCase):
    """Two stages that pass at once, begun when `minutes` are over."""

    def run_after(self, minutes, are_chosen):
        def stage(name):
            return run_tests.Stage(name, lambda run: run.add(name, run_tests.PASSED), True)
        self.addCleanup(setattr, run_tests, "STAGES", run_tests.STAGES)
        run_tests.STAGES = {"one": stage("one"), "two": stage("two")}
        run = run_tests.Run()
        run.start -= minutes * 60
        with contextlib.redirect_stdout(io.StringIO()):
            run_tests.run_stages(run, ["one", "two"], are_chosen)
        return run.cases

    def test_all_run_in_time(self):
        cases = self.run_after(run_tests.LATEST_START_MINUTES - 1, False)
        self.assertEqual([case.status for case in cases], [run_tests.PASSED] * 2)

    def test_too_late_none_but_the_first_begins_and_the_others_say_so(self):
        cases = self.run_after(run_tests.LATEST_START_MINUTES + 1, False)
        self.assertEqual([case.status for case in cases], [run_tests.PASSED, run_tests.SKIPPED])
        self.assertIn("not begun after 51 minutes", cases[1].text)

    def test_what_was_chosen_runs_however_late_it_is(self):
        cases = self.run_after(run_tests.LATEST_START_MINUTES + 1, True)
        self.assertEqual([case.status for case in cases], [run_tests.PASSED] * 2)


class Fuzzing(unittest.TestCase):
    """The fuzzers are played by shell scripts."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.addCleanup(setattr, fuzz, "BINARIES", fuzz.BINARIES)
        self.addCleanup(setattr, fuzz, "ROOT", fuzz.ROOT)
        fuzz.BINARIES = fuzz.ROOT = folder.name

    def play(self, name, script):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as out:
            out.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)

    def test_a_canary_that_survives_is_a_failure(self):
        self.assertIn("not built", fuzz.fly_canary())
        self.play("canary_fuzz", "exit 0")
        self.assertIn("blind", fuzz.fly_canary())

    def test_a_canary_that_dies_of_something_else_is_a_failure(self):
        self.play("canary_fuzz", "echo cannot load a library; exit 127")
        self.assertIn("blind", fuzz.fly_canary())

    def test_a_canary_whose_bug_is_found_is_a_pass(self):
        self.play("canary_fuzz", "echo ERROR: AddressSanitizer: heap-buffer-overflow; exit 77")
        self.assertEqual(fuzz.fly_canary(), "")

    def test_a_fuzzer_must_run_inputs_and_survive(self):
        self.play("a_fuzz", "echo stat::number_of_executed_units: 12")
        self.assertEqual(fuzz.fuzz("a_fuzz", 1), ("", 12))
        self.play("a_fuzz", "exit 0")
        self.assertIn("not a single input", fuzz.fuzz("a_fuzz", 1)[0])
        self.play("a_fuzz", "echo stat::number_of_executed_units: 12; exit 77")
        self.assertIn("exit status 77", fuzz.fuzz("a_fuzz", 1)[0])


if __name__ == "__main__":
    unittest.main()
