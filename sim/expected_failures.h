// SPDX-License-Identifier: Apache-2.0
// failures_of: for tests of tests. A sweep that finds nothing wrong in something wrong is worse
// than none, so each is run over planted mistakes, whose failures must be there and do not count.
#pragma once

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

namespace ringdisk::sim {

// How many failures `run` reports; they do not count as failures of this test.
template <class Run>
int failures_of(Run run) {
  ::testing::TestPartResultArray failures;
  ::testing::ScopedFakeTestPartResultReporter reporter(
      ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ALL_THREADS, &failures);
  run();
  return failures.size();
}

}  // namespace ringdisk::sim
