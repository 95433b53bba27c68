// SPDX-License-Identifier: Apache-2.0
// JSON of headers: kept as it is, and bounded.
#include "luks/json.h"

#include <gtest/gtest.h>

namespace ringdisk::luks {
namespace {

TEST(Json, KeepsWhatItDoesNotKnowInItsOrder) {
  constexpr std::string_view kText =
      R"({"z":1,"a":{"b":[true,false,null,-7,1.50,"x\"\\\u0001é"]},"big":18446744073709551615,"e":{},)"
      R"("f":[]})";
  Result<Json> parsed = parse_json(kText);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(encode_json(parsed.value()), kText);
  EXPECT_EQ(parsed.value().find("big")->as_number(), ~uint64_t{0});
  EXPECT_EQ(parsed.value().find("nothing"), nullptr);
}

TEST(Json, IsChangedInPlace) {
  Json json = parse_json(R"({"a":1,"b":2})").value();
  json.set("a", Json::of_text("x"));
  json.set("c", Json::of_number(3));
  json.erase("b");
  json.erase("absent");
  EXPECT_EQ(encode_json(json), R"({"a":"x","c":3})");
}

TEST(Json, RefusesWhatIsNone) {
  for (const char* text : {"", "{", "{\"a\":}", "[1,]", "{} {}", "nul", "\"\xff\"", "{'a':1}"}) {
    Result<Json> parsed = parse_json(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().kind, ErrorKind::kInvalid);
  }
}

TEST(Json, RefusesAKeyThatIsThereTwice) {
  Result<Json> parsed = parse_json(R"({"a":1,"a":2})");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().kind, ErrorKind::kCorrupt);
}

TEST(Json, BoundsDepthAndCount) {
  const std::string deep(kJsonDepthMax, '[');
  EXPECT_TRUE(parse_json(deep + std::string(kJsonDepthMax, ']')).ok());
  Result<Json> deeper = parse_json("[" + deep + std::string(kJsonDepthMax + 1, ']'));
  ASSERT_FALSE(deeper.ok());
  EXPECT_EQ(deeper.error().kind, ErrorKind::kLimit);
  std::string many = "[0";
  for (size_t i = 0; i < kJsonValuesMax; ++i) many += ",0";
  Result<Json> more = parse_json(many + "]");
  ASSERT_FALSE(more.ok());
  EXPECT_EQ(more.error().kind, ErrorKind::kLimit);
}

TEST(Json, NumbersAreWholeDigits) {
  EXPECT_EQ(parse_decimal("18446744073709551615"), ~uint64_t{0});
  for (const char* text : {"", "18446744073709551616", "-1", "+1", "1 ", "0x1", "1.0"}) {
    EXPECT_FALSE(parse_decimal(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace ringdisk::luks
