// SPDX-License-Identifier: Apache-2.0
// The command line as people write it, and what they are told when it cannot be read.
#include "app/command_line.h"

#include <gtest/gtest.h>

#include <array>
#include <initializer_list>

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 6> kOptions = {{
    {'f', "", "FMT", "format"},
    {'p', "", "", "progress"},
    {'q', "", "", "quiet"},
    {'U', "force-share", "", "share"},
    {0, "output", "FORM", "human or json"},
    {'o', "", "OPTIONS", "options"},
}};

using Words = std::initializer_list<std::string_view>;
using Strings = std::vector<std::string>;

class CommandLineTest : public ::testing::Test {
 protected:
  Arguments parse(Words words) {
    Result<Arguments> arguments =
        parse_arguments(kOptions, std::span(words.begin(), words.size()), diagnostics);
    EXPECT_TRUE(arguments.ok());
    return arguments.ok() ? std::move(arguments).value() : Arguments();
  }
  std::string refusal(Words words) {
    Result<Arguments> arguments =
        parse_arguments(kOptions, std::span(words.begin(), words.size()), diagnostics);
    return arguments.ok() ? "accepted" : diagnostics.describe(arguments.error());
  }
  Diagnostics diagnostics;
};

TEST_F(CommandLineTest, NothingIsNoOptionAndNoName) {
  Arguments none = parse({});
  EXPECT_TRUE(none.names().empty());
  EXPECT_FALSE(none.has("p"));
  EXPECT_EQ(none.count("p"), 0u);
  EXPECT_EQ(none.value("f"), std::nullopt);
  EXPECT_TRUE(none.values("o").empty());
}

TEST_F(CommandLineTest, ValuesStandInTheNextWordOrGluedOn) {
  for (Words words : {Words{"-f", "raw"}, Words{"-fraw"}, Words{"-pqf", "raw"}, Words{"-pqfraw"}}) {
    EXPECT_EQ(parse(words).value("f"), "raw");
  }
  EXPECT_EQ(parse({"--output", "json"}).value("output"), "json");
  EXPECT_EQ(parse({"--output=json"}).value("output"), "json");
  EXPECT_EQ(parse({"--output="}).value("output"), "");
  EXPECT_EQ(parse({"--output=a=b"}).value("output"), "a=b");
  EXPECT_EQ(parse({"-f=raw"}).value("f"), "=raw") << "a letter's value is all that follows it";
  EXPECT_EQ(parse({"-f", "-p"}).value("f"), "-p") << "what an option asks for is its value";
}

TEST_F(CommandLineTest, FlagsStandTogether) {
  Arguments both = parse({"-pq"});
  EXPECT_TRUE(both.has("p"));
  EXPECT_TRUE(both.has("q"));
  EXPECT_EQ(parse({"-p", "-pp"}).count("p"), 3u);
}

TEST_F(CommandLineTest, ALetterAndItsNameAreOneOption) {
  EXPECT_TRUE(parse({"-U"}).has("force-share"));
  EXPECT_EQ(parse({"-U", "--force-share"}).count("force-share"), 2u);
}

TEST_F(CommandLineTest, TheLastOfSeveralValuesCountsAndAllAreKept) {
  Arguments arguments = parse({"-o", "a=1", "-ob=2"});
  EXPECT_EQ(arguments.value("o"), "b=2");
  EXPECT_EQ(arguments.values("o"), (Strings{"a=1", "b=2"}));
}

TEST_F(CommandLineTest, NamesStandAnywhere) {
  EXPECT_EQ(parse({"one", "-p", "two", "-f", "raw", "three"}).names(),
            (Strings{"one", "two", "three"}));
  EXPECT_EQ(parse({"-", ""}).names(), (Strings{"-", ""})) << "neither is an option";
  Arguments after = parse({"-p", "--", "-q", "--output", "--"});
  EXPECT_EQ(after.names(), (Strings{"-q", "--output", "--"}));
  EXPECT_FALSE(after.has("q"));
}

TEST_F(CommandLineTest, WhatIsNoOptionIsNamed) {
  EXPECT_EQ(refusal({"-x"}), "unknown option '-x'");
  EXPECT_EQ(refusal({"-px"}), "unknown option '-x'");
  EXPECT_EQ(refusal({"--what"}), "unknown option '--what'");
  EXPECT_EQ(refusal({"--what=5"}), "unknown option '--what'");
  EXPECT_EQ(refusal({"--out", "json"}), "unknown option '--out'") << "names are not abbreviated";
  EXPECT_EQ(refusal({"--f", "raw"}), "unknown option '--f'");
  EXPECT_EQ(refusal({"--=x"}), "unknown option '--'");
}

TEST_F(CommandLineTest, AMissingOrUnwantedValueIsNamed) {
  EXPECT_EQ(refusal({"x", "-f"}), "-f needs a value: FMT");
  EXPECT_EQ(refusal({"-pf"}), "-f needs a value: FMT");
  EXPECT_EQ(refusal({"--output"}), "--output needs a value: FORM");
  EXPECT_EQ(refusal({"--force-share=on"}), "--force-share takes no value");
}

TEST_F(CommandLineTest, NumbersHaveBoundsAndAreNamed) {
  auto number = [&](Words words, std::string_view key) {
    Arguments arguments = parse(words);
    Result<uint64_t> size = size_argument(arguments, key, 7, 1, 4096, diagnostics);
    return size.ok() ? std::to_string(size.value()) : diagnostics.describe(size.error());
  };
  EXPECT_EQ(number({}, "f"), "7");
  EXPECT_EQ(number({"-f", "4k"}, "f"), "4096");
  EXPECT_EQ(number({"-f", "1"}, "f"), "1");
  EXPECT_EQ(number({"-f", "0"}, "f"), "-f is between 1 and 4096, not 0");
  EXPECT_EQ(number({"-f", "4097"}, "f"), "-f is between 1 and 4096, not 4097");
  EXPECT_EQ(number({"-f", "many"}, "f"), "-f takes a number such as 4096, 64k or 2M, not 'many'");
  EXPECT_EQ(number({"--output", "x"}, "output"),
            "--output takes a number such as 4096, 64k or 2M, not 'x'");
}

}  // namespace
}  // namespace ringdisk
