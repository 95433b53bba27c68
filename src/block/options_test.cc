// SPDX-License-Identifier: Apache-2.0
// What users write. Sizes as qemu-img reads and prints them (recorded from it).
#include "block/options.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

TEST(ParseSizeTest, ReadsWhatQemuImgReads) {
  const std::pair<const char*, uint64_t> cases[] = {
      {"0", 0},
      {"1", 1},
      {"01", 1},
      {"512", 512},
      {"1b", 1},
      {"1B", 1},
      {"64k", 65536},
      {"1K", 1024},
      {"1.k", 1024},
      {"0.5k", 512},
      {"1.0000001k", 1024},
      {"2M", 2097152},
      {"1G", 1073741824},
      {"1.5G", 1610612736},
      {"1t", 1099511627776},
      {"1p", 1125899906842624},
      {"1E", 1152921504606846976},
      {"0x10", 16},
      {"0x1k", 1024},
      {"9223372036854775807", 9223372036854775807u},
      {"7.5E", 8646911284551352320u},
      {".5k", 512},
      {"1.", 1},
      {"1024.0", 1024},
      {"1024.0b", 1024},
      {"+5", 5},
      {"  1024", 1024},
  };
  for (auto [text, bytes] : cases) {
    Result<uint64_t> size = parse_size(text);
    ASSERT_TRUE(size.ok()) << text;
    EXPECT_EQ(size.value(), bytes) << text;
  }
}

TEST(ParseSizeTest, RefusesWhatIsNoSize) {
  for (const char* text :
       {"",    "k", ".",   ".k",   "-1",   "1e3",   "1kk", "1z",  "1 ",       "1.5", "++1", "+ 1",
        "+-1", " ", "0.9", "1.5b", "1..2", "1.2.3", "nan", "inf", "infinity", "0x",  "0xz", "-0"}) {
    Result<uint64_t> size = parse_size(text);
    ASSERT_FALSE(size.ok()) << text;
    EXPECT_EQ(size.error().kind, ErrorKind::kInvalid) << text;
  }
}

TEST(ParseSizeTest, WhatIsTooLargeIsCalledSo) {
  for (const char* text : {"9223372036854775808", "8E", "16777216T", "99999999999999999999999999",
                           "8.1E", "1000000000000000.5E", "0xffffffffffffffffff"}) {
    Result<uint64_t> size = parse_size(text);
    ASSERT_FALSE(size.ok()) << text;
    EXPECT_EQ(size.error().kind, ErrorKind::kLimit) << text;
  }
}

TEST(HumanSizeTest, PrintsWhatQemuImgPrints) {
  const std::pair<uint64_t, const char*> cases[] = {
      {0, "0 B"},
      {512, "512 B"},
      {1024, "1 KiB"},
      {1536, "1.5 KiB"},
      {65536, "64 KiB"},
      {1022976, "999 KiB"},
      {1023488, "1e+03 KiB"},
      {1024000, "0.977 MiB"},
      {1048576, "1 MiB"},
      {123457024, "118 MiB"},
      {1000000000, "954 MiB"},
      {1048576000, "0.977 GiB"},
      {1610612736, "1.5 GiB"},
      {10737418240, "10 GiB"},
      {1099511627776, "1 TiB"},
      {1152921504606846976, "1 EiB"},
      {~uint64_t{0}, "16 EiB"},
  };
  for (auto [bytes, text] : cases) EXPECT_EQ(human_size(bytes), text) << bytes;
}

TEST(CacheModeTest, NamesAreReadAndPrinted) {
  for (const char* name : {"writeback", "none", "writethrough", "directsync", "unsafe"}) {
    EXPECT_EQ(name_of(parse_cache_mode(name).value()), name);
  }
  EXPECT_EQ(parse_cache_mode("off").value(), CacheMode::kNone);
  EXPECT_FALSE(parse_cache_mode("Writeback").ok());
  EXPECT_FALSE(parse_cache_mode("").ok());
}

// --- Options -------------------------------------------------------------------------------------

class OptionsTest : public ::testing::Test {
 protected:
  Options parse(std::string_view text) {
    Result<Options> options = Options::parse(text, diagnostics);
    CHECK(options.ok());
    return std::move(options).value();
  }
  std::string refusal(Result<void> result) {
    return result.ok() ? "" : diagnostics.describe(result.error());
  }
  Diagnostics diagnostics;
};

TEST_F(OptionsTest, CommasInValuesAreDoubled) {
  Options options = parse("driver=qcow2,file.filename=a,,b=c.img,lazy,x=");
  EXPECT_EQ(options.get("driver"), "qcow2");
  EXPECT_EQ(options.get("file.filename"), "a,b=c.img");
  EXPECT_EQ(options.get("lazy"), "on");
  EXPECT_EQ(options.get("x"), "");
  EXPECT_EQ(options.get("absent"), std::nullopt);
  EXPECT_EQ(parse("x=,,").get("x"), ",");
  EXPECT_TRUE(parse("").empty());
}

TEST_F(OptionsTest, TheLastOfTheSameNameCounts) { EXPECT_EQ(parse("a=1,a=2").get("a"), "2"); }

TEST_F(OptionsTest, ANameIsNeeded) {
  for (const char* text : {"=x", "a=1,=2", ",", "a,,b"}) {
    Result<Options> options = Options::parse(text, diagnostics);
    ASSERT_FALSE(options.ok()) << text;
    EXPECT_EQ(diagnostics.describe(options.error()),
              "an option has no name; write key=value,key=value");
  }
}

TEST_F(OptionsTest, WhatIsTakenIsGoneAndWhatIsLeftIsNamed) {
  Options options = parse("size=2M,read-only=on,file.cache=none,file.lock.x=1,files=3");
  EXPECT_EQ(options.take_size("size", 7, diagnostics).value(), 2u << 20);
  EXPECT_EQ(options.take_size("size", 7, diagnostics).value(), 7u);
  EXPECT_TRUE(options.take_bool("read-only", false, diagnostics).value());
  EXPECT_FALSE(options.take_bool("read-only", false, diagnostics).value());
  Options file = options.take_group("file");
  EXPECT_EQ(file.values().size(), 2u);
  EXPECT_EQ(file.take("lock.x"), "1");
  EXPECT_EQ(refusal(file.check_all_taken("file", diagnostics)), "file has no option 'file.cache'");
  EXPECT_EQ(refusal(options.check_all_taken("raw", diagnostics)), "raw has no option 'files'");
  EXPECT_EQ(options.take("files"), "3");
  EXPECT_TRUE(options.check_all_taken("raw", diagnostics).ok());
}

TEST_F(OptionsTest, ValuesOfTheWrongKindAreRefusedByName) {
  Options options = parse("size=big,on=maybe");
  Result<uint64_t> size = options.take_size("size", 0, diagnostics);
  EXPECT_EQ(diagnostics.describe(size.error()),
            "option 'size' is a size such as 64k or 2M, not 'big'");
  Result<bool> on = options.take_bool("on", false, diagnostics);
  EXPECT_EQ(diagnostics.describe(on.error()), "option 'on' is on or off, not 'maybe'");
}

}  // namespace
}  // namespace ringdisk
