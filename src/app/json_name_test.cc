// SPDX-License-Identifier: Apache-2.0
// json: descriptions: what they become as options, and what is none.
#include "app/json_name.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

using Values = std::map<std::string, std::string, std::less<>>;

TEST(JsonNameTest, AnObjectBecomesDottedOptions) {
  Diagnostics diagnostics;
  Result<Options> options = parse_json_description(
      R"({"driver": "qcow2", "file": {"driver": "file", "filename": "a,b.img"},
          "lazy-refcounts": true, "size": 512, "deep": [{"x": 1}, "two"], "file.locking": false})",
      diagnostics);
  ASSERT_TRUE(options.ok());
  const Values wanted = {
      {"driver", "qcow2"},      {"file.driver", "file"}, {"file.filename", "a,b.img"},
      {"lazy-refcounts", "on"}, {"size", "512"},         {"deep.0.x", "1"},
      {"deep.1", "two"},        {"file.locking", "off"}};
  EXPECT_EQ(options.value().values(), wanted);
}

TEST(JsonNameTest, WhatIsNoDescriptionIsRefused) {
  std::string deep(40, '['), end(40, ']');
  for (const std::string& text :
       {std::string(), std::string("x"), std::string("[]"), std::string("1"), std::string("{"),
        std::string("{\"a\": null}"), std::string("{} {}"), "{\"a\":" + deep + "1" + end + "}"}) {
    Diagnostics diagnostics;
    EXPECT_FALSE(parse_json_description(text, diagnostics).ok()) << text;
  }
}

}  // namespace
}  // namespace ringdisk
