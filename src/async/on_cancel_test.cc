// SPDX-License-Identifier: Apache-2.0
// OnCancel: when the action runs, and when it does not.
#include "async/on_cancel.h"

#include <gtest/gtest.h>

#include <optional>

namespace ringdisk {
namespace {

struct Counted {
  int* count;
  void operator()() const { ++*count; }
};

TEST(OnCancelTest, ActsOnceWhenTheTokenIsCancelled) {
  int count = 0;
  CancelSource source;
  OnCancel action(source.token(), Counted{&count});
  EXPECT_EQ(count, 0);
  source.cancel();
  source.cancel();
  EXPECT_EQ(count, 1);
}

TEST(OnCancelTest, ActsAtOnceWhereTheTokenIsCancelledAlready) {
  int count = 0;
  CancelSource source;
  source.cancel();
  OnCancel action(source.token(), Counted{&count});
  EXPECT_EQ(count, 1);
}

TEST(OnCancelTest, ActsNoMoreOnceItIsGone) {
  int count = 0;
  CancelSource source;
  std::optional<OnCancel<Counted>> action;
  action.emplace(source.token(), Counted{&count});
  action.reset();
  source.cancel();
  EXPECT_EQ(count, 0);
}

TEST(OnCancelTest, NeverActsOnATokenOfNoSource) {
  int count = 0;
  OnCancel action(CancelToken(), Counted{&count});
  EXPECT_EQ(count, 0);
}

TEST(OnCancelTest, HandsACancellationOnToAnotherSource) {
  CancelSource outer, inner;
  auto cancel_inner = [&inner] { inner.cancel(); };
  OnCancel forward(outer.token(), cancel_inner);
  EXPECT_FALSE(inner.is_cancelled());
  outer.cancel();
  EXPECT_TRUE(inner.is_cancelled());
}

TEST(OnCancelTest, RaisesAFlag) {
  std::atomic<bool> early{false}, late{false};
  CancelSource source;
  StopOnCancel before(source.token(), early);
  EXPECT_FALSE(early.load());
  source.cancel();
  StopOnCancel after(source.token(), late);
  EXPECT_TRUE(early.load());
  EXPECT_TRUE(late.load());
}

}  // namespace
}  // namespace ringdisk
