# SPDX-License-Identifier: Apache-2.0
#
# Tests of the rules about coroutines, run by scripts/tidy_test.py. The places are those that were
# measured with g++ 12.2: each that it compiles wrongly is refused, each that is safe and useful is
# accepted.
import unittest

from tidy_rules.fixtures import check, cpp

# Statements inside a coroutine. Every one is refused.
WRONG_PLACES = """
  if (co_await f()) return_early();
  if (bool b = co_await f(); b) return_early();
  if constexpr (co_await f()) {}
  while (co_await f()) {}
  for (int i = co_await f(); i < 3; ++i) {}
  for (auto x : co_await f()) {}
  do {} while (co_await f());
  switch (co_await f()) {}
  int a = cond ? co_await f() : 0;
  int b = cond ? 0 : co_await f();
  bool c = ok && co_await f();
  bool d = ok || co_await f();
  ok && co_await f();
  auto [x, y] = co_await f();
  const auto& [x2, y2] = co_await f();
  T v{co_await f()};
  T w = {co_await f(), 1};
  T z(co_await f());
  std::array<int, 2> both = {co_await f(), co_await g()};
  use(co_await f());
  use(1, co_await f());
  co_return use(co_await f());
  co_return co_await f() + 1;
  co_return cond ? co_await f() : 0;
  co_return T{co_await f()};
  int sum = 1 + co_await f();
  int sum2 = co_await f() + 1;
  int p = co_await f(), q = 2;
  int r = 1, s = co_await f();
  t = u = co_await f();
  total += co_await f();
  co_await f(), g();
  co_await f(Options{.name = n});
  co_await f(Options{});
  co_await f({});
  co_await f(g(Options{}));
  co_await f(cond ? 1 : 2);
  co_await f(a && b);
  co_await f(a || b);
  co_await f([&] { return 1; });
  co_await f([this](int i) { return i; });
  co_await f([x = std::move(x)] { return 1; });
  co_await [&]() -> Task<void> { co_return; }();
  co_await f(co_await g());
  (co_await f()).use();
  int e = (co_await f()).size();
  array[co_await f()] = 1;
  CHECK(co_await f());
  x = !co_await f();
  return co_await f();
  throwing << co_await f();
"""

# Every one is accepted.
RIGHT_PLACES = """
  co_await f();
  co_await file.read(HostOffset(0), buffer);
  co_await queue_->flush().result();
  co_await std::move(result);
  co_await this->run();
  co_await *pending;
  co_await call;
  co_await ns::f<int, Foo<int>>(a, b);
  co_await object.template get<T>(a);
  co_await tasks[i].join();
  co_await f(offset + done, buffer.subspan(done, a < b));
  co_await f([](int i) { return i && true ? 1 : 2; });
  co_await with_scope(&copy_all, copier);
  co_await f(range, ~uint32_t{0}, size_t{1});
  co_await []() -> Task<void> { co_return; }();
  co_await f("text", 'c', 0x10u, nullptr, &x, *y, -1);
  Result<void> a = co_await f();
  [[maybe_unused]] auto b = co_await f();
  const auto& c = co_await f();
  auto&& d = co_await f();
  std::pair<int, std::vector<T>> e = co_await f();
  T* g = co_await f();
  x = co_await f();
  x->y[3].z_ = co_await f();
  *x = co_await f();
  if (cond) co_await f();
  if (cond) [[likely]] { co_await f(); }
  if constexpr (kFlag) co_await f();
  else co_await g();
  for (int i = 0; i < 3; ++i) co_await f();
  while (cond) { co_await f(); }
  switch (kind) { case Kind::kOne: co_await f(); break; default: x = co_await f(); }
  { co_await f(); }
  again: co_await f();
  (void)co_await f();
  auto outcome = co_await body(scope, args...).result();
  co_return co_await f();
  co_return co_await std::move(task).result();
"""


def coroutine(statements, mark=""):
    """One coroutine a statement, so that none of them disturbs the reading of another."""
    lines = [line for line in statements.split("\n") if line.strip()]
    return "".join(f"Task<int> f{n}() {{\n{line}{mark}\n}}\n" for n, line in enumerate(lines))


class CoAwaitPlaces(unittest.TestCase):
    def test_refuses_each_place_that_is_compiled_wrongly(self):
        for line in WRONG_PLACES.strip().split("\n"):
            with self.subTest(line.strip()):
                check(self, "co_await", cpp(coroutine(line, "  // @bad")))

    def test_accepts_each_place_where_nothing_else_happens(self):
        for line in RIGHT_PLACES.strip().split("\n"):
            if not line.strip().startswith("else"):
                with self.subTest(line.strip()):
                    check(self, "co_await", cpp(coroutine(line)))
        both = "  if (a) co_await f();\n  else co_await g();"
        check(self, "co_await", cpp(f"Task<void> f() {{\n{both}\n}}\n"))

    def test_reads_statements_over_several_lines(self):
        check(self, "co_await", cpp("Task<void> f() {\n  Header header =\n      co_await read(a,\n"
                                    "                    b);\n"
                                    "  use(a,\n      co_await b);  // @bad\n}\n"))

    def test_is_not_disturbed_by_comments_strings_and_operators(self):
        check(self, "co_await", cpp(
            "// if (co_await f())\n/* use(co_await f()) */\n"
            "const char* kText = \"if (co_await f())\";\n"
            "const char* kRaw = R\"x(use(co_await \" f()))x\";\n"
            "Awaiter operator co_await(Task&& task);\n"
            "#define WAIT(x) if (co_await (x)) {}\n"))

    def test_holds_in_tests_and_the_simulator_too(self):
        for path in ("src/base/x_test.cc", "sim/x.h", "src/base/x.h"):
            check(self, "co_await", cpp(coroutine("  use(co_await f());", "  // @bad"), path))

    def test_a_lambda_that_awaits_is_read_like_a_function(self):
        check(self, "co_await", cpp("auto run = []() -> Task<void> { co_await f(); };\n"
                                    "void g() { call([] -> Task<void> {\n  co_await f();\n"
                                    "  use(co_await f());  // @bad\n}); }\n"))


class CoroutineLambdas(unittest.TestCase):
    def test_refuses_captures(self):
        for captures in ("&", "=", "this", "x", "&x, y", "x = std::move(x)"):
            code = f"void f() {{\n  go([{captures}](int i) mutable -> Task<void> {{  // @bad\n" \
                   "    co_await g(i);\n  });\n}\n"
            check(self, "coroutine_lambda", cpp(code))
            check(self, "coroutine_lambda", cpp(code, "src/base/x_test.cc"))

    def test_accepts_no_captures_and_lambdas_that_are_no_coroutines(self):
        check(self, "coroutine_lambda", cpp(
            "Task<void> f() {\n  go([](Scope& s) -> Task<void> { co_return; });\n"
            "  auto add = [&x](int i) { x += i; };\n  int a[3] = {};\n  a[x] = 1;\n"
            "  auto outer = [&] { return [](int i) -> Task<void> { co_return; }; };\n"
            "  co_return;\n}\n"))

    def test_a_test_may_name_one_that_captures_by_reference(self):
        named = ("TEST(A, B) {\n  auto body = [&](Scope& s) -> Task<void> {%s\n"
                 "    co_return;\n  };\n}\n")
        check(self, "coroutine_lambda", cpp(named % "", "src/base/x_test.cc"))
        check(self, "coroutine_lambda", cpp(named % "", "src/base/x_fuzz.cc"))
        check(self, "coroutine_lambda", cpp(named % "  // @bad", "src/base/x.cc"))
        by_value = named.replace("[&]", "[&x, y]") % "  // @bad"
        check(self, "coroutine_lambda", cpp(by_value, "src/base/x_test.cc"))


class OtherTraps(unittest.TestCase):
    def test_aligned_locals(self):
        check(self, "aligned_locals", cpp("Task<void> f() {\n  alignas(64) char b[64];  // @bad\n"
                                          "  co_await g(b);\n}\n"))
        check(self, "aligned_locals", cpp("void f() { alignas(64) char b[64]; }\n"
                                          "struct alignas(64) Line { char b[64]; };\n"
                                          "Task<void> g() { co_return; }\n"))

    def test_thread_local(self):
        check(self, "thread_local", cpp("thread_local int x;  // @bad\n", "src/runtime/x.cc"))
        check(self, "thread_local", cpp("thread_local int shard;\n", "src/async/executor.cc"))

    def test_symmetric_transfer(self):
        check(self, "await_suspend", cpp(
            "struct A {\n  std::coroutine_handle<> await_suspend(H h);  // @bad\n"
            "  auto await_suspend(H h) -> std::coroutine_handle<> {  // @bad\n"
            "    return h;\n  }\n};\n"))

    def test_destroying_a_frame_in_await_suspend(self):
        check(self, "await_suspend", cpp(
            "struct A {\n  void await_suspend(std::coroutine_handle<> h) {\n"
            "    h.destroy();  // @bad\n  }\n};\n"))

    def test_await_suspend_that_gives_bool_or_void(self):
        check(self, "await_suspend", cpp(
            "struct A {\n  template <RingdiskPromise P>\n"
            "  bool await_suspend(std::coroutine_handle<P> h) { return start(h); }\n"
            "  void await_suspend(std::coroutine_handle<> h) const;\n"
            "  void end() { handle_.destroy(); }\n"
            "  bool again(H h) { return inner.await_suspend(h); }\n};\n"))
