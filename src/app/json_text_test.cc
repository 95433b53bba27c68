// SPDX-License-Identifier: Apache-2.0
// JSON in qemu-img's layout, byte for byte, and text of any bytes as valid JSON.
#include "app/json_text.h"

#include <gtest/gtest.h>

namespace ringdisk {
namespace {

TEST(JsonTextTest, IsLaidOutAsQemuImgDoes) {
  JsonText json;
  json.begin_object();
  json.key("filename"), json.text("disk");
  json.key("sizes");
  json.begin_array();
  json.number(1);
  json.number(18446744073709551615u);
  json.end_array();
  json.key("data");
  json.begin_object();
  json.key("corrupt"), json.boolean(false);
  json.key("dirty"), json.boolean(true);
  json.end_object();
  json.end_object();
  EXPECT_EQ(json.result(),
            "{\n"
            "    \"filename\": \"disk\",\n"
            "    \"sizes\": [\n"
            "        1,\n"
            "        18446744073709551615\n"
            "    ],\n"
            "    \"data\": {\n"
            "        \"corrupt\": false,\n"
            "        \"dirty\": true\n"
            "    }\n"
            "}");
}

TEST(JsonTextTest, WhatIsEmptyTakesTwoLines) {
  JsonText array;
  array.begin_array();
  array.end_array();
  EXPECT_EQ(array.result(), "[\n]");
  JsonText nested;
  nested.begin_array();
  nested.begin_object();
  nested.end_object();
  nested.begin_array();
  nested.end_array();
  nested.end_array();
  EXPECT_EQ(nested.result(), "[\n    {\n    },\n    [\n    ]\n]");
}

TEST(JsonTextTest, KeysAreEscapedLikeValues) {
  JsonText json;
  json.begin_object();
  json.key("a\"b"), json.text("c\\d");
  json.end_object();
  EXPECT_EQ(json.result(), "{\n    \"a\\\"b\": \"c\\\\d\"\n}");
}

TEST(JsonTextTest, ControlBytesAndQuotesAreEscaped) {
  EXPECT_EQ(json_quoted(""), "\"\"");
  EXPECT_EQ(json_quoted("a/b c~"), "\"a/b c~\"");
  EXPECT_EQ(json_quoted("\"\\\b\f\n\r\t"), R"("\"\\\b\f\n\r\t")");
  EXPECT_EQ(json_quoted(std::string_view("\0\x1b\x7f", 3)), R"("\u0000\u001B\u007F")");
}

TEST(JsonTextTest, TextBeyondAsciiIsEscapedByCodePoint) {
  EXPECT_EQ(json_quoted("\u00e4"), R"("\u00E4")");
  EXPECT_EQ(json_quoted("\u20ac"), R"("\u20AC")");
  EXPECT_EQ(json_quoted("\uffff"), R"("\uFFFF")");
  EXPECT_EQ(json_quoted("\U00010000"), R"("\uD800\uDC00")");
  EXPECT_EQ(json_quoted("\U0001f4be"), R"("\uD83D\uDCBE")");
  EXPECT_EQ(json_quoted("\U0010ffff"), R"("\uDBFF\uDFFF")");
}

TEST(JsonTextTest, WhatIsNotUtf8BecomesReplacementCharacters) {
  EXPECT_EQ(json_quoted("a\x80z"), R"("a\uFFFDz")") << "a byte that cannot stand first";
  EXPECT_EQ(json_quoted("\xff"), R"("\uFFFD")");
  EXPECT_EQ(json_quoted("\xe2\x82"), R"("\uFFFD\uFFFD")") << "cut short";
  EXPECT_EQ(json_quoted("\xe2z"), R"("\uFFFDz")") << "what follows is kept";
  EXPECT_EQ(json_quoted("\xc0\xaf"), R"("\uFFFD\uFFFD")") << "longer than it need be";
  EXPECT_EQ(json_quoted("\xed\xa0\x80"), R"("\uFFFD\uFFFD\uFFFD")") << "a surrogate";
  EXPECT_EQ(json_quoted("\xf4\x90\x80\x80"), R"("\uFFFD\uFFFD\uFFFD\uFFFD")") << "too large";
}

// Every byte string gives printable ASCII between quotation marks.
TEST(JsonTextTest, AnyTwoBytesAreOneLineOfAscii) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const char bytes[] = {static_cast<char>(first), static_cast<char>(second)};
      const std::string quoted = json_quoted(std::string_view(bytes, 2));
      ASSERT_GE(quoted.size(), 3u);
      for (char letter : quoted) ASSERT_TRUE(letter >= 0x20 && letter < 0x7f) << first << second;
    }
  }
}

}  // namespace
}  // namespace ringdisk
