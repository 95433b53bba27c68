// SPDX-License-Identifier: Apache-2.0
// JoinedWrites: writes of one shard that meet in a new cluster become one write. A cluster that is
// not there yet costs a read of what lay around the write and a write of all of it; small writes in
// sequence, several in flight, would each wait for the one before.
//
//   new cluster  [ old content | leader's write | f1 | f2 | old content ]
//                                                 ^ followers: came before the leader's bytes left
//
// The first write into a place is its Leader. Who comes while the leader waits for its place or
// reads the old content is a Follower: its bytes are laid over the old content, and it is done when
// the leader is. What the leader cannot take along (another cluster, its own bytes, a place that
// needs no old content) it lets go, as it does with all when it fails: they write by themselves.
//
// Owned by an Access, its shard only. Costs a copy of the followers' bytes.
#pragma once

#include <algorithm>

#include "async/event.h"
#include "base/intrusive.h"
#include "base/io_buffers.h"
#include "base/units.h"

namespace ringdisk {

class JoinedWrites {
 public:
  class Leader;

  // Lives in the frame of a write that waits for a leader.
  class Follower : public ListLink {
   public:
    Follower(Leader& leader, GuestRange range, ConstBuffers source)
        : range_(range), source_(source) {
      leader.followers_.push_back(*this);
    }
    // Until the leader has written these bytes too, or will not.
    Event::Wait wait() { return ended_.wait(); }
    bool is_written() const { return is_written_; }

   private:
    friend class Leader;
    void end(bool is_written) {
      unlink();
      is_written_ = is_written;
      ended_.set();
    }

    const GuestRange range_;
    const ConstBuffers source_;
    Event ended_;
    bool is_written_ = false;
  };

  // Lives in the frame of a write that asks for a new place: `request`, in the whole clusters (or
  // subclusters) `clusters`.
  class Leader : public ListLink {
   public:
    Leader(JoinedWrites& writes, GuestRange request, GuestRange clusters)
        : request_(request), clusters_(clusters) {
      writes.leaders_.push_back(*this);
    }
    ~Leader() {
      end(followers_, false);
      end(taken_, false);
    }

    // Nobody joins from here on. Lays what the followers write into `edge`, old content in
    // `content`, over it; lets those go that are not wholly in one of the two edges.
    void take_along(GuestRange head, MutableBytes head_content, GuestRange tail,
                    MutableBytes tail_content) {
      unlink();
      while (!followers_.empty()) {
        Follower& follower = followers_.pop_front();
        const bool is_taken =
            lay_over(follower, head, head_content) || lay_over(follower, tail, tail_content);
        if (is_taken) {
          taken_range_ = hull(taken_range_, follower.range_);
          taken_.push_back(follower);
        } else {
          follower.end(false);
        }
      }
    }
    // Nobody joins from here on, and all who have write by themselves.
    void go_alone() {
      unlink();
      end(followers_, false);
    }
    // `own`, and what lies between it and all that was taken along.
    GuestRange all_written(GuestRange own) const { return hull(taken_range_, own); }
    // What was taken along is where a read finds it.
    void succeed() { end(taken_, true); }

   private:
    friend class Follower;
    friend class JoinedWrites;

    static bool lay_over(const Follower& follower, GuestRange edge, MutableBytes content) {
      if (!edge.contains(follower.range_)) return false;
      const auto at = static_cast<size_t>((follower.range_.offset - edge.offset).value());
      copy_from_buffers(follower.source_, content.subspan(at));
      return true;
    }
    static GuestRange hull(GuestRange one, GuestRange other) {
      if (one.empty()) return other;
      return GuestRange::between(std::min(one.offset, other.offset),
                                 std::max(one.end(), other.end()));
    }
    static void end(IntrusiveList<Follower>& list, bool is_written) {
      while (!list.empty()) list.pop_front().end(is_written);
    }

    const GuestRange request_;
    const GuestRange clusters_;
    GuestRange taken_range_;
    IntrusiveList<Follower> followers_, taken_;
  };

  // The leader that a write of `range` may join, and in `length` how much of its front; or null.
  Leader* find(GuestRange range, ByteCount& length) {
    Leader* found = nullptr;
    leaders_.for_each([&](Leader& leader) {
      GuestRange common = range.intersection(leader.clusters_);
      if (common.empty() || common.offset != range.offset) return true;
      if (leader.request_.contains(range.offset)) return true;
      if (range.offset < leader.request_.offset) {
        const auto before = GuestRange::between(range.offset, leader.request_.offset);
        common = common.intersection(before);
      }
      found = &leader;
      length = common.length;
      return false;
    });
    return found;
  }

 private:
  IntrusiveList<Leader> leaders_;
};

}  // namespace ringdisk
