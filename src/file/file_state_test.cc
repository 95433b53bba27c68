// SPDX-License-Identifier: Apache-2.0
// The parts of file/ that need no file: when a flush may be left out, what is kept of a failed one,
// which way bytes take, and how long slow calls are avoided.
#include "file/file_state.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "file/file_ways.h"
#include "file/slow_call_guard.h"
#include "sim/sim_world.h"

namespace ringdisk::file {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

struct StateFixture {
  explicit StateFixture(FileKind kind = FileKind::kLocal)
      : state(-1, facts_of(kind), FileSettings(), 1, world.world().blocking) {}
  static FileFacts facts_of(FileKind kind) {
    FileFacts facts;
    facts.kind = kind;
    facts.size = 1000;
    return facts;
  }
  // A flush from beginning to end; whether it had to do anything.
  bool flush(int errno_value = 0) {
    uint64_t changes = 0;
    if (!state.needs_flush(changes)) return false;
    state.begin_flush();
    EXPECT_TRUE(state.is_flush_running());
    state.end_flush(changes, errno_value);
    return true;
  }

  sim::SimWorld world;
  FileState state;
};

TEST(FileStateTest, AFlushIsLeftOutOnlyWhenAllIsKnownToBeDurable) {
  StateFixture fixture;
  EXPECT_TRUE(fixture.flush()) << "others may have written before";
  EXPECT_TRUE(fixture.flush());
  EXPECT_FALSE(fixture.flush());
  fixture.state.note_change();
  EXPECT_TRUE(fixture.flush());
  EXPECT_FALSE(fixture.flush());
}

TEST(FileStateTest, AChangeDuringAFlushNeedsTheNextOne) {
  StateFixture fixture;
  fixture.flush();
  fixture.flush();
  fixture.state.note_change();
  uint64_t changes = 0;
  ASSERT_TRUE(fixture.state.needs_flush(changes));
  fixture.state.begin_flush();
  fixture.state.note_change();
  fixture.state.end_flush(changes, 0);
  EXPECT_TRUE(fixture.flush());
  EXPECT_FALSE(fixture.flush());
}

TEST(FileStateTest, TheFirstFailedFlushIsKeptForEver) {
  StateFixture fixture;
  fixture.flush(ENOSPC);
  fixture.flush(EIO);
  fixture.flush(0);
  EXPECT_EQ(fixture.state.broken_errno(), ENOSPC);
}

TEST(FileStateTest, TheSizeOnlyGrowsByWriting) {
  StateFixture fixture;
  fixture.state.grow_to(500);
  EXPECT_EQ(fixture.state.size(), 1000u);
  fixture.state.grow_to(5000);
  EXPECT_EQ(fixture.state.size(), 5000u);
}

TEST(FileStateTest, WritesWithNowaitAreGivenUpWhereTheyDoNotWork) {
  StateFixture refused, unsupported, works, device(FileKind::kDevice);
  EXPECT_TRUE(refused.state.knows_nowait_writes());
  for (int i = 0; i < 8; ++i) refused.state.note_nowait_write(false, false);
  EXPECT_FALSE(refused.state.knows_nowait_writes());
  unsupported.state.note_nowait_write(false, true);
  EXPECT_FALSE(unsupported.state.knows_nowait_writes());
  works.state.note_nowait_write(true, false);
  for (int i = 0; i < 100; ++i) works.state.note_nowait_write(false, false);
  EXPECT_TRUE(works.state.knows_nowait_writes());
  EXPECT_FALSE(device.state.knows_nowait_writes());
}

TEST(FileWaysTest, FollowTheTableOfTheDecision) {
  FileFacts memory = StateFixture::facts_of(FileKind::kMemory);
  FileFacts local = StateFixture::facts_of(FileKind::kLocal);
  FileFacts device = StateFixture::facts_of(FileKind::kDevice);
  FileFacts opaque = StateFixture::facts_of(FileKind::kOpaque);
  local.direct_writes_parallel = device.direct_writes_parallel = true;
  EXPECT_EQ(read_way(memory, true), FileWay::kInPlace);
  EXPECT_EQ(read_way(local, false), FileWay::kProbe);
  EXPECT_EQ(read_way(local, true), FileWay::kRing);
  EXPECT_EQ(read_way(opaque, false), FileWay::kWorker);

  WriteSituation plain, durable, outside, flushing, nowait;
  durable.durable = outside.durable = true;
  outside.inside = false;
  flushing.flush_running = true;
  nowait.knows_nowait = true;
  EXPECT_EQ(write_way(memory, true, durable), FileWay::kInPlace);
  EXPECT_EQ(write_way(local, false, plain), FileWay::kInPlace);
  EXPECT_EQ(write_way(local, false, nowait), FileWay::kProbe);
  EXPECT_EQ(write_way(local, false, durable), FileWay::kWorker);
  EXPECT_EQ(write_way(local, true, plain), FileWay::kRing);
  EXPECT_EQ(write_way(local, true, durable), FileWay::kRing);
  EXPECT_EQ(write_way(local, true, outside), FileWay::kWorker);
  EXPECT_EQ(write_way(device, false, plain), FileWay::kInPlace);
  EXPECT_EQ(write_way(device, false, flushing), FileWay::kWorker);
  EXPECT_EQ(write_way(opaque, false, plain), FileWay::kWorker);
  opaque.overlayfs = true;
  EXPECT_EQ(write_way(opaque, false, plain), FileWay::kInPlace);
  local.direct_writes_parallel = false;
  EXPECT_EQ(write_way(local, true, plain), FileWay::kWorker);

  EXPECT_EQ(allocate_way(memory, kInPlaceAllocateBytes), FileWay::kInPlace);
  EXPECT_EQ(allocate_way(memory, kInPlaceAllocateBytes + 1), FileWay::kWorker);
  EXPECT_EQ(allocate_way(local, 4096), FileWay::kWorker);
}

TEST(SlowCallGuardTest, PausesAreDoubledWhileCallsStaySlow) {
  SlowCallGuard guard;
  Instant now{Duration(0)};
  EXPECT_TRUE(guard.allows(now));
  Duration pause = SlowCallGuard::kPauseFirst;
  for (int i = 0; i < 8; ++i) {
    Instant end = now + milliseconds(5);
    guard.note(now, end);
    EXPECT_FALSE(guard.allows(end + (pause - microseconds(1))));
    EXPECT_TRUE(guard.allows(end + pause));
    now = end + pause;
    pause = std::min(pause * 2, SlowCallGuard::kPauseLast);
  }
  guard.note(now, now + microseconds(20));
  guard.note(now, now + milliseconds(5));
  EXPECT_TRUE(guard.allows(now + milliseconds(5) + SlowCallGuard::kPauseFirst));
}

}  // namespace
}  // namespace ringdisk::file
