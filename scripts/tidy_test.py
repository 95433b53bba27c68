#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Tests of scripts/tidy. Each rule is shown wrong text, whose lines are marked, and right text,
# and must tell them apart exactly; the last test fails if any rule was not shown both. Trees are
# made up in memory; only one test looks at a folder.
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tidy_rules  # noqa: E402  (the path is set above)
from tidy_rules import fixtures  # noqa: E402
from tidy_rules.coroutine_cases import (  # noqa: E402,F401  (found by unittest)
    CoAwaitPlaces, CoroutineLambdas, OtherTraps)
from tidy_rules.fixtures import CPP_HEADER, SCRIPT_HEADER, SPDX, check, check_at, cpp  # noqa: E402
from tidy_rules.scanner import Scan  # noqa: E402

DEPS = ("base:\nasync: base\nblock: async+\nfile: block+\nnbd: block+\napp: block+ file nbd\n"
        "sim: block+\n")


def include(*paths):
    return "".join(f'#include "{path}"\n' for path in paths)


class Dependencies(unittest.TestCase):
    def deps(self, path, code, deps=DEPS):
        return {"DEPS": deps, **cpp(code, path)}

    def test_refuses_what_deps_does_not_list(self):
        for path, target in (("src/base/x.h", "async/task.h"), ("src/file/x.cc", "nbd/wire.h"),
                             ("src/block/x.cc", "file/file.h"), ("sim/x.cc", "nbd/wire.h"),
                             ("src/file/x.cc", "nowhere/x.h"), ("src/base/x.cc", "sim/loop.h"),
                             ("src/base/x.cc", "base/y_test.h"),
                             ("src/base/x.cc", "x.h"), ("src/base/x.cc", "../base/x.h")):
            with self.subTest(f"{path} includes {target}"):
                check(self, "deps", self.deps(path, f'#include "{target}"  // @bad\n'))

    def test_accepts_lower_ranks_the_own_folder_and_the_system(self):
        code = include("file/x.h", "block/a.h", "base/b.h") + "#include <vector>\n"
        check(self, "deps", self.deps("src/file/x.cc", code))
        check(self, "deps", self.deps("src/app/x.cc", include("nbd/x.h", "file/a.h", "async/b.h")))
        check(self, "deps", self.deps("sim/x.cc", include("sim/x.h", "async/b.h")))
        check(self, "deps", self.deps("src/base/x.cc", '// #include "async/task.h"\n'))

    def test_tests_fuzzers_and_benches_may_include_anything(self):
        for name in ("x_test.cc", "x_fuzz.cc", "x_bench.cc", "x_test.h"):
            code = include("sim/a.h", "nbd/b.h", "base/y_test.h")
            check(self, "deps", self.deps(f"src/base/{name}", code))

    def test_deps_itself_is_read_strictly(self):
        check(self, "deps", {"DEPS": "base:\nasync: nowhere  # @bad\nbase: async  # @bad\n"
                                     "odd  # @bad\n"})

    def test_a_folder_needs_a_line(self):
        check_at(self, "deps", self.deps("src/new/x.cc", ""), [("src/new/x.cc", 1)])

    def test_refuses_include_cycles(self):
        texts = {**cpp('#include "base/b.h"\n', "src/base/a.h"),
                 **cpp('#include "base/c.h"\n', "src/base/b.h"),
                 **cpp('#include "base/a.h"  // @bad\n', "src/base/c.h")}
        check(self, "include_cycles", texts)

    def test_accepts_two_ways_to_one_file(self):
        texts = {**cpp(include("base/b.h", "base/c.h"), "src/base/a.h"),
                 **cpp(include("base/d.h"), "src/base/b.h"),
                 **cpp(include("base/d.h"), "src/base/c.h"), **cpp("", "src/base/d.h")}
        check(self, "include_cycles", texts)

    def test_throwing_libraries_are_wrapped(self):
        code = "#include <CLI/CLI.hpp>{0}\n#include <nlohmann/json.hpp>{0}\n"
        check(self, "throwing_libraries", cpp(code.format("  // @bad"), "src/app/main.cc"))
        check(self, "throwing_libraries", cpp(code.format(""), "src/app/options_throwing.cc"))


class Sizes(unittest.TestCase):
    def function(self, lines, name="void f()"):
        return f"{name} {{%s\n" + "  g();\n" * (lines - 2) + "}\n"

    def test_function_length(self):
        check(self, "sizes", cpp(self.function(71) % "  // @bad"))
        check(self, "sizes", cpp(self.function(70) % ""))

    def test_finds_every_kind_of_function(self):
        for name in ("int A::f(int x) const noexcept", "A::A(int x) : a_{x}, b_(x)", "A::~A()",
                     "template <class T> auto f(T t) -> std::vector<T>", "TEST(Suite, Name)",
                     "bool operator==(const A& a, const A& b)", "constexpr auto kF = []",
                     'extern "C" int f(void)', "struct stat f(int x)", "Task<void> f()"):
            with self.subTest(name):
                end = ";" if "=" in name and "operator" not in name else ""
                text = self.function(71, name) % "  // @bad"
                check(self, "sizes", cpp("namespace n {\n" + text + end + "}\n"))

    def test_a_class_an_enum_and_a_table_are_no_functions(self):
        for name in ("class A", "struct A : B<decltype(c)>", "namespace x", "enum class E : int",
                     "constexpr int kTable[] =", "struct alignas(64) A"):
            check(self, "sizes", cpp(self.function(90, name) % ""))

    def test_long_files(self):
        path = "src/base/x.cc"
        check_at(self, "sizes", {path: "//\n" * 501}, [(path, 501)])
        check_at(self, "sizes", {path: "//\n" * 500}, [])

    def test_python_functions_are_measured_too(self):
        path = "scripts/x.py"
        check_at(self, "sizes", {path: "def f():\n" + "    g()\n" * 70}, [(path, 1)])
        check_at(self, "sizes", {path: "def f():\n" + "    g()\n" * 69}, [])

    def exceptions(self, entries, size):
        path, listed = "src/base/x.cc", "scripts/tidy_exceptions.txt"
        return {path: "//\n" * size, listed: entries}, path, listed

    def test_an_exception_must_fit_exactly(self):
        entry = "# why\nfile src/base/x.cc 510\n"
        for size, where in ((510, None), (511, ("src/base/x.cc", 511)),
                            (509, ("scripts/tidy_exceptions.txt", 2)),
                            (500, ("scripts/tidy_exceptions.txt", 2))):
            texts, _, _ = self.exceptions(entry, size)
            check_at(self, "sizes", texts, [where] if where else [])

    def test_a_function_may_have_an_exception(self):
        entry = "function src/base/x.cc f 80\n"
        good = cpp(self.function(80) % "")
        check(self, "sizes", {**good, "scripts/tidy_exceptions.txt": entry})
        short = cpp(self.function(60) % "")
        check_at(self, "sizes", {**short, "scripts/tidy_exceptions.txt": entry},
                 [("scripts/tidy_exceptions.txt", 1)])

    def test_an_unreadable_exception_is_refused(self):
        check(self, "sizes", {"scripts/tidy_exceptions.txt": "src/base/x.cc 510 # @bad\n"})

    def test_columns(self):
        check(self, "columns", cpp("// @bad " + "word " * 20 + "\n"))
        check(self, "columns", cpp("// " + "w" * 97 + "\n// é" + "é" * 95 + "\n" +
                                   "// https://example.org/" + "w" * 90 + "\n"))


class Beginnings(unittest.TestCase):
    def test_spdx(self):
        check_at(self, "spdx", {"src/base/x.cc": "// What it is.\n"}, [("src/base/x.cc", 1)])
        check_at(self, "spdx", {"scripts/x": "#!/bin/sh\n# text\n"}, [("scripts/x", 2)])
        check_at(self, "spdx", {"cmake/x.cmake": f"// {SPDX}\n"}, [("cmake/x.cmake", 1)])
        check_at(self, "spdx", {"src/base/x.cc": f"// {SPDX}\n// {SPDX}\n"}, [("src/base/x.cc", 2)])
        check(self, "spdx", {"src/base/x.cc": CPP_HEADER, "scripts/x": SCRIPT_HEADER,
                             "docs/x.md": "text\n", "fuzz/x.bin": ""})

    def test_file_header(self):
        for rest in ("#include <x>\n", "//\n#include <x>\n", ""):
            text = f"// {SPDX}\n{rest}"
            check_at(self, "file_header", {"src/base/x.cc": text}, [("src/base/x.cc", 2)])
        check(self, "file_header", {"src/base/x.cc": CPP_HEADER, "scripts/x": SCRIPT_HEADER,
                                    "src/base/y.h": f"// {SPDX}\n// What it is.\n"})
        check(self, "file_header", {"scripts/y.py": f'# {SPDX}\n"""What it does."""\n'})

    def test_pragma_once(self):
        path = "src/base/x.h"
        check_at(self, "pragma_once", {path: CPP_HEADER + "int x;\n"}, [(path, 1)])
        check(self, "pragma_once", {path: CPP_HEADER + "#ifndef X  // @bad\n#pragma once\n"})
        check(self, "pragma_once", {**cpp("", "src/base/x.h"), **cpp("#include <x>\n")})

    def test_file_names(self):
        for path in ("src/base/string_util.h", "src/base/helpers.cc", "src/nbd/info.h",
                     "src/base/data_test.cc", "src/base/CamelCase.cc", "scripts/misc.py"):
            check_at(self, "file_names", {path: CPP_HEADER}, [(path, 1)])
        check(self, "file_names", {path: CPP_HEADER for path in (
            "src/jobs/info.cc", "src/app/info.cc", "src/base/utility.h", "src/nbd/export_info.h")})

    def test_readme(self):
        for folder in ("src/base", "sim", "bench"):
            check_at(self, "readme", {f"{folder}/x.cc": ""}, [(f"{folder}/README.md", 1)])
            check(self, "readme", {f"{folder}/x.cc": "", f"{folder}/README.md": "text\n"})

    def test_a_long_readme_is_a_warning(self):
        _, found = fixtures.findings_of("readme", {"sim/README.md": "text\n" * 61})
        self.assertEqual([finding.is_warning for finding in found], [True])


class Bans(unittest.TestCase):
    def both(self, rule, wrong, right, path="src/base/x.cc"):
        """Each statement of `wrong` is refused and each of `right` accepted."""
        for statement in wrong:
            with self.subTest(statement):
                check(self, rule, cpp(f"void f() {{\n  {statement}  // @bad\n}}\n", path))
        for statement in right:
            with self.subTest(statement):
                check(self, rule, cpp(f"void f() {{\n  {statement}\n}}\n", path))

    def test_mutex(self):
        self.both("mutex", ["std::mutex m;", "std::lock_guard lock(m);", "std::once_flag once;"],
                  ["async::Mutex m;", "AsyncMutex mutex;", "// std::mutex"])
        check(self, "mutex", cpp("#include <mutex>  // @bad\n"))
        check(self, "mutex", cpp("std::mutex m;\n", "src/base/x_test.cc"))

    def test_threads(self):
        self.both("threads", ["std::thread t(f);", "std::async(f);"],
                  ["std::this_thread::get_id();", "shard.call(f);"])
        check(self, "threads", cpp("std::thread t;\n", "src/runtime/shard.cc"))

    def test_exceptions(self):
        self.both("exceptions", ["throw 1;", "try { f(); } catch (...) { }"], ["try_lock();"])
        check(self, "exceptions", cpp("void f() { try { g(); } catch (...) {} }\n",
                                      "src/app/options_throwing.cc"))

    def test_assert(self):
        self.both("assert", ["assert(x);"], ["static_assert(x);", "CHECK(x);", "a.assert(x);"])
        check(self, "assert", cpp("#include <cassert>  // @bad\n", "src/base/x_test.cc"))

    def test_output(self):
        self.both("output", ["printf(t);", "std::fprintf(stderr, t);", "std::cout << 1;"],
                  ["std::snprintf(b, n, t);", "log.printf(t);", "my::puts(t);"])
        check(self, "output", cpp("void f() { std::printf(t); }\n", "src/app/main.cc"))
        check(self, "output", cpp("void f() { std::printf(t); }\n", "src/base/x_test.cc"))

    def test_clock(self):
        wrong = ["auto t = std::chrono::steady_clock::now();", "return time(nullptr);",
                 "::clock_gettime(c, &t);", "std::time(nullptr);"]
        right = ["clock.time();", "Time time(3);", "std::chrono::seconds s;", "my::time(3);"]
        self.both("clock", wrong, right)
        self.both("clock", wrong, right, "src/base/x_test.cc")
        self.both("clock", wrong, right, "sim/x.cc")
        check(self, "clock", cpp("auto t = std::chrono::steady_clock::now();\n",
                                 "src/runtime/clock.cc"))

    def test_random(self):
        self.both("random", ["x = rand();", "srand(1);", "std::random_device d;"],
                  ["x = random_.next();", "Random random(seed);"])

    def test_sleep(self):
        self.both("sleep", ["usleep(3);", "std::this_thread::sleep_for(s);"],
                  ["co_await shard.sleep(s);", "timer.sleep(3);"])

    def test_environment(self):
        self.both("environment", ["getenv(n);", "std::getenv(n);"], ["options.getenv(n);"])
        check(self, "environment", cpp("void f() { getenv(n); }\n", "src/app/main.cc"))

    def test_new_and_delete(self):
        self.both("new_delete", ["auto p = new T;", "delete p;", "delete[] p;", "new (p) T(1);",
                                 "void* p = malloc(3);"],
                  ["auto p = std::make_unique<T>();", "pool.free(p);",
                   "void* p = ::operator new(3);"])
        check(self, "new_delete", cpp("struct A { A(const A&) = delete;\n"
                                      "static void* operator new(size_t n);\n"
                                      "static void operator delete(void* p); };\n"))

    def test_unsafe_c(self):
        self.both("unsafe_c", ["strcpy(a, b);", "sprintf(a, b);", "n = atoi(a);", "std::stoi(a);",
                               "std::strtok(a, b);", "system(c);"],
                  ["std::memcpy(a, b, n);", "snprintf(a, n, b);", "parser.atoi(a);",
                   "System system(c);"])

    def test_globals(self):
        for declaration in ("int counter = 0;", "static int counter;", "std::atomic<int> n{0};",
                            "std::vector<int> all;", "inline int counter = 0;",
                            "static Foo foo(1);", "int table[3];"):
            inside = declaration == "static Foo foo(1);"
            code = f"{declaration}  // @bad\n"
            with self.subTest(declaration):
                check(self, "globals", cpp("void f() {\n" + code + "}\n" if inside else
                                           "namespace n {\n" + code + "}\n"))

    def test_what_is_no_mutable_global(self):
        check(self, "globals", cpp(
            "namespace n {\nconstexpr int kA = 1;\nconst char* const kB = \"x\";\n"
            "inline constexpr int kTable[] = {1, 2};\nstatic int f(int x);\nint g(int x);\n"
            "class A;\nstruct B { int x = 0; static B make(int x); static constexpr int kC = 1; "
            "};\n"
            "using C = int;\ntypedef int D;\nextern int declared_elsewhere;\n"
            "template <class T> concept Q = true;\nstatic const int kD = 2;\n"
            "enum class E { kA, kB };\n"
            "void h() { static const int kX = 1; int local = 2; use(local); }\n"
            "template <class T> struct X<T>;\nstatic_assert(kA == 1);\n}\n"))
        check(self, "globals", cpp("int counter = 0;\n", "src/base/x_test.cc"))

    def test_reinterpret_cast(self):
        self.both("reinterpret_cast", ["auto* p = reinterpret_cast<char*>(q);"],
                  ["auto* p = reinterpret_cast<char*>(q);  // why: the kernel's structure",
                   "// why: the kernel's structure\n  auto* p = reinterpret_cast<char*>(q);",
                   "// why: the kernel's structure,\n  // told in two lines\n"
                   "  auto* p = reinterpret_cast<char*>(q);"])
        check(self, "reinterpret_cast", cpp("auto* p = reinterpret_cast<char*>(q);\n",
                                            "src/base/bytes.h"))

    def test_using_namespace(self):
        self.both("using_namespace", ["using namespace std;"],
                  ["using namespace std::chrono_literals;", "namespace fs = std::filesystem;"])

    def test_todo(self):
        self.both("todo", ["// TODO later", "// FIXME", "/* XXX */"],
                  ["// TODO(#12): with an issue", 'f("TODO later");', "int todo;"])
        check(self, "todo", {"scripts/x.py": "x = 1  # TODO later @bad\ny = '# TODO'\n"})
        check(self, "todo", {"cmake/x.cmake": "set(x 1)  # FIXME @bad\n"})


class AllowList(unittest.TestCase):
    ALLOW = "scripts/tidy_allow.txt"

    def test_an_entry_excuses_one_file_from_one_rule(self):
        entry = "mutex src/base/x.cc the inbox needs it\n"
        code = cpp("std::mutex m;\n")
        check(self, "mutex", {**code, self.ALLOW: entry})
        other = cpp("std::mutex m;  // @bad\n", "src/base/y.cc")
        check(self, "mutex", {**code, **other, self.ALLOW: entry})
        check(self, "allow_list", {**code, self.ALLOW: entry})

    def test_an_entry_that_nothing_needs_is_refused(self):
        check(self, "allow_list", {**cpp("int f();\n"),
                                   self.ALLOW: "mutex src/base/x.cc the inbox needs it  # @bad\n"})

    def test_an_entry_needs_a_reason_and_a_rule_that_has_exceptions(self):
        check(self, "allow_list", {**cpp("std::mutex m;\n"), self.ALLOW:
                                   "mutex src/base/x.cc  # @bad\n"
                                   "co_await src/base/x.cc a b c # @bad\n"})


class Scanner(unittest.TestCase):
    def test_comments_strings_and_directives_are_no_tokens(self):
        scan = Scan('#define A(x) \\\n  {x\nint a; // { "\n/* { \n */ auto s = "}{" R"(\")}{)";\n'
                    "char c = '{';\n")
        self.assertEqual([t.text for t in scan.tokens if t.text in "{}"], [])
        self.assertEqual(scan.line(scan.find("s")[0]), 5)

    def test_numbers_with_separators_are_one_token(self):
        self.assertEqual([t.text for t in Scan("x = 1'000'000 + 0x1p-3;").tokens],
                         ["x", "=", "1'000'000", "+", "0x1p-3", ";"])

    def test_a_closing_bracket_too_many_does_not_lose_the_rest(self):
        scan = Scan("void f() {\n#if A\n  g();\n}\n#else\n}\n#endif\n) ]\nvoid h() { int x; }\n")
        self.assertEqual([body.name for body in scan.bodies], ["f", "h"])


class Program(unittest.TestCase):
    def test_prints_the_place_and_fails(self):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, "sim"))
            with open(os.path.join(root, "sim", "x.cc"), "w", encoding="utf-8") as out:
                out.write(CPP_HEADER + "void f() { assert(x); }\n")
            tidy = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tidy")
            run = subprocess.run([sys.executable, tidy, "--root", root, "--rule", "assert"],
                                 capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("sim/x.cc:4: [assert]", run.stdout)


class ZEveryRule(unittest.TestCase):
    """Runs last: unittest takes classes in order of their names."""

    def test_was_shown_wrong_and_right_text(self):
        rules = set(tidy_rules.RULES) | {"allow_list"}
        self.assertGreater(len(rules), 25)
        self.assertEqual(rules - fixtures.refused, set(), "rules that refused nothing")
        self.assertEqual(rules - fixtures.accepted, set(), "rules that accepted nothing")


if __name__ == "__main__":
    unittest.main()
