// SPDX-License-Identifier: Apache-2.0
// The words of a description that no image records.
#include "qcow2/run_options.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"

namespace ringdisk::qcow2 {
namespace {

Header header_of(uint32_t version, bool is_lazy = false) {
  Header header;
  header.version = version;
  if (is_lazy) header.compatible_features |= kCompatibleLazyRefcounts;
  return header;
}

// Everything has to be taken.
Result<RunOptions> parse(const std::string& text, const Header& header = header_of(3)) {
  Diagnostics diagnostics;
  ASSIGN_OR_RETURN(Options options, Options::parse(text, diagnostics));
  ASSIGN_OR_RETURN(const RunOptions run, take_run_options(options, header, diagnostics));
  RETURN_IF_ERROR(options.check_all_taken("qcow2", diagnostics));
  return run;
}

TEST(RunOptionsTest, WhatIsNotSaidIsTheImagesOwn) {
  EXPECT_FALSE(parse("").value().is_lazy);
  EXPECT_TRUE(parse("", header_of(3, true)).value().is_lazy);
  EXPECT_TRUE(parse("").value().gives_space_back);
  EXPECT_EQ(parse("").value().slice_memory_max, uint64_t{256} << 20);
}

TEST(RunOptionsTest, WhatIsSaidGoesBeforeIt) {
  EXPECT_TRUE(parse("lazy-refcounts=on").value().is_lazy);
  EXPECT_FALSE(parse("lazy-refcounts=off", header_of(3, true)).value().is_lazy);
  EXPECT_FALSE(parse("pass-discard-request=off").value().gives_space_back);
  EXPECT_EQ(parse("cache-size=2M").value().slice_memory_max, uint64_t{2} << 20);
  EXPECT_EQ(parse("cache-size=2M,l2-cache-size=1M").value().slice_memory_max, uint64_t{1} << 20);
}

TEST(RunOptionsTest, LazyRefcountsNeedVersion3) {
  EXPECT_FALSE(parse("lazy-refcounts=on", header_of(2)).ok());
  EXPECT_TRUE(parse("lazy-refcounts=off", header_of(2)).ok());
  // A bit that has no meaning there.
  EXPECT_FALSE(parse("", header_of(2, true)).value().is_lazy);
}

TEST(RunOptionsTest, WordsThatChangeNothingAreReadAllTheSame) {
  for (const char* text :
       {"overlap-check=none", "overlap-check=all", "overlap-check.template=cached",
        "overlap-check=constant,overlap-check.template=constant", "overlap-check.main-header=off",
        "overlap-check.bitmap-directory=on,overlap-check.inactive-l2=no",
        "pass-discard-snapshot=on,pass-discard-other=off", "cache-clean-interval=5"}) {
    EXPECT_TRUE(parse(text).ok()) << text;
  }
  for (const char* text :
       {"overlap-check=blubb", "overlap-check.template=blubb", "overlap-check.nosuch=on",
        "overlap-check=constant,overlap-check.template=all", "overlap-check.main-header=7",
        "lazy-refcounts=42", "pass-discard-other=maybe", "cache-clean-interval=-1", "nosuch=1"}) {
    EXPECT_FALSE(parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
