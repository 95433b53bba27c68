// SPDX-License-Identifier: Apache-2.0
// RegisteredTest: a GoogleTest test made of a function object, for suites that are instantiated
// from outside by one line and are compiled once (RegisterTest keeps them).
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>

namespace ringdisk::sim {

class RegisteredTest : public ::testing::Test {
 public:
  explicit RegisteredTest(const std::function<void()>& body) : body_(body) {}
  void TestBody() override { body_(); }

 private:
  const std::function<void()> body_;
};

inline void register_test(const char* suite, const std::string& name, std::function<void()> body) {
  ::testing::RegisterTest(
      suite, name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
      [body = std::move(body)]() -> ::testing::Test* { return new RegisteredTest(body); });
}

}  // namespace ringdisk::sim
